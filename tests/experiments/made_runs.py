"""Run directories made up for the tests of report.py: whole, unfinished, hostile and broken ones."""

import json
from pathlib import Path

from jdp.evaluation import interval

HOSTILE = '</script><script>alert("x")</script><img src=x onerror=alert(1)>'
PIXEL = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010806000000"
    "1f15c4890000000d49444154789c6360606060000000050001a5f645400000000049454e44ae426082"
)
SPEC = {
    "observation_dim": 11,
    "action_dim": 3,
    "env_id": "Hopper-v5",
    "score_range": [-20.0, 3230.0],
    "goal": [],
}
RETURNS = {100: [[500.0, 700.0], [900.0, 1000.0]], 200: [[1500.0, 1700.0], [900.0, 1100.0]]}


def write(folder: Path, config: dict, lines: list[dict] = (), scores: dict | None = None, **facts) -> Path:  # type: ignore[assignment]
    """A run directory."""
    folder.mkdir(parents=True)
    facts = {
        "dataset": "hopper-medium (bundled)",
        "spec": SPEC,
        "sha256": "ab" * 32,
        "commit": "0123456789ab",
    } | facts
    (folder / "config.json").write_text(json.dumps({"config": config, "hash": "cafe", **facts}))
    (folder / "metrics.jsonl").write_text(
        "".join(json.dumps(line) + "\n" for line in lines) + '{"phase": "ag'
    )
    if scores is not None:
        (folder / "scores.json").write_text(json.dumps(scores))
        (folder / "report.txt").write_text(f"score <b>{scores.get('interval')}</b>\n")
    return folder


def logs(shift: float = 0.0) -> list[dict]:
    """Losses of two seeds every 10 updates, and two evaluations."""
    lines = [
        {"phase": "agent", "step": s, "critic_loss": [100 / s + shift, 200 / s], "seconds": 6.0}
        for s in range(10, 201, 10)
    ]
    return lines + [
        {"phase": "agent/evaluation", "step": step, "returns": returns, "seconds": 30.0}
        for step, returns in RETURNS.items()
    ]


def finished(seeds: list[float], **more) -> dict:
    return {"seeds": seeds, "interval": [float(v) for v in interval(seeds)], "behaviour": 40.0, **more}


def make_results(out: Path) -> Path:
    """Five whole runs, one unfinished, one of the smoke preset, and three that are none."""
    rl = out / "offline_rl" / "hopper-medium"
    base = {
        "agent": "td3_bc",
        "preset": "cpu",
        "updates": 200,
        "seeds": 2,
        "settings": {"alpha": 2.5, "hidden": [256, 256]},
    }
    a = write(rl / "20261101-100000-aaaaaaaa", base, logs(), finished([9.0, 11.0], latency={"median": 0.002}),
              command="python experiments/offline_rl.py --agent td3_bc")  # fmt: skip
    (a / "figures").mkdir()
    (a / "figures" / "plans.png").write_bytes(PIXEL)
    (a / "figures" / "large.png").write_bytes(PIXEL + bytes(3000))
    iql = base | {
        "agent": "iql",
        "settings": {"alpha": 2.5, "hidden": [256, 256], "expectile": 0.7},
        "updates": 400,
    }
    write(rl / "20261102-100000-bbbbbbbb", iql, logs(1.0), finished([100.0, 104.0, 90.0]))
    arms = {"dataset": finished([30.0, 31.0]), "guided": finished([2.0, 2.5])}
    pgd = base | {"arms": ["dataset", "guided"]}
    write(out / "pgd_d4rl" / "hopper-medium" / "20261103-100000-cccccccc", pgd, [], {"arms": arms})
    write(out / "plan" / "evil" / "20261104-100000-dddddddd", {"planner": "diffuser", "preset": "cpu"},
          [], finished([50.0, 51.0]), dataset=HOSTILE, command=f"python x.py '{HOSTILE}'")  # fmt: skip
    write(rl / "20261105-100000-eeeeeeee", base, logs()[:3])
    write(rl / "20261106-100000-ffffffff", base | {"preset": "smoke", "agent": "bc"}, [], finished([1.0]))
    for name, text in {"half": '{"config": {"ag', "list": "[1, 2]", "deep": "[" * 100_000}.items():
        (out / "broken" / "set" / name).mkdir(parents=True)
        (out / "broken" / "set" / name / "config.json").write_text(text)
    write(out / "broken" / "set" / "scores", base, logs(), {"seeds": "abc", "interval": {"low": 1}})
    (out / "broken" / "set" / "empty").mkdir()
    (out / "tables" / "a" / "b").mkdir(parents=True)
    return out
