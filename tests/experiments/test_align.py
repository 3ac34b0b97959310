"""align.py as a user runs it: every method on the toy, runs that act, killed and resumed, and wrong input."""

import json
import signal
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scripts import EXPERIMENTS, check_mistakes, killer, run

import jdp
from jdp import registry

SMOKE = ("--preset", "smoke")
POLICY, PLANNER = "pointmaze-umaze-policy", "maze2d-umaze-diffuser"
TINY = (*SMOKE, "--updates", "2", "--batch-size", "2", "--samples", "8", "--given", "8")


def scores(out: Path, experiment: str = "align") -> dict:
    (path,) = out.glob(f"{experiment}/*/*/scores.json")
    return json.loads(path.read_text())


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["--method", "ddpp"], "did you mean ddpo?"),
        (["--method", "ddpo", "--settings.eta", "0"], "deterministic sampler"),
        (["--method", "loop", "--settings.group", "1"], "samples are judged by others"),
        (["--method", "ddpo", "--preferences", "pairs.npz"], "ddpo learns from no pairs"),
        (["--method", "ddpo", "--teachers", "a", "b"], "ddpo has no teachers"),
        (["--updates", "0"], "--updates is 0"),
        (["--evaluation.guided", "5"], "a guide steers planners"),
        (["--evaluation.guided", "nan"], "guided"),
        (["--evaluation.guidance-steps", "-1"], "guidance_steps"),
        (["--model", "hoper"], "no trained model hoper"),
        (["--model", "hopper-medium-diffuser", "--reward", "gentle"], "of no model that can be aligned"),
        (["--preset", "paperr"], "--preset paperr"),
    ],
)
def test_mistakes_that_are_seen_at_once(monkeypatch, arguments, word):
    monkeypatch.syspath_prepend(str(EXPERIMENTS))
    import align

    always = [
        "--batch-size",
        "8",
        *([] if "--preset" in arguments else SMOKE),
    ]  # for the devices of the suite
    monkeypatch.setattr(sys, "argv", ["align.py", *always, *arguments])
    with pytest.raises(jdp.UserError) as error:
        align.main()
    assert word in str(error.value) and len(str(error.value).splitlines()) == 1


@pytest.mark.slow
def test_mistakes_get_one_line(tmp_path):
    file, pairs = tmp_path / "mine.py", tmp_path / "pairs.npz"
    file.write_text("def bad(x, condition):\n    return x[:, 0] / 0\n\n\ndef worse(*x):\n    return x[0]\n")
    np.savez(
        pairs, first=np.zeros((4, 2)), second=np.zeros((3, 2)), condition=np.zeros((4, 0)), first_won=[1] * 4
    )
    dpo = ["--method", "diffusion_dpo"]
    cases = {
        "not finite": (["--reward", f"{file}:bad"], "the reward is not finite"),
        "no number": (["--reward", f"{file}:worse"], "give one number a sample"),
        "no toy reward": (["--reward", "avoid"], "the toy has linear, modes"),
        "pairs": ([*dpo, "--preferences", str(pairs)], "first is (4, 2), second (3, 2)"),
        "no pairs": ([*dpo, "--preferences", str(file)], "no npz file of arrays"),
        "no reward": (["--model", PLANNER], "--reward: say what is wished for"),
        "reward of plans": (["--model", POLICY, "--reward", "avoid"], "avoid judges plans"),
        "no entry": (["--model", PLANNER, "--reward", "steady"], "no entries (5,), but 4"),
        "no actions": (["--model", PLANNER, "--reward", "gentle"], "plans hold states alone"),
        "no planner": (
            ["--model", POLICY, "--reward", "gentle", "--evaluation.guided", "5"],
            "give a planner and the --reward",
        ),
        "no critic": (["--model", POLICY, "--reward", "critic"], "give a run of offline_rl.py"),
        "critic": (["--model", POLICY, "--critic", PLANNER], "diffuser has no Q that can be asked"),
        "teachers": (["--method", "opd", "--model", POLICY], "two or more runs"),
        "other teachers": (
            ["--method", "opd", "--model", POLICY, "--teachers", POLICY, PLANNER],
            "it is of another model",
        ),
        "no tokens": (["--method", "gdpo", "--model", POLICY], "gdpo aligns models of tokens"),
        "seed": (
            ["--model", POLICY, "--reward", "gentle", "--model-seed", "3"],
            "training seeds 0 to 0, not 3",
        ),
    }
    check_mistakes("align", cases, [*SMOKE, "--out", str(tmp_path)])
    assert not (tmp_path / "align").exists()  # nothing was written


@pytest.mark.slow  # one of each kind of model, rows and judge; .ci/smoke.py runs all methods
@pytest.mark.parametrize("method", ["ddpo", "diffusion_dpo", "diffusion_dro", "opd", "rlcm", "gdpo"])
def test_a_method_runs_on_the_toy_by_one_command(tmp_path, method):
    done = run("align", "--method", method, *SMOKE, "--samples", "64", "--out", str(tmp_path))
    assert done.returncode == 0, done.stderr
    found = scores(tmp_path)
    assert found["method"] == method and found["network_calls"] > 0
    assert np.isfinite(
        [value for said in (found["before"], *found["after"]) for value in said.values()]
    ).all()
    pictures = list(tmp_path.glob("align/*/*/figures/samples.png"))
    assert bool(pictures) != ("tokens" in registry.entry("alignment", method).options)


