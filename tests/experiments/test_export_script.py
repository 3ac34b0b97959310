"""export.py on finished runs: the files do without jdp what the runs' own policies do."""

import json
import os
import subprocess
import sys
from dataclasses import asdict

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scripts import EXPERIMENTS, TIMEOUT, environment, mistakes

import jdp
from jdp.agents.bc import BCConfig
from jdp.data import SegmentRows
from jdp.learning.plan_critics import CriticConfig
from jdp.learning.plan_models import ModelConfig
from jdp.networks import NetworkConfig, ValueNetworkConfig
from jdp.planners.diffuser import DiffuserPlannerConfig
from jdp.planners.trajectory import SamplingConfig
from jdp.policies.diffusion_policy import DiffusionPolicyConfig
from jdp.runs import checkpoints, start_run
from jdp.runs.export import read_export
from jdp.types import Spec, Transition

pytest.importorskip("flatbuffers")
MAZE = Spec(4, 2, goal=(0, 1))
HOPPER = Spec(11, 3, "Hopper-v5", 1000)
SEEDS, STEPS = 2, 5
TINY = NetworkConfig(features=8, blocks=1)
SETTINGS = {
    "planner": DiffuserPlannerConfig(
        horizon=8,
        candidates=2,
        replan_every=2,
        model=ModelConfig(TINY),
        critic=CriticConfig(ValueNetworkConfig(features=8, blocks=1)),
        sampling=SamplingConfig(steps=3, warm_steps=2),
    ),
    "policy": DiffusionPolicyConfig(chunk=4, execute=3, history=2, features=16, blocks=1, sampling_steps=3),
    "agent": BCConfig(hidden=(8,)),
}
NAMES = {"planner": "diffuser", "policy": "diffusion_policy", "agent": "bc"}
# Acts with every file, for one and three environments, where `import jdp` fails; then plays an episode.
WITHOUT_JDP = """
import json, sys
sys.modules["jdp"] = None
sys.path.insert(0, {folder!r})
import act_exported as script, jax, numpy as np
files, found = json.load(sys.stdin), {{}}
for kind, (file, observations) in files.items():
    card, start, act = script.load(file)
    for seen in (np.array(o, np.float32) for o in observations):
        carry, actions = start(seen[0]), []
        for step, now in enumerate(seen):
            goal = [now[:, card["goal"]]] if card["goal"] else []
            carry, action = act(jax.random.key_data(jax.random.key(step)), carry, now, *goal)
            actions.append(np.asarray(action).tolist())
        found.setdefault(kind, []).append(actions)
found["return"] = script.play(*script.load(files["agent"][0]))
assert not [name for name in sys.modules if name.startswith("jdp.")]
json.dump(found, sys.stdout)
"""


def shaken(state):
    """Networks begin with a last layer of zeros, of which little can be seen."""
    rng = np.random.default_rng(5)

    def shake(x):
        return x + 0.05 * rng.normal(size=x.shape).astype(x.dtype) if x.dtype == jnp.float32 else x

    return jax.tree.map(shake, state)


def learner(kind, spec):
    """The learner of the method, and the data it begins with."""
    rng, n = np.random.default_rng(0), 64
    observation, action = rng.normal(size=(n, spec.observation_dim)), rng.normal(size=(n, spec.action_dim))
    o, a, zeros = observation.astype(np.float32), np.tanh(action).astype(np.float32), np.zeros(n, np.float32)
    if kind == "agent":
        return jdp.agents.make(SETTINGS[kind], spec).learner, Transition(o, a, zeros, o, zeros)
    starts = np.zeros(8, np.int32)
    rows = SegmentRows(o, a, zeros, zeros, zeros, starts, starts + n - 1, starts)
    make = jdp.planners.make if kind == "planner" else jdp.policies.make
    return make(SETTINGS[kind], spec).learner, rows


def make_run(out, kind):
    """A run directory as the scripts leave it, of a method with random weights."""
    spec = MAZE if kind == "planner" else HOPPER
    made, data = learner(kind, spec)
    states = jax.vmap(made.init, in_axes=(0, None))(jax.random.split(jax.random.key(1), SEEDS), data)
    config = {kind: NAMES[kind], "settings": asdict(SETTINGS[kind]), "seeds": SEEDS}
    facts = {"dataset": "made up", "sha256": "0", "spec": asdict(spec)}
    run = start_run(out, kind, "tiny", config, facts)
    checkpoints.save(run.folder(kind), 1, shaken(states))
    run.write("scores.json", {"seeds": [1.0, 2.0], "updates": 1})
    run.lock.close()
    return run.path


