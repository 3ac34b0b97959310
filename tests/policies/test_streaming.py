"""A stream keeps the spread and the correlation of its data, by k network calls a tick; how it is trained."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from policy_batches import GOALS, TINY, programs, shaken

from jdp import UserError
from jdp.data.normalise import Affine
from jdp.diffusion.schedules import karras, karras_level
from jdp.finetune import base
from jdp.learning.averaged import Averaged
from jdp.policies import actions, chunks, make
from jdp.policies.chunks import Chunks, CloneState
from jdp.policies.rti import warm
from jdp.policies.streaming import StreamingConfig, stream, training_levels
from jdp.types import Method, Spec, bind

T, RHO = 8, 0.9
LOW, HIGH = 0.02 ** (1 / 7), 40.0 ** (1 / 7)
AR = RHO ** np.abs(np.subtract.outer(np.arange(T), np.arange(T)))
BLANK = CloneState(Averaged(*[None] * 4), Affine(jnp.zeros(1), jnp.ones(1)))


def _autoregressive(covariance, x, sigma):
    """`C (C + diag(sigma^2))^-1 x`, of levels that are alike in all rows."""
    square = jnp.square(jnp.broadcast_to(sigma.reshape(len(x), -1)[0], (T,)))
    scale = jax.lax.rsqrt(1 + square)
    total = scale[:, None] * (covariance + jnp.diag(square)) * scale[None]
    return scale[None] * x @ jnp.linalg.inv(total) * scale[None] @ covariance


def autoregressive(params, seen):
    del params, seen
    return bind(_autoregressive, jnp.asarray(AR, jnp.float32))


def exactly(denoiser=autoregressive, execute=1, sampler="dpmpp_2m", **settings):
    config = StreamingConfig(chunk=T, execute=execute, sampler=sampler, sigma_data=1.0, **settings)
    return Chunks(denoiser, config, Spec(1, 1))


@partial(jax.jit, static_argnums=(0, 1, 2))
def played(policy, ticks, rows):
    """`[ticks, rows]` actions."""
    here, none = jnp.zeros((rows, 1)), jnp.zeros((rows, 0))

    def tick(carry, key):
        carry, decision = policy.act(key, BLANK, carry, here, none)
        return carry, decision.action[:, 0]

    return jax.lax.scan(tick, policy.init(here), jax.random.split(jax.random.key(0), ticks))[1]


def facts(sigma_max, sampler, calls=16):
    """Std and lag-1 correlation of a stream, after 20 ticks."""
    settings = {"sampling_steps": calls * T, "sigma_max": sigma_max, "sampler": sampler}
    found = np.asarray(played(stream(exactly(**settings)), 60, 2048))[20:]
    return found.std(), np.mean(found[1:] * found[:-1]) / found.var()


@pytest.mark.parametrize("sampler", ["euler", "dpmpp_2m"])
def test_a_stream_keeps_spread_and_correlation(sampler):
    """Of an AR(1) of std 1 and correlation .9, by 16 calls of its exact denoiser a tick."""
    std, correlation = facts(80.0, sampler)
    assert std == pytest.approx(1, abs=0.05) and correlation == pytest.approx(RHO, abs=0.01)


def test_noise_that_enters_too_low_costs_both():
    """From 10 instead of 80 what enters keeps no correlation, and ten ticks later nor does the stream."""
    std, correlation = facts(10.0, "euler")
    assert std < 0.92 and correlation < 0.885


@pytest.mark.parametrize(("execute", "steps"), [(2, 8), (4, 6)])
def test_a_tick_takes_k_calls_at_levels_that_rise_along_the_buffer(execute, steps):
    """Its first decision all `steps`, at one level; each later one the last k of each part's own."""
    asked = []

    def noted(params, seen):
        def denoise(x, sigma):
            jax.debug.callback(
                lambda s: asked.append(np.asarray(s)), jnp.broadcast_to(sigma.reshape(3, -1), (3, T))
            )
            return autoregressive(params, seen)(x, sigma)

        return denoise

    parts, sigmas = exactly(noted, execute, sampling_steps=steps), np.asarray(karras(steps, 0.02, 40.0))
    policy, here, none = stream(parts), jnp.zeros((3, 1)), jnp.zeros((3, 0))
    act, carry, spent = jax.jit(policy.act), policy.init(here), []
    for t in range(2 * execute + 1):
        asked.clear()
        carry, decision = act(jax.random.key(t), BLANK, carry, here, none)
        jax.effects_barrier()
        assert (np.asarray(decision.decided) == (t % execute == 0)).all()
        spent.append(len(asked))
        asked.sort(key=lambda levels: -levels[0, -1])  # calls back come in any order
        if t == 0:
            np.testing.assert_allclose(np.stack(asked)[:, 0], sigmas[:-1, None].repeat(T, 1), rtol=1e-5)
        elif spent[-1]:
            part, k = np.arange(T) // execute, steps * execute // T
            rows = [sigmas[steps - (part + 1) * k + r] for r in range(k)]
            np.testing.assert_allclose(np.stack(asked)[:, 0], rows, rtol=1e-5)
            share = (np.stack(asked)[:, 0] ** (1 / 7) - LOW) / (HIGH - LOW) * (T // execute)
            assert (np.abs(share - part - 0.5) < 0.5 + 1e-4).all()  # as it learned
    idle = [0] * (execute - 1)
    assert spent == [steps, *idle, steps * execute // T, *idle, steps * execute // T]
    assert act._cache_size() == 1


def test_a_buffer_of_one_part_is_the_policy_of_chunks():
    """All its levels are gone through anew: the same draw by the same key."""
    parts = exactly(execute=T, sampling_steps=10)
    plain, found = parts.policy(chunks.act), stream(parts)
    one, two = (np.asarray(played(policy, 2 * T, 16)) for policy in (plain, found))
    np.testing.assert_allclose(two[T:], one[T:], atol=1e-4)


def test_training_levels_are_those_of_a_buffer_on_its_way_or_one_for_all():
    config = StreamingConfig(chunk=6, execute=2, sampling_steps=9)
    sigma = np.asarray(training_levels(jax.random.key(0), 4000, config))
    share = (sigma ** (1 / 7) - LOW) / (HIGH - LOW)
    constant = np.ptp(share, axis=1) < 1e-4
    assert constant.mean() == pytest.approx(0.2, abs=0.02)
    assert np.quantile(share[constant, 0], [0.1, 0.5, 0.9]) == pytest.approx([0.1, 0.5, 0.9], abs=0.03)
    u = 3 * share[~constant] - np.arange(6) // 2
    np.testing.assert_allclose(u, u[:, :1].repeat(6, 1), atol=1e-3)
    assert np.quantile(u[:, 0], [0.1, 0.5, 0.9]) == pytest.approx([0.1, 0.5, 0.9], abs=0.03)
    shares = 1 - jnp.arange(10.0) / 9
    np.testing.assert_allclose(karras_level(shares, 0.02, 40.0), karras(10, 0.02, 40.0)[:-1], rtol=1e-4)


def test_the_network_knows_the_level_of_each_step():
    """Told one level for all, or the same one for each entry, it says the same; told another step's, not."""
    config, state = TINY["streaming"], programs("streaming").state
    params, seen = shaken(state.actor.params), jnp.ones((2, 5))
    x = jax.random.normal(jax.random.key(1), (2, 8))

    @jax.jit
    def denoised(sigma):
        return actions.denoiser(params, seen, config)(x, sigma)

    one, each = denoised(jnp.full(2, 0.7)), jnp.full((2, 8), 0.7)
    np.testing.assert_allclose(denoised(each), one, atol=1e-5)
    last = denoised(each.at[:, 6:].set(3.0))
    assert np.abs(last - one)[:, :6].max() > 1e-3


def test_what_a_fine_tuner_sees_decided_is_what_is_executed(monkeypatch):
    """The actions of a decision, taken out of the queue, not the noise that they leave behind."""
    parts, here, none = exactly(execute=2, sampling_steps=8), jnp.zeros((3, 1)), jnp.zeros((3, 0))
    policy, emitted = stream(parts), []
    monkeypatch.setattr(base, "method_of", lambda settings, spec: Method(None, policy))
    carry, act = policy.init(here), jax.jit(policy.act)
    for _ in range(2):
        carry, decision = act(jax.random.key(0), BLANK, carry, here, none)
        emitted.append(decision.action)
    found = jax.jit(base.drawn, static_argnums=(4, 5))(
        jax.random.key(0), BLANK, here, none, parts.config, parts.spec
    )
    np.testing.assert_allclose(found, jnp.concatenate(emitted, axis=1), atol=1e-5)


def test_what_is_no_buffer_is_refused():
    for wrong in (
        {"chunk": 6, "execute": 4},
        {"chunk": 8, "execute": 2, "sampling_steps": 10},
        {"constant": 2.0},
    ):
        with pytest.raises(UserError, match="StreamingConfig"):
            StreamingConfig(**wrong)
    with pytest.raises(UserError, match="a warm start goes on from chunks"):
        warm(make(TINY["streaming"], GOALS).policy, 2)
