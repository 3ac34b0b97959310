"""ResiP: a policy that always misses by the same gap learns to correct it, and begins as it was."""

from dataclasses import replace
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdp.data.normalise import Affine, identity
from jdp.errors import UserError
from jdp.finetune import base as bases
from jdp.finetune import make
from jdp.finetune.resip import ResiPConfig
from jdp.learning.acting import OnPolicyConfig
from jdp.learning.actors import decided_anew
from jdp.loops import score_together, train_online
from jdp.types import Learner, Method, Policy, Spec, Stepped, Task

KEY = jax.random.key(0)
SPEC = Spec(2, 2, "reach", 1, goal=(0, 1))
GAP, REACHED = 0.05, 0.02


def _reset(key):
    goal = jax.random.uniform(key, (2,), minval=-0.8, maxval=0.8)
    return goal, jnp.zeros(2), goal


def _step(key, goal, action):
    reached = jnp.linalg.norm(action - goal) <= REACHED
    return goal, Stepped(action, reached.astype(jnp.float32), jnp.ones((), bool), reached)


REACH = Task(_reset, _step, SPEC)


class Standardised(NamedTuple):
    standardise: Affine


def _miss(key, state, carry, observation, goal):
    """Moves beside the goal, and counts its decisions."""
    return carry + 1, decided_anew(goal + jnp.array([[GAP, 0.0]]))


BESIDE = Method(Learner(None, None, None), Policy(lambda observation: jnp.zeros(len(observation)), _miss))
STATE = Standardised(identity(2))
FAST = {"learning_rate": 3e-3, "critic_learning_rate": 3e-3, "epochs": 4, "minibatches": 4}
TINY = ResiPConfig(acting=OnPolicyConfig(64, 16), hidden=(32,), **FAST)


@pytest.fixture
def method(monkeypatch):
    monkeypatch.setattr(bases, "method_of", lambda settings, spec: BESIDE)
    return make(TINY, SPEC, base="beside")


def scores(method, states, seeds=2):
    return score_together(method.policy, states, REACH, key=KEY, seeds=seeds, episodes=200)["success"].mean(1)


def test_it_begins_as_the_base_policy(method):
    states = train_online(method, REACH, TINY.acting, key=KEY, updates=0, seeds=2, rows=STATE)
    one = jax.tree.map(lambda x: x[0], states)
    goals = np.asarray(jax.random.uniform(KEY, (50, 2)))
    shown = jnp.zeros((50, 2))
    carry, decision = method.policy.act(KEY, one, method.policy.init(shown), shown, goals)
    np.testing.assert_allclose(
        decision.action, np.clip(goals + np.array([GAP, 0]), -1, 1), atol=1e-2 * TINY.scale
    )
    np.testing.assert_array_equal(carry, 1)  # what the base policy remembers
    drawn = method.behaviour.act(KEY, one, carry, shown, goals)[1]
    base, correction = np.asarray(drawn.chain)
    np.testing.assert_allclose(drawn.action, np.clip(base + TINY.scale * correction, -1, 1), atol=1e-6)
    np.testing.assert_allclose(np.std(correction), np.exp(TINY.log_std), rtol=0.2)
    z = correction / np.exp(TINY.log_std)
    expected = -0.5 * np.sum(np.square(z), 1) - 2 * (TINY.log_std + 0.5 * np.log(2 * np.pi))
    np.testing.assert_allclose(drawn.log_prob["correction"], expected, atol=0.05)
    assert scores(method, states).max() < 0.1


@pytest.mark.slow
def test_a_policy_that_misses_learns_to_hit(method):
    states = train_online(method, REACH, TINY.acting, key=KEY, updates=60, seeds=2, rows=STATE, chunk=60)
    assert scores(method, states).min() > 0.9
    jax.tree.map(lambda ours: np.testing.assert_array_equal(ours[0], ours[1]), states.base)


def test_what_cannot_be_corrected_is_refused():
    with pytest.raises(UserError, match="ResiPConfig is of no policy, planner or agent"):
        make(replace(TINY, scale=0.2), SPEC, base=TINY)
    with pytest.raises(UserError, match="does not standardise observations"):
        bases.shown((), jnp.zeros((1, 2)), jnp.zeros((1, 2)), SPEC)
