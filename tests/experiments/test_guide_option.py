"""--guide: a user's rule steers what evaluate.py, plan.py and policies.py play; mistakes get one line."""

import json

import numpy as np
import pytest
from scripts import check_mistakes, mistakes
from test_export_script import make_run

from jdp.learning import rules

FILE = """
import jax.numpy as jnp
from jdp.diffusion.guidance.logic import always, below, disc, effort, outside

keep_out = always(outside(disc((1.5, 0.0), 0.5)))
elsewhere = always(outside(disc((1.5, 0.0), 0.5, (9, 10))))
gentle = always(below(effort(), 0.1))

def root(observation, action):
    return jnp.sqrt(jnp.sum(jnp.square(0 * action), axis=(1, 2)))

def own(context):
    return lambda denoiser: denoiser
"""
MAZE, HOPPER = (
    ["--planner", "diffuser", "--env", "pointmaze-umaze"],
    ["--policy", "beso", "--env", "hopper-medium"],
)
ALWAYS = ["--preset", "smoke", "--source", "bundled"]


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("mine") / "rules.py"
    path.write_text(FILE)
    return str(path)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs")
    return {kind: make_run(out, kind) for kind in ("agent", "policy")}


def test_mistakes_get_one_line(file, runs, tmp_path):
    policy, out = str(runs["policy"]), tmp_path / "out"
    cases = {
        "no file": (
            [policy, "--guide", "none.py:gentle"],
            "--guide none.py:gentle: there is no file none.py",
        ),
        "no name": ([policy, "--guide", f"{file}:gentel"], "there is no gentel in"),
        "no rule": ([policy, "--guide-strength", "2"], "--guide-strength says nothing without --guide"),
        "an agent": ([str(runs["agent"]), "--guide", f"{file}:gentle"], "a method of the kind agent"),
        "below 0": ([policy, "--guide", f"{file}:gentle", "--guide-strength", "-1"], "must be at least 0"),
        "its own": ([policy, "--guide", f"{file}:own", "--guide-strength", "2"], "a strength of its own"),
        "states": ([policy, "--guide", f"{file}:keep_out"], "says nothing of what is drawn here"),
        "infinite": (
            [policy, "--guide", f"{file}:root"],
            "the cost or its gradient is not finite on the first plan",
        ),
    }
    check_mistakes("evaluate", cases, ["--episodes", "1", "--decisions", "1", "--out", str(out)])
    assert not out.exists()


@pytest.mark.parametrize(
    ("script", "words", "name", "line"),
    [
        ("plan", MAZE, "elsewhere", "names entry 9, 10 of observations, which have the entries 0 to 3"),
        ("policies", HOPPER, "keep_out", "says nothing of what is drawn here, which is actions alone"),
    ],
)
def test_what_cannot_steer_is_told_before_anything_is_trained(file, tmp_path, script, words, name, line):
    out = tmp_path / "out"
    check_mistakes(script, {"": (["--guide", f"{file}:{name}"], line)}, [*words, *ALWAYS, "--out", str(out)])
    assert not list(out.rglob("config.json"))


@pytest.mark.slow
def test_what_was_done_is_judged_and_a_strength_of_0_changes_nothing(file, runs, tmp_path):
    common = [str(runs["policy"]), "--episodes", "2", "--decisions", "1"]
    lists = {
        "plain": common,
        **{
            strength: [*common, "--guide", f"{file}:gentle", "--guide-strength", strength]
            for strength in ("0", "3")
        },
    }
    lists = {name: [*words, "--out", str(tmp_path / name)] for name, words in lists.items()}
    said = mistakes("evaluate", lists)
    assert all(status == 0 for status, _ in said.values()), said
    paths = {name: next((tmp_path / name).glob("evaluate/*/*")) for name in lists}
    found = {name: json.loads((path / "scores.json").read_text()) for name, path in paths.items()}
    np.testing.assert_array_equal(found["0"]["returns"], found["plain"]["returns"])
    assert "rule" not in found["plain"]
    kept = {name: np.array(found[name]["rule"]["episodes"]) for name in ("0", "3")}
    assert kept["3"].shape == (2, 2) and kept["3"].mean() > kept["0"].mean()
    assert found["3"]["rule"]["robustness"] == pytest.approx(kept["3"].mean())
    assert found["3"]["rule"]["satisfied"][0] == pytest.approx(100 * (kept["3"] > 0).mean())
    assert f"{file}:gentle at strength 3: kept in" in (paths["3"] / "report.txt").read_text()
    assert rules.rule(f"{file}:gentle").formula is not None
