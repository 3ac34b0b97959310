"""Tokenizers: what is decoded knows no later channel; the divergence and the moving statistics in numpy."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jdp.data.normalise import Affine
from jdp.learning import tokenizers
from jdp.learning.optimiser import step
from jdp.learning.tokenizers import TokenizerConfig

B, T, A, F = 64, 6, 2, 1
CONFIG = TokenizerConfig(latent=2, encoder=32, decoder=16)


def chunks(key):
    """Actions `[B, T, A]` of two numbers for all steps, and of a channel `[B, T, F]` that jumps once."""
    keys = jax.random.split(key, 3)
    hidden = jax.random.uniform(keys[0], (B, 1, A), minval=-0.5, maxval=0.5)
    when, sign = jax.random.randint(keys[1], (B, 1), 1, T), jax.random.rademacher(keys[2], (B, 1))
    channel = jnp.where(jnp.arange(T)[None] >= when, sign, 0).astype(jnp.float32)[..., None]
    return hidden + 0.4 * channel, channel


@jax.jit
def decode(params, latent, channel):
    return tokenizers.decode(params, latent, channel, CONFIG, A)


@pytest.fixture(scope="module")
def trained():
    """Parameters, after 1000 steps of Adam."""
    optimiser = optax.adam(optax.cosine_decay_schedule(1e-2, 1000))

    @jax.jit
    def train(key):
        params = tokenizers.first_params(key, *chunks(key), CONFIG)

        def descend(carry, key):
            params, state = carry
            grads = jax.grad(lambda p: tokenizers.loss(key, p, *chunks(key), CONFIG)[0])(params)
            return step(optimiser, grads, state, params), None

        keys = jax.random.split(key, 1000)
        return jax.lax.scan(descend, (params, optimiser.init(params)), keys)[0][0]

    return train(jax.random.key(0))


def test_two_numbers_and_the_channel_make_the_chunk(trained):
    """Without the channel's news it is off by what those are worth, .4."""
    chunk, channel = (np.asarray(x) for x in jax.jit(chunks)(jax.random.key(1)))
    mean, std = jax.jit(lambda params: tokenizers.posterior(params, chunk, CONFIG))(trained)
    found = np.asarray(decode(trained, mean, channel))
    assert np.abs(found - chunk).mean() < 0.03
    assert (np.asarray(std).max(axis=0) < 0.2 * np.asarray(mean).std(axis=0)).all()
    silent = np.asarray(decode(trained, mean, np.zeros_like(channel)))
    assert np.abs(silent - chunk)[:, -1].mean() == pytest.approx(0.4, abs=0.1)


def test_what_is_decoded_knows_the_channel_up_to_its_step(trained):
    channel, latent = np.asarray(jax.jit(chunks)(jax.random.key(2))[1]), np.ones((B, 2), np.float32)
    found = np.asarray(decode(trained, latent, channel))
    for t in range(T - 1):
        later = (np.arange(T) == t + 1)[None, :, None]
        other = np.asarray(decode(trained, latent, channel + 9 * later.astype(np.float32)))
        np.testing.assert_array_equal(other[:, : t + 1], found[:, : t + 1])
        assert np.abs(other - found)[:, t + 1].max() > 1e-2


def test_the_divergence_is_the_integral():
    mean, std = np.array([[0.5, -1.0], [0.0, 2.0]]), np.array([[0.3, 1.0], [2.0, 0.1]])
    x = np.linspace(-14, 14, 280_001)[:, None, None]
    log_p, log_q = -0.5 * x**2, -0.5 * ((x - mean) / std) ** 2 - np.log(std)
    nats = (np.exp(log_q) / np.sqrt(2 * np.pi) * (log_q - log_p)).sum(0) * 1e-4
    found = tokenizers.divergence(jnp.asarray(mean, jnp.float32), jnp.asarray(std, jnp.float32))
    assert found == pytest.approx(nats.sum(axis=1).mean(), rel=1e-4)


def test_statistics_move_to_those_of_old_and_new_rows_together():
    rng = np.random.default_rng(0)
    old, new = (rng.normal(m, s, (50, 3)).astype(np.float32) for m, s in ((1.0, 2.0), (-2.0, 0.5)))
    before = Affine(jnp.asarray(old.mean(0)), jnp.asarray(old.std(0)))
    found = tokenizers.moved(before, jnp.asarray(new), jnp.float32(0.5))
    both = np.concatenate([old, new])
    np.testing.assert_allclose(found.mean, both.mean(0), rtol=1e-4)
    np.testing.assert_allclose(found.std, both.std(0), rtol=1e-4)
