"""offline_rl.py as a user runs it: model-free, model-based, killed, given wrong input; and its table."""

import json
import signal
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scripts import check_mistakes, hdf5, killer, run

import jdp

ALWAYS = ["--preset", "smoke", "--source", "bundled", "--env", "hopper-medium"]
TINY = [
    *ALWAYS,
    *("--updates", "12", "--settings.hidden", "8", "--evaluation.episodes", "1"),
    *("--evaluation.every", "6", "--checkpoint-minutes", "0"),
]
MODEL = [
    *("--settings.rollouts.every", "4", "--settings.rollouts.batch", "20", "--settings.rollouts.length", "3"),
    *("--settings.rollouts.capacity", "100", "--ensemble.hidden", "8", "--ensemble.epochs", "2"),
]


def script(out: Path, agent: str, *arguments: str, code: str | None = None):
    model = MODEL if agent in ("mopo", "morel", "combo") else []
    return run("offline_rl", "--agent", agent, *TINY, *model, *arguments, "--out", str(out), code=code)


def scores(out: Path, agent: str) -> dict:
    found = [json.loads(p.read_text()) for p in out.glob("offline_rl/*/*/scores.json")]
    (one,) = [s for s in found if s["agent"] == agent]
    return one


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("whole")
    for agent in ("rebrac", "morel"):
        done = script(out, agent)
        assert done.returncode == 0, done.stderr
        assert "last checkpoint" in done.stdout and "behaviour policy" in done.stdout
    return out


def test_a_run_keeps_every_return_and_compiles_each_program_once(whole):
    for agent, chunks in (("rebrac", None), ("morel", 2)):  # of the ensemble and of the agents
        found = scores(whole, agent)
        assert np.shape(found["returns"]) == (2, 1) and np.isfinite(found["returns"]).all()
        assert found["preset"] == "smoke" and found["updates"] == 12
        assert found["compilations"]["repeated"].get("jit(chunk)") == chunks
        assert "jit(act)" not in found["compilations"]["repeated"]
        assert "jit(refill)" not in found["compilations"]["repeated"]
        assert set(found["minutes"]) == ({"agent", "ensemble"} if agent == "morel" else {"agent"})


def test_load_run_gives_the_agent_and_its_model_back(whole):
    runs = [jdp.load_run(path.parent) for path in whole.glob("offline_rl/*/*/config.json")]
    (run,) = [r for r in runs if r.config["agent"] == "morel"]
    assert run.world_model is not None and run.denoiser is None and run.method.target is not None
    observation = jnp.zeros((4, 11)).at[:, 0].set(1.25)  # a hopper that stands
    action = run.method.target(run.state(0), observation).mean
    model, state = run.world_model
    carry = model.start(observation[:, None], jnp.zeros((4, 0, 3)))
    _, following, _, _ = model.step(jax.random.key(0), state, carry, action)
    # It has learned from the data: an episode that stands does not jump by more than they do.
    assert float(jnp.abs(following[:, 0] - 1.25).max()) < 0.1
    assert run.scores is not None and run.scores["agent"] == "morel"


@pytest.mark.slow
def test_combo_learns_from_a_diffusion_model_too(tmp_path):
    kind, sizes = "diffusion_step", ("--diffusion-step.features", "8", "--diffusion-step.steps", "10")
    done = script(tmp_path, "combo", "--world-model", kind, *sizes)
    assert done.returncode == 0, done.stderr
    (path,) = tmp_path.glob("offline_rl/*/*")
    loaded = jdp.load_run(path)
    assert loaded.world_model is not None and loaded.world_model.model.predict is None
    assert loaded.world_model.state.training.step == 10
    assert set(scores(tmp_path, "combo")["minutes"]) == {kind, "agent"}


# In the ensemble's first epoch, in the second batch of rollouts, in the agents' second round, at the end.
KILLS = [
    ("jdp.runs.checkpoints", "save", 1, 0.004),
    ("jdp.loops.model_based", "refill", 2, 0.0),
    ("jdp.loops.train", "fit", 1, 0.03),
    ("offline_rl", "closing", 1, 0.0),
]


@pytest.mark.slow
def test_a_killed_model_based_run_ends_with_the_same_numbers(whole, tmp_path):
    resume: tuple[str, ...] = ()
    for kill in KILLS:
        code = killer("offline_rl", *kill)
        killed = script(tmp_path, "morel", *resume, code=code)
        assert killed.returncode == -signal.SIGKILL, killed.stderr
        resume = ("--resume",)
    done = script(tmp_path, "morel", "--resume")
    assert done.returncode == 0, done.stderr
    assert scores(tmp_path, "morel")["returns"] == scores(whole, "morel")["returns"]


@pytest.mark.slow
def test_a_dataset_of_one_episode_is_enough(tmp_path):
    rows = 600
    path = hdf5(tmp_path / "one.hdf5", rows=rows, terminals=np.arange(rows) == rows - 1)
    done = script(tmp_path, "mopo", "--env", str(path), "--source", "file")
    assert done.returncode == 0, done.stderr


def test_mistakes_get_one_line(tmp_path):
    short = hdf5(tmp_path / "short.hdf5")
    endless = hdf5(
        tmp_path / "endless.hdf5",
        rows=600,
        observations=np.zeros((600, 3), np.float32),
        actions=np.zeros((600, 1), np.float32),
        terminals=np.zeros(600, bool),
    )
    task = ["--env", str(endless), "--source", "file", "--env-id", "Pendulum-v1"]
    cases = {
        "unknown agent": (["--agent", "mopoo"], "did you mean mopo?"),
        "no rule, no terminals": (["--agent", "mopo", *task], "--ensemble.termination never"),
        "unknown rule": (["--agent", "mopo", "--ensemble.termination", "Hoper-v5"], "Hoper-v5"),
        "horizon and buffer": (
            ["--agent", "combo", "--settings.rollouts.length", "5000"],
            "rollouts.capacity",
        ),
        "too few rows": (["--agent", "mopo", "--env", str(short), "--source", "file"], "ensemble.batch_size"),
        "no real rows": (["--agent", "combo", "--settings.rollouts.real-share", "0"], "real_share"),
        "no members": (["--agent", "mopo", "--world-model", "diffusion_step"], "give it an ensemble"),
        "bad expectile": (["--agent", "iql", "--settings.expectile", "2"], "expectile"),
        "typo in an option": (["--agent", "mopo", "--settings.penlty", "1"], "--settings.penalty"),
        "no updates": (["--agent", "bc", "--updates", "0"], "--updates"),
    }
    check_mistakes("offline_rl", cases, [*ALWAYS, "--out", str(tmp_path / "out")])


def test_the_table_refuses_smoke_rows(whole, tmp_path):
    refused = run("table", "--out", str(whole))
    assert refused.returncode == 2 and "refused: 2 runs" in refused.stdout
    assert "no finished run of the cpu or paper preset" in refused.stderr
    # The same runs, called what they are not, make a table: one row an agent.
    for path in whole.glob("offline_rl/*/*/scores.json"):
        target = tmp_path / path.relative_to(whole)
        target.parent.mkdir(parents=True)
        target.write_text(json.dumps(json.loads(path.read_text()) | {"preset": "cpu"}))
        (target.parent / "config.json").write_text((path.parent / "config.json").read_text())
    done = run("table", "--out", str(tmp_path))
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "tables/all/table.md").read_text()
    assert text.index("| morel (ensemble) |") < text.index("| rebrac ")
    mean, low, high = scores(whole, "morel")["interval"]
    assert f"{mean:.1f} [{low:.1f}, {high:.1f}]" in text and "--agent morel" in text
