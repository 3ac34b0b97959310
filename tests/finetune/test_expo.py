"""EXPO: edits within their bound, the best of both, and a bandit whose optimum no mode of the base hits."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_find import BASE, base_state
from test_find import SPEC as SLOPE
from test_resip import KEY, STATE

from jdp.errors import UserError
from jdp.finetune import base as bases
from jdp.finetune import expo, make
from jdp.finetune.expo import EXPOConfig
from jdp.learning.acting import OffPolicyConfig
from jdp.learning.actors import decided_anew
from jdp.loops import train_online
from jdp.policies.diffusion_policy import DiffusionPolicyConfig
from jdp.types import Learner, Method, Policy, Spec, Stepped, Task

SPEC, BEST = Spec(2, 1, "modes", 1), 0.65  # the base policy's modes are -.5 and .5


def _two_modes(key, state, carry, observation, goal):
    """At -.5 or .5, with a spread of .02."""
    side, spread = jax.random.normal(key, (2, len(observation), 1))
    return carry, decided_anew(jnp.clip(0.5 * jnp.sign(side) + 0.02 * spread, -1, 1))


MODES = Method(Learner(None, None, None), Policy(lambda observation: (), _two_modes))
FAST = {f"{name}_learning_rate": 3e-3 for name in ("actor", "critic", "alpha")}
TINY = EXPOConfig(
    acting=OffPolicyConfig(16, batch_size=64, capacity=4_000, warm_up=256), hidden=(32, 32), critics=4,
    beta=0.2, initial_alpha=0.003, target_entropy=-3.0, **FAST,
)  # fmt: skip
SHOWN, GOALS = jnp.linspace(-1, 1, 12).reshape(6, 2), jnp.zeros((6, 0))
VIEW = bases.View(SHOWN, GOALS, SHOWN)


@pytest.fixture
def modes(monkeypatch):
    monkeypatch.setattr(bases, "method_of", lambda settings, spec: MODES)
    return make(TINY, SPEC, base="modes")


def begun(method):
    return jax.jit(method.learner.init)(KEY, STATE)


def test_edits_stay_within_beta_and_half_of_the_candidates_are_the_bases_own(modes):
    state = begun(modes)
    draw = jax.jit(expo.candidates, static_argnums=(3, 4, 5))
    for params in (state.actor.params, jax.tree.map(lambda x: 1e4 * x + 1e4, state.actor.params)):
        now = state._replace(actor=state.actor._replace(params=params))
        own, edited = np.split(np.asarray(draw(KEY, now, VIEW, TINY, SPEC, "modes")), 2, axis=1)
        assert own.shape == (6, 8, 1) and np.abs(np.abs(own) - 0.5).max() < 0.1
        assert np.abs(edited - own).max() <= np.float32(TINY.beta) + 1e-7
        assert np.abs(edited).max() <= 1
    np.testing.assert_allclose(np.abs(edited - own), TINY.beta, rtol=1e-5)  # saturated
    again = np.asarray(draw(KEY, state, VIEW, TINY, SPEC, "modes"))
    np.testing.assert_array_equal(again[:, :8], own)  # whatever the edits are


def test_nothing_better_than_what_is_backed_up_was_at_hand(modes):
    value, scores = jax.jit(expo.backup, static_argnums=(3, 4, 5))(
        KEY, begun(modes), VIEW, TINY, SPEC, "modes"
    )
    assert scores.shape == (6, 16) and (value[:, None] >= scores).all()
    np.testing.assert_array_equal(value, scores.max(1))


def test_a_chunk_is_what_the_base_policy_does_next():
    """Of a policy that executes two actions: those that it decides step by step."""
    base = replace(BASE, execute=2, sampling_steps=2)
    policy = bases.method_of(base, SLOPE).policy
    act = jax.jit(policy.act)
    carry, first = act(KEY, base_state(), policy.init(SHOWN), SHOWN, GOALS)
    _, second = act(jax.random.key(1), base_state(), carry, SHOWN, GOALS)
    found = jax.jit(bases.drawn, static_argnums=(4, 5))(KEY, base_state(), SHOWN, GOALS, base, SLOPE)
    both = np.concatenate([first.action, second.action], axis=1)
    np.testing.assert_allclose(found, both, rtol=1e-6)


def test_what_cannot_be_edited_is_refused(modes):
    with pytest.raises(UserError, match="sees 2 observations"):
        make(TINY, SPEC, base=DiffusionPolicyConfig(history=2))
    with pytest.raises(UserError, match="subsample"):
        replace(TINY, subsample=5)
    with pytest.raises(UserError, match="leave backup_entropy out"):
        replace(TINY, backup_entropy=True)
    with pytest.raises(UserError, match="rows of a dataset do not say which"):
        mixed = replace(TINY, acting=replace(TINY.acting, offline_share=0.5))
        make(mixed, replace(SPEC, goal=(0,)), base="modes")


def _reset(key):
    return (), jnp.zeros(2), jnp.zeros(0)


def _step(key, state, action):
    never = jnp.zeros((), bool)
    return (), Stepped(jnp.zeros(2), -jnp.abs(action[0] - BEST), jnp.ones((), bool), never)


@pytest.mark.slow
def test_edits_reach_what_the_best_of_the_bases_actions_do_not(modes):
    options = {"key": KEY, "updates": 1_500, "seeds": 2, "chunk": 1_500, "base": STATE}
    states = train_online(modes, Task(_reset, _step, SPEC), TINY.acting, **options)
    here, none = jnp.zeros((50, 2)), jnp.zeros((50, 0))
    own = bases.drawn(KEY, STATE, jnp.zeros((400, 2)), jnp.zeros((400, 0)), "modes", SPEC).reshape(50, 8)
    assert np.median(np.abs(own - BEST).min(1)) > 0.1
    for seed in range(2):
        one = jax.tree.map(lambda x, seed=seed: x[seed], states)
        found = modes.policy.act(KEY, one, modes.policy.init(here), here, none)[1].action
        assert np.median(np.abs(found - BEST)) < 0.03, found