def own(path, kind):
    """The run's own policy, and the state of its second seed."""
    loaded = jdp.load_run(path)
    assert loaded.kind == kind
    return loaded.method.policy, loaded.state(1), loaded.spec


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """Runs and files by kind, and what export.py said to wrong command lines."""
    out = tmp_path_factory.mktemp("export")
    runs = {kind: make_run(out, kind) for kind in NAMES}
    files = {kind: out / f"{kind}.jaxexport" for kind in NAMES}
    unfinished = out / "unfinished"
    unfinished.mkdir()
    (unfinished / "config.json").write_text((runs["policy"] / "config.json").read_text())
    policy = str(runs["policy"])
    said = mistakes(
        "export",
        {
            **{kind: [str(runs[kind]), "--seed", "1", "--to", str(files[kind])] for kind in NAMES},
            "unfinished": [str(unfinished)],
            "no run directory": [str(out / "none")],
            "training seeds 0 to 1": [policy, "--seed", "2"],
            "choose one of policy, not guided": [policy, "--arm", "guided"],
            "choose one of agent": [str(runs["agent"]), "--arm", "guided"],
        },
    )
    return runs, files, said


@pytest.mark.slow
def test_what_was_exported_acts_without_jdp_as_the_run_does(exported):
    runs, files, said = exported
    assert all(said[kind][0] == 0 for kind in NAMES), said
    rng, asked = np.random.default_rng(3), {}
    for kind, path in runs.items():
        dim = json.loads((path / "config.json").read_text())["spec"]["observation_dim"]
        asked[kind] = (str(files[kind]), [rng.normal(size=(STEPS, b, dim)).round(3).tolist() for b in (1, 3)])
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_JDP.format(folder=str(EXPERIMENTS))],
        input=json.dumps(asked),
        capture_output=True,
        text=True,
        env=environment() | {"MUJOCO_GL": os.environ["MUJOCO_GL"]},
        check=False,
        timeout=TIMEOUT,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    for kind, path in runs.items():
        policy, state, spec = own(path, kind)
        act = jax.jit(policy.act)
        for observations, actions in zip(asked[kind][1], found[kind], strict=True):
            seen = np.array(observations, np.float32)
            carry = policy.init(seen[0])
            for step, now in enumerate(seen):
                carry, decision = act(jax.random.key(step), state, carry, now, now[:, list(spec.goal)])
                np.testing.assert_allclose(actions[step], decision.action, rtol=0, atol=1e-6, err_msg=kind)
            assert np.std(actions) > 0.01
    assert np.isclose(found["return"], hopper_return(*own(runs["agent"], "agent")), rtol=1e-3)


def hopper_return(policy, state, spec):
    """The return of the episode that act_exported.py plays, by the run's own agent."""
    env, act = gymnasium.make(spec.env_id, max_episode_steps=spec.max_episode_steps), jax.jit(policy.act)
    (observation, _), total, over = env.reset(seed=0), 0.0, False
    while not over:
        now = observation[None].astype(np.float32)
        _, decision = act(jax.random.key(0), state, policy.init(now), now, jnp.zeros((1, 0)))
        observation, reward, terminated, truncated, _ = env.step(
            np.clip(np.asarray(decision.action)[0], -1, 1)
        )
        total, over = total + float(reward), terminated or truncated
    return total


@pytest.mark.slow
def test_the_card_says_where_the_policy_comes_from(exported):
    runs, files, _ = exported
    card = read_export(files["policy"]).card
    assert card["make"] == {"id": "Hopper-v5", "max_episode_steps": 1000}
    wanted = {"method": "diffusion_policy", "seed": 1, "score": 2.0, "dataset": "made up", "updates": 1}
    assert wanted.items() <= card.items() and card["run"] == str(runs["policy"])
    assert card["platforms"] == ["cpu", "cuda", "tpu"]


@pytest.mark.slow
def test_mistakes_get_one_line(exported, tmp_path):
    _, _, said = exported
    for word, (status, error) in said.items():
        if word not in NAMES:
            assert status == 2 and word in error and len(error.strip().splitlines()) == 1, (word, error)
    (tmp_path / "wrong").write_text("no zip")
    script = [sys.executable, str(EXPERIMENTS / "act_exported.py"), str(tmp_path / "wrong")]
    done = subprocess.run(script, capture_output=True, text=True, env=environment(), check=False)
    assert done.returncode == 1 and len(done.stderr.strip().splitlines()) == 1
    assert "made by experiments/export.py" in done.stderr
