"""A channel that is seen at every step: what is learned of it, and what it saves in the middle of a chunk."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from policy_batches import GOALS, ROWS, SPEC, TINY, segments

from jdp import UserError
from jdp.data.normalise import Affine
from jdp.learning.tokenizers import TokenizerConfig
from jdp.policies import make
from jdp.policies.diffusion_policy import DiffusionPolicyConfig
from jdp.policies.implicit_rdp import ImplicitRDPConfig
from jdp.policies.rdp import RDPConfig
from jdp.policies.slow_fast import lesson
from jdp.types import Spec


def test_the_channel_of_a_lesson_is_what_was_seen_at_each_action():
    config = replace(TINY["implicit_rdp"], history=2, fast="position")
    batch = segments(0, config.offsets())
    scale = Affine(jnp.array([1.0, 2.0, 3.0]), jnp.array([2.0, 4.0, 8.0]))
    found = lesson(batch, scale, config, GOALS)
    np.testing.assert_allclose(found.channel[..., 1], (batch.observation[:, 1:5, 1] - 2) / 4, rtol=1e-5)
    np.testing.assert_array_equal(found.chunk, batch.action[:, 1:5].reshape(ROWS, -1))
    assert found.channel.shape == (ROWS, 4, 2) and found.seen.shape == (ROWS, 2 * 3 + 2)


@pytest.mark.parametrize("name", ["rdp", "implicit_rdp"])
def test_a_channel_that_is_not_there_is_refused(name):
    with pytest.raises(UserError, match="no group 'force', but position, velocity"):
        make(replace(TINY[name], fast="force"), SPEC)
    with pytest.raises(UserError, match="no group 'velocity', but observation"):
        make(TINY[name], Spec(3, 2))


T, PUSHED = 8, 4
SMALL = {"chunk": T, "execute": T, "features": 32, "blocks": 1, "learning_rate": 5e-3, "ema": 0.98}


def pushes(rng, count, when):
    """Observations `[count, T, 3]`, a place and a force that is 0 and from step `when` on +-1; actions."""
    seen = np.zeros((count, T, 3), np.float32)
    seen[..., :2] = rng.uniform(-1, 1, (count, 1, 2))
    seen[..., 2] = rng.choice([-1, 1], (count, 1)) * (np.arange(T) >= when)
    return seen, 0.4 * seen[..., :2] + 0.6 * seen[..., 2:]


def error_after_the_push(config, steps=250):
    """Mean absolute error of the actions after a push in the middle of a chunk; and where chunks began."""
    method, rng = make(replace(config, steps=steps), SPEC), np.random.default_rng(0)

    def batch():
        seen, action = pushes(rng, ROWS, rng.integers(1, T, (ROWS, 1)))
        return segments(0, config.offsets(), SPEC)._replace(observation=seen, action=action)

    rows = segments(0, (0, 1), SPEC)
    first = batch()
    flat = rows._replace(observation=first.observation, action=first.action)
    state = jax.jit(method.learner.init)(jax.random.key(0), flat)
    update, act = jax.jit(method.learner.update), jax.jit(method.policy.act)
    for key in jax.random.split(jax.random.key(1), steps):
        state, _ = update(key, state, batch())
    seen, wanted = pushes(rng, 512, PUSHED)
    carry, found, decided = method.policy.init(seen[:, 0]), [], []
    for t in range(T):
        carry, decision = act(jax.random.key(t), state, carry, seen[:, t], np.zeros((512, 0), np.float32))
        found.append(decision.action)
        decided.append(bool(decision.decided.any()))
    return np.abs(np.stack(found, axis=1) - wanted)[:, PUSHED:].mean(), decided


@pytest.mark.slow
def test_a_push_in_the_middle_of_a_chunk_is_met():
    """Its force is not there when the chunk begins. All draw a chunk at the first step, and none later."""
    once = [True] + [False] * (T - 1)
    error, decided = error_after_the_push(DiffusionPolicyConfig(**SMALL))
    assert error > 0.5 and decided == once
    tokenizer = TokenizerConfig(latent=2, encoder=32, decoder=16)
    error, decided = error_after_the_push(RDPConfig(tokenizer=tokenizer, **SMALL))
    assert error < 0.1 and decided == once
    assert error_after_the_push(ImplicitRDPConfig(heads=2, **SMALL))[0] < 0.1
