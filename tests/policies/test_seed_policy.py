"""A memory is in closed loop what it is in training, and keeps what frames in a row forget."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from policy_batches import GOALS, ROWS, TINY, programs, rows_like, segments, shaken

from jdp.policies import make
from jdp.policies.diffusion_policy import DiffusionPolicyConfig
from jdp.policies.seed_policy import remembered

CONFIG = TINY["seed_policy"]


def test_the_memory_of_a_window_is_that_of_an_episode_which_began_there():
    method, state, _, act = programs("seed_policy")
    state = state._replace(actor=state.actor._replace(ema=shaken(state.actor.ema)))
    seen = np.random.default_rng(0).normal(size=(6, ROWS, 3)).astype(np.float32)
    goal, carry = np.zeros((ROWS, 2), np.float32), method.policy.init(seen[0])
    for t, observation in enumerate(seen):
        carry, _ = act(jax.random.key(t), state, carry, observation, goal)
    # In front of the episode its first row is repeated, as draws do.
    window = state.standardise(jnp.asarray(np.concatenate([seen[:1], seen[:1], seen]).swapaxes(0, 1)))
    found, _ = jax.jit(lambda params, x: remembered(params, x, CONFIG))(state.actor.ema, window)
    np.testing.assert_allclose(carry.memory, found, atol=2e-5)
    assert np.abs(found).max() > 0.1


CUE, LATER = 1.0, 40  # shown once; what it asks for is done so many steps later


def cued(rng, count):
    """Observations `[count, 41, 3]` whose first entry is a sign at the first row alone, and the signs."""
    sign = rng.choice([-1.0, 1.0], count).astype(np.float32)
    seen = rng.normal(size=(count, LATER + 1, 3)).astype(np.float32)
    seen[..., 0] = 0.0
    seen[:, 0, 0] = CUE * sign
    return seen, sign


def right_share(config, steps=400):
    """How often, after training, the action 40 steps after the cue has its sign, in closed loop."""
    method, rng = make(config, GOALS), np.random.default_rng(0)

    def batch():
        seen, sign = cued(rng, ROWS)
        found = segments(0, config.offsets())
        action = np.broadcast_to(0.5 * sign[:, None, None], found.action.shape).astype(np.float32)
        goal, ahead = np.zeros_like(found.goal), np.ones_like(found.distance)
        return found._replace(
            observation=seen[:, -config.history :], action=action, goal=goal, distance=ahead
        )

    state = jax.jit(method.learner.init)(jax.random.key(0), rows_like(batch()))
    update, act = jax.jit(method.learner.update), jax.jit(method.policy.act)
    for key in jax.random.split(jax.random.key(1), steps):
        state, _ = update(key, state, batch())
    seen, sign = cued(rng, 256)
    carry, goal = method.policy.init(seen[:, 0]), np.zeros((256, 2), np.float32)
    for t in range(LATER + 1):
        carry, decision = act(jax.random.key(t), state, carry, seen[:, t], goal)
    return (np.sign(decision.action[:, 0]) == sign).mean()


@pytest.mark.slow
def test_it_remembers_a_cue_that_frames_in_a_row_forget():
    actor = {"chunk": 1, "execute": 1, "features": 32, "blocks": 1, "learning_rate": 3e-3, "steps": 400}
    assert right_share(replace(CONFIG, history=LATER + 1, slots=4, **actor, ema=0.98)) > 0.95
    assert 0.35 < right_share(DiffusionPolicyConfig(history=8, **actor, ema=0.98)) < 0.65
