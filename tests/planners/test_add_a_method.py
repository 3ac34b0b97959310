"""A planner in one file, which docs/add_a_method.md prints: registered, trained, played, guided."""

import re
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jdp
from jdp import loops, registry
from jdp.data import batches
from jdp.data.episodes import Origin, make_episodes
from jdp.errors import UserError
from jdp.networks import NetworkConfig, ValueNetworkConfig
from jdp.planners import CriticConfig, InverseConfig, ModelConfig, SamplingConfig, cost_guide
from jdp.types import Spec

PAGE = Path(__file__).parents[2] / "docs" / "add_a_method.md"
SPEC = Spec(2, 1)


@pytest.fixture(scope="module")
def plugin(tmp_path_factory):
    """The page's first block, loaded from a folder of a user's."""
    source = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)[0]
    assert len(source.splitlines()) < 80
    path = tmp_path_factory.mktemp("mine") / "boltzmann.py"
    path.write_text(source)
    before = set(registry.entries("planner"))
    registry.load_plugin(str(path))
    assert set(registry.entries("planner")) == before | {"boltzmann"}
    yield registry.entry("planner", "boltzmann")
    del registry._entries["planner", "boltzmann"], sys.modules["jdp_plugin_boltzmann"]


def data():
    rng, ends = np.random.default_rng(0), np.arange(120) % 20 == 19
    return make_episodes(
        rng.normal(size=(120, 2)).astype(np.float32),
        rng.uniform(-1, 1, (120, 1)).astype(np.float32),
        rng.normal(size=120).astype(np.float32),
        None,
        np.zeros(120, bool),
        ends,
        spec=SPEC,
        origin=Origin("noise", "file", "", "", 0, ""),
    )


def test_a_planner_of_one_file_trains_and_plays(plugin):
    config = plugin.config(
        horizon=4,
        replan_every=2,
        candidates=3,
        model=ModelConfig(NetworkConfig("mixer", 8, 1), steps=4),
        critic=CriticConfig(ValueNetworkConfig("pooled", 8, 1), steps=4),
        inverse=InverseConfig(hidden=(8,), steps=4),
        sampling=SamplingConfig(steps=2, warm_steps=0),
    )
    made = jdp.planners.make(config, SPEC)
    assert made is jdp.planners.make(config, SPEC)
    learner, seen = made.learner, []
    rows = jax.tree.map(jnp.asarray, learner.draws.prepare(data()))
    state = jax.jit(learner.init)(jax.random.key(0), learner.draws.view(rows))
    draw = batches(learner.draws, 8)
    state = loops.fit(
        learner.update,
        draw,
        state,
        rows,
        key=jax.random.key(1),
        stop=4,
        chunk=2,
        after=lambda step, state, metrics: seen.append(metrics),
    )
    assert {"loss", "critic_loss", "inverse_loss"} <= set(seen[-1])
    assert all(np.isfinite(x) for metrics in seen for x in metrics.values())
    observation, none = rows.observation[:3], jnp.zeros((3, 0))
    act, carry = jax.jit(made.policy.act), made.policy.init(observation)
    for step in range(3):
        carry, decision = act(jax.random.key(step), state, carry, observation, none)
        assert (np.asarray(decision.decided) == (step != 1)).all()
        np.testing.assert_allclose(
            decision.plan.observation[step == 1 :, 0], observation[step == 1 :], atol=1e-5
        )
        assert np.abs(decision.action).max() <= 1
    assert act._cache_size() == 1


def test_its_presets_and_its_row_stand_in_the_registry(plugin):
    presets = plugin.presets(registry.task_of("hopper-medium"))
    assert set(presets) == {"smoke", "cpu", "paper"}
    assert all(type(preset.settings) is plugin.config for preset in presets.values())
    assert presets["smoke"].settings.candidates == 4
    assert plugin.idea.startswith("one of many plans")


def test_the_page_steers_a_planner_and_a_policy():
    """As printed; both act."""
    text = PAGE.read_text().partition("## Steer one")[2].partition("\n## ")[0]
    names = {"jdp": jdp, "jnp": jnp, "data": data(), "config": "veteran", "settings": "idql"}
    for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        exec(block, names)
    observation, none = jnp.zeros((3, 2)), jnp.zeros((3, 0))
    for method in (names["planner"], names["policy"]):
        rows = method.learner.draws.view(method.learner.draws.prepare(data()))
        state = jax.eval_shape(method.learner.init, jax.random.key(0), rows)
        carry = jax.eval_shape(method.policy.init, observation)
        with jax.numpy_rank_promotion("allow"):  # as a user's JAX does
            act = jax.eval_shape(method.policy.act, jax.random.key(1), state, carry, observation, none)
        assert act[1].action.shape == (3, 1)


def test_the_page_filters_a_policy():
    """As printed; it begins as the policy does."""
    text = PAGE.read_text().partition("## Have the last word")[2]
    names = {"data": data(), "method": jdp.policies.make("idql", data().spec)}
    for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        exec(block, names)
    carry = names["policy"].init(jnp.zeros((3, 2)))
    assert jax.tree.structure(carry.own) == jax.tree.structure(names["method"].policy.init(jnp.zeros((3, 2))))


def test_what_it_does_not_take_is_said_in_one_line(plugin):
    guide = cost_guide(lambda observation, action: observation.sum((1, 2)))
    jdp.planners.make(plugin.config(), SPEC, guide=guide)
    with pytest.raises(UserError, match="planner boltzmann takes no trace"):
        jdp.planners.make(plugin.config(), SPEC, trace=True)
