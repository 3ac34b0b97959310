"""What all agents share: how they act, their presets, and settings that the dataset fills in."""

from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from agent_reference import random_transitions

from jdp import UserError, registry
from jdp.agents import make
from jdp.agents.awac import AWACConfig
from jdp.agents.iql import IQLConfig
from jdp.agents.sac import SACConfig, sac
from jdp.learning.fitting import over_updates
from jdp.types import Spec

SPEC = Spec(observation_dim=3, action_dim=2)


def test_the_policy_is_the_mean_and_the_behaviour_a_draw():
    """Both remember nothing and decide at every step; draws stay within the box."""
    agent = make(AWACConfig(hidden=(4,)), SPEC)
    data = random_transitions(0, 20)
    state = jax.jit(agent.learner.init)(jax.random.key(0), data)
    observation, goal = data.observation, jnp.zeros((20, 0))
    target = agent.target(state, observation)
    for policy, wanted in (
        (agent.policy, target.mean),
        (agent.behaviour, jnp.clip(target.sample(jax.random.key(1)), -1, 1)),
    ):
        carry, found = policy.act(jax.random.key(1), state, policy.init(observation), observation, goal)
        np.testing.assert_allclose(found.action, wanted, rtol=1e-6)
        assert carry == () and found.decided.shape == (20,) and found.decided.all()
    assert np.abs(target.sample(jax.random.key(1))).max() > 1  # so that the box was tested


def test_presets_have_what_was_tuned_for_the_dataset():
    def settings(agent: str, preset: str, dataset: str = "hopper-medium-expert-v2") -> Any:
        task = registry.task_of(dataset, dataset)
        presets = registry.entry("agent", agent).presets
        assert presets is not None
        return presets(task)[preset].settings

    assert (settings("rebrac", "paper").beta_actor, settings("rebrac", "cpu").beta_critic) == (0.1, 0.01)
    assert settings("sac_n", "paper").critics == 200 and settings("sac_n", "cpu").critics == 10
    assert settings("edac", "paper", "walker2d-medium-expert-v2").diversity == 5.0
    assert (settings("mopo", "paper").penalty, settings("mopo", "paper").rollouts.length) == (5.0, 5)
    assert settings("combo", "paper", "walker2d-medium-v2").rollouts.length == 1
    assert settings("combo", "smoke").rollouts.batch == 500 and settings("combo", "smoke").hidden == (64, 64)
    assert settings("cql", "cpu").actions == 4 and settings("cql", "paper").actions == 10
    assert settings("rebrac", "paper", "somebodys-own").beta_actor == 0.01


def test_model_based_agents_say_so():
    found = {n: dict(e.options) for n, e in registry.entries("agent").items() if e.options.get("model_based")}
    assert {n: o["needs_ensemble"] for n, o in found.items()} == {"combo": False, "mopo": True, "morel": True}


def fitted(name: str, config: Any, returns=(10.0, 30.0), env_id="Hopper-v5", given=()) -> Any:
    episodes = SimpleNamespace(returns=np.array(returns), spec=Spec(3, 2, env_id=env_id))
    return registry.entry("agent", name).options["fit"](config, episodes, 700, given)


def test_settings_that_depend_on_the_dataset():
    """IQL and AWAC scale locomotion's rewards; IQL's learning rate falls over the updates that there are."""
    assert fitted("iql", IQLConfig()) == IQLConfig(steps=700, reward_scale=50.0)
    assert fitted("awac", AWACConfig()) == AWACConfig(reward_scale=50.0)
    assert fitted("iql", IQLConfig(), env_id="Pusher-v5").reward_scale == 1.0
    mine = IQLConfig(steps=5, reward_scale=3.0)
    assert fitted("iql", mine, returns=(7.0, 7.0), given=("steps", "reward_scale")) == mine
    with pytest.raises(UserError, match="set reward_scale yourself"):
        fitted("iql", IQLConfig(), returns=(7.0, 7.0))


def test_nested_learning_rates_fall_over_the_updates_too():
    from jdp.policies.edp import EDPConfig  # an inner config in its place

    assert over_updates(EDPConfig(), 9).steps == 9
    assert over_updates(EDPConfig(steps=4), 9, ("steps",)).steps == 4
    assert over_updates(SACConfig(), 9) == SACConfig()


def test_a_config_of_no_agent_is_refused():
    with pytest.raises(UserError, match="no agent is made from a SACConfig"):
        make(SACConfig(), SPEC)
    assert sac(SACConfig(), SPEC) is sac(SACConfig(), SPEC)
