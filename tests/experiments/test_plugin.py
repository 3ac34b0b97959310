"""The planner of docs/add_a_method.md in a user's own file: it trains, plays, and nothing else is touched."""

import importlib.util
import json
import os
import re
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

DOCS = EXPERIMENTS.parent / "docs"
NAME = "boltzmann"
TINY = [
    *("--planner", NAME, "--preset", "smoke", "--source", "bundled", "--env", "hopper-medium"),
    *("--updates", "104", "--batch-size", "8", "--checkpoint-minutes", "0", "--evaluation.episodes", "1"),
    *("--evaluation.pictures", "1", "--evaluation.decisions", "2", "--settings.model.network.features", "8"),
]


@pytest.fixture(scope="module")
def plugin(tmp_path_factory) -> Path:
    source = re.findall(r"```python\n(.*?)```", (DOCS / "add_a_method.md").read_text(), re.DOTALL)[0]
    path = tmp_path_factory.mktemp("mine") / f"{NAME}.py"
    path.write_text(source)
    return path


@pytest.fixture(scope="module")
def out(tmp_path_factory, plugin) -> Path:
    """A run that was killed in its second save, and then went on."""
    out = tmp_path_factory.mktemp("out")
    arguments = ["--plugin", str(plugin), *TINY, "--out", str(out)]
    killed = run("plan", *arguments, code=killer("plan", "jdp.runs.checkpoints", "save", 2, 0.0))
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    done = run("plan", *arguments, "--resume")
    assert done.returncode == 0, done.stderr
    assert "100/104" in done.stdout and f"planner {NAME}" in done.stdout and "last checkpoint" in done.stdout
    return out


@pytest.fixture
def forgotten():
    """What a test registers, others do not see."""
    yield
    registry._entries.pop(("planner", NAME), None)
    sys.modules.pop(f"jdp_plugin_{NAME}", None)


@pytest.mark.slow
def test_it_trains_goes_on_and_plays(out):
    (path,) = out.glob("plan/hopper-medium/*")
    scores = json.loads((path / "scores.json").read_text())
    settings = json.loads((path / "config.json").read_text())["config"]["settings"]
    assert settings["model"]["steps"] == settings["critic"]["steps"] == 104  # its rates fall over the updates
    assert scores["method"] == NAME and np.isfinite(scores["returns"]).all()
    assert (path / "figures" / "closed_loop.gif").exists() or os.environ["MUJOCO_GL"] == "disabled"


@pytest.mark.slow
def test_a_loaded_run_imports_it_again(out, forgotten):
    assert NAME not in registry.entries("planner")
    (path,) = out.glob("plan/hopper-medium/*")
    loaded = jdp.load_run(path)
    assert (loaded.kind, loaded.name) == ("planner", NAME)
    observation = jnp.zeros((1, loaded.spec.observation_dim))
    key, carry, goal = jax.random.key(0), loaded.method.policy.init(observation), jnp.zeros((1, 0))
    _, decision = loaded.method.policy.act(key, loaded.state(1), carry, observation, goal)
    assert decision.action.shape == (1, 3) and np.isfinite(np.asarray(decision.action)).all()


def test_help_lists_it_with_its_settings(plugin):
    done = run("plan", "--plugin", str(plugin), "--planner", NAME, "--help")
    assert done.returncode == 0, done.stderr
    text = re.sub(r"[│\s]+", " ", done.stdout)
    assert f"{NAME} {NAME}: one of many plans" in text
    assert "--settings.temperature" in text and "in standard deviations of the dataset's returns" in text


def test_its_row_stands_in_the_table_of_methods(plugin, forgotten):
    spec = importlib.util.spec_from_file_location("hooks", DOCS / "hooks.py")
    assert spec is not None and spec.loader is not None
    hooks = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(hooks)
    assert NAME not in hooks.methods("planner")
    registry.load_plugin(str(plugin))
    assert f"| [`{NAME}`][jdp_plugin_{NAME}.{NAME}] | one of many plans" in hooks.methods("planner")


def test_mistakes_get_one_line(plugin, tmp_path):
    (tmp_path / "broken.py").write_text("import numpi")
    taken = tmp_path / "taken.py"
    taken.write_text(plugin.read_text().replace('"planner", "boltzmann"', '"planner", "diffuser"'))
    cases = {
        "no file": (["--plugin", str(tmp_path / "none.py")], "no such file"),
        "no module": (["--plugin", "no_such_module_here"], "no_such_module_here"),
        "broken": (["--plugin", str(tmp_path / "broken.py")], "numpi"),
        "without it": ([], "no planner 'boltzmann'"),
        "a name that is taken": (["--plugin", str(taken)], "registered twice"),
    }
    check_mistakes("plan", cases, [*TINY, "--out", str(tmp_path / "out")])