@pytest.mark.slow
def test_a_killed_run_ends_with_the_same_numbers(tmp_path):
    def script(out, *more, code=None):
        own = ("--method", "diffusion_dro", "--updates", "8", "--seeds", "2", "--checkpoint-minutes", "0")
        return run("align", *SMOKE, *own, *more, "--out", str(out), code=code)

    whole, cut = tmp_path / "whole", tmp_path / "cut"
    done = script(whole)
    assert done.returncode == 0, done.stderr
    killed = script(cut, code=killer("align", "jdp.runs.checkpoints", "save", 3, 0.0))
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    done = script(cut, "--resume")
    assert done.returncode == 0, done.stderr
    assert {k: scores(cut)[k] for k in ("before", "after")} == {
        k: scores(whole)[k] for k in ("before", "after")
    }


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "method", "reward"),
    [(POLICY, "awm", "gentle"), (PLANNER, "ddpo", "avoid"), (PLANNER, "diffusion_dpo", "arrive")],
)
def test_an_aligned_run_is_one_of_the_kind_of_its_model(tmp_path, model, method, reward):
    guided = ("--evaluation.guided", "5") if (model, method) == (PLANNER, "ddpo") else ()
    own = ("--model", model, "--method", method, "--reward", reward, *guided)
    done = run("align", *TINY, *own, "--out", str(tmp_path))
    assert done.returncode == 0, done.stderr
    found = scores(tmp_path)
    assert found["base"]["returns"] and found["returns"] and "reward" in found["before"]
    (path,) = tmp_path.glob("align/*/*")
    base, loaded = jdp.load_pretrained(model), jdp.load_run(path)
    assert (loaded.kind, loaded.name, loaded.settings) == (base.kind, base.name, base.settings)
    assert loaded.method == base.method
    old, new = (jax.tree.leaves(x.state()) for x in (base, loaded))
    assert [x.shape for x in old] == [x.shape for x in new]
    assert any((np.asarray(x) != np.asarray(y)).any() for x, y in zip(old, new, strict=True))
    common = ("--episodes", "2", "--decisions", "1", "--out", str(tmp_path))
    done = run("evaluate", str(path), *common)
    assert done.returncode == 0, done.stderr
    if guided:
        assert {p.stem for p in (path / "figures").glob("*.png")} >= {"aligned_plans", "executed"}
        assert set(found["played"]) == {"before", "guided, strength 5", "after ddpo"}
        assert all(np.shape(one["executed"]) == (1, 2) for one in found["played"].values())
        taught = ("--method", "opd", "--teachers", model, str(path), "--out", str(tmp_path / "taught"))
        done = run("align", *TINY, "--model", model, *taught)  # merged with what it was
        assert done.returncode == 0, done.stderr
        (merged,) = (tmp_path / "taught").glob("align/*/*")
        first, second = (jdp.load_run(merged).state(seed) for seed in range(2))  # told each teacher
        shapes = [jax.tree.map(jnp.shape, state) for state in (base.state(), first, second)]
        assert shapes[0] == shapes[1] == shapes[2]


@pytest.mark.slow
def test_the_benchmark_compares_and_resumes(tmp_path):
    own = ("--benchmark", *SMOKE, "--methods", "ddpo", "opd", "--seeds", "2", "--out", str(tmp_path))
    killed = run("align", *own, code=killer("align", "jdp.runs.checkpoints", "save", 2, 0.0))
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    done = run("align", *own, "--resume")
    assert done.returncode == 0, done.stderr
    found = scores(tmp_path, "align_benchmark")["methods"]
    assert set(found) == {"ddpo", "opd"}
    for one in found.values():
        assert len(one["calls"]) == 5 and all(len(x) == 5 for x in one["curve"].values())
    (path,) = tmp_path.glob("align_benchmark/*/*")
    assert "| DiffusionOPD |" in (path / "report.txt").read_text()
    assert {p.name for p in (path / "figures").iterdir()} == {"samples.png", "efficiency.png"}


@pytest.mark.slow
def test_a_critic_of_the_policys_own_dataset_is_a_reward(tmp_path):
    env, out = ("--env", "hopper-medium", "--source", "bundled"), ("--out", str(tmp_path))
    done = run("offline_rl", "--agent", "iql", *env, *SMOKE, "--updates", "50", *out)
    assert done.returncode == 0, done.stderr
    (critic,) = tmp_path.glob("offline_rl/*/*")
    asked = ("--model", "hopper-medium-policy", "--reward", "critic", "--critic", str(critic))
    done = run("align", *TINY, *asked, *out)
    assert done.returncode == 0, done.stderr
    found = scores(tmp_path)
    assert found["score_name"] == "normalised score" and np.isfinite(found["after"][0]["reward"])
