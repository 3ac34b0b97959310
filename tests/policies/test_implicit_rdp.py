"""A chunk is drawn again at every step: what was executed to the bit, the rest by the newest reading."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from policy_batches import GOALS, TINY, programs, shaken

from jdp import UserError
from jdp.policies import actions, make
from jdp.policies.implicit_rdp import drawn

CONFIG = TINY["implicit_rdp"]
CHUNK = jax.jit(partial(drawn, config=CONFIG, spec=GOALS, guide=None))
GOAL = np.ones((5, 2), np.float32)


@pytest.fixture(scope="module")
def state():
    found = programs("implicit_rdp").state
    return found._replace(actor=found.actor._replace(ema=shaken(found.actor.ema, scale=0.1)))


def played(state, seen):
    """Actions `[ticks, 5, A]`, and carries, of what is `seen` `[ticks, 5, O]`."""
    method, _, _, act = programs("implicit_rdp")
    carry, carries, emitted = method.policy.init(seen[0]), [], []
    for t, observation in enumerate(seen):
        carry, decision = act(jax.random.key(t), state, carry, observation, GOAL)
        carries.append(carry)
        emitted.append(np.asarray(decision.action))
    return np.stack(emitted), carries


def chunk_of(state, carry):
    return np.asarray(CHUNK(jax.random.key(0), state, carry, GOAL))


def test_what_was_executed_is_drawn_again_and_the_rest_follows_the_channel(state):
    """Within a chunk only the channel is news: places that move meanwhile change nothing."""
    seen = np.random.default_rng(0).normal(size=(6, 5, 3)).astype(np.float32)
    emitted, carries = played(state, seen)
    chunks = np.stack([chunk_of(state, carry) for carry in carries])  # [ticks, 5, T, A]
    for begun in (0, 3):
        for t in range(3):
            np.testing.assert_allclose(chunks[begun + t, :, t], emitted[begun + t], atol=1e-6)
            for later in range(t + 1, 3):
                np.testing.assert_array_equal(
                    chunks[begun + later, :, : t + 1], chunks[begun + t, :, : t + 1]
                )
                assert np.abs(chunks[begun + later] - chunks[begun + t])[:, later].max() > 1e-3
        noise = [np.asarray(carry.noise) for carry in carries[begun : begun + 3]]
        assert (noise[0] == noise[1]).all() and (noise[0] == noise[2]).all()
    assert np.abs(carries[0].noise - carries[3].noise).min() > 1e-4
    moved = seen.copy()
    moved[[1, 2, 4, 5], :, :2] += 1.0
    np.testing.assert_array_equal(played(state, moved)[0], emitted)


def test_while_the_channel_stays_the_chunk_is_the_first_one_to_the_bit(state):
    seen = np.random.default_rng(1).normal(size=(3, 5, 3)).astype(np.float32)
    seen[..., 2] = seen[:1, :, 2]
    _, carries = played(state, seen)
    first, *again = (chunk_of(state, carry) for carry in carries)
    for chunk in again:
        np.testing.assert_array_equal(chunk, first)


def test_an_action_knows_the_channel_up_to_its_step_to_the_bit(state):
    """Through all steps of the sampler."""
    carry = played(state, np.random.default_rng(2).normal(size=(1, 5, 3)).astype(np.float32))[1][0]
    found = chunk_of(state, carry)
    for t in range(CONFIG.chunk - 1):
        other = chunk_of(state, carry._replace(channel=carry.channel.at[:, t + 1 :].add(5.0)))
        np.testing.assert_array_equal(other[:, : t + 1], found[:, : t + 1])
        assert np.abs(other - found)[:, t + 1].max() > 1e-3


def test_a_step_costs_all_calls_of_the_sampler(monkeypatch):
    calls, own = [], actions.denoiser

    def denoiser(*args):
        def denoise(x, sigma):
            jax.debug.callback(lambda: calls.append(1))
            return own(*args)(x, sigma)

        return denoise

    monkeypatch.setattr(actions, "denoiser", denoiser)
    policy, state = make(replace(CONFIG, sampling_steps=3), GOALS).policy, programs("implicit_rdp").state
    spent, act, carry = [], jax.jit(policy.act), policy.init(jnp.ones((5, 3)))
    for t in range(4):
        calls.clear()
        carry, decision = act(jax.random.key(t), state, carry, jnp.ones((5, 3)), GOAL)
        jax.effects_barrier()
        spent.append(len(calls))
        assert decision.decided.all()
    assert spent == [3] * 4


def test_what_would_not_draw_the_same_again_is_refused():
    with pytest.raises(UserError, match="sampler is 'ddpm'; one of euler, heun, dpmpp_2m"):
        replace(CONFIG, sampler="ddpm")
    with pytest.raises(UserError, match="heads divide"):
        replace(CONFIG, heads=3)
