"""Chunks that overlap and are denoised together: exact Gaussian chains, and what is seen of a neighbour."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdp.diffusion import overlapping
from jdp.diffusion.guidance import hold
from jdp.diffusion.samplers import SAMPLERS
from jdp.diffusion.schedules import karras
from jdp.types import bind, expand

T, K = 8, 4


def chain_covariance(a, length):
    return a ** np.abs(np.subtract.outer(np.arange(length), np.arange(length)))


def _exact(precision, x, sigma, *, count):
    """Of chunks `[B * N, T, 2]` of a Gaussian chain; a copy at level 0 says nothing, a row at 0 is known."""
    level = jnp.broadcast_to(expand(sigma, x), x.shape)[:count]  # the same in every plan
    told = jnp.stack([jnp.ones_like(level[..., 0], bool), level[..., 1] > 0], -1)
    weight = jnp.where(told, 1 / jnp.square(jnp.maximum(level, 1e-3)), 0.0)
    total = precision[None] + jnp.sum(weight, -1)[:, :, None] * jnp.eye(x.shape[1])[None]
    seen = jnp.sum(weight[None] * x.reshape(-1, count, *x.shape[1:]), -1)
    mean = jnp.einsum("nij,bnj->bni", jnp.linalg.inv(total), seen).reshape(x.shape[:2])
    return jnp.stack([mean, jnp.zeros_like(mean)], -1)


def exact_chunks(a, count):
    precision = np.linalg.inv(chain_covariance(a, T))
    return bind(_exact, jnp.asarray(precision, jnp.float32), count=count)


@functools.partial(jax.jit, static_argnames=("count", "rows", "turns", "blended", "sampler", "steps"))
def joint_samples(key, denoiser, ends, *, count, rows, turns, blended, sampler="euler", steps=32):
    start, noise, more = jax.random.split(key, 3)
    shape = (rows, count * T, 1)
    copies = jax.random.normal(noise, (2, *shape)) if turns else None
    joint = overlapping.composed(denoiser, count, K, noise=copies)
    joint = overlapping.agreeing(joint, count, K) if blended else joint
    known = jnp.zeros(shape).at[:, 0].set(ends[0]).at[:, -1].set(ends[1])
    mask = jnp.zeros(shape, bool).at[:, jnp.array([0, -1])].set(True)
    sigmas = karras(steps, 0.02, 20.0)
    sigmas = overlapping.in_turns(sigmas, count, T) if turns else sigmas
    x = jnp.where(mask, known, 20 * jax.random.normal(start, shape))
    return SAMPLERS[sampler](hold(joint, known, mask), x, sigmas, key=more)


def bridge(a, length, ends):
    """Mean and covariance of the chain between its ends."""
    full, at = chain_covariance(a, length), [0, length - 1]
    rest = list(range(1, length - 1))
    gain = full[np.ix_(rest, at)] @ np.linalg.inv(full[np.ix_(at, at)])
    return gain @ np.array(ends), full[np.ix_(rest, rest)] - gain @ full[np.ix_(at, rest)]


@pytest.mark.parametrize(
    ("turns", "blended", "most", "apart"),
    [(False, True, 0.16, 1e-5), (False, False, 0.3, 1e-3), (True, True, 0.16, 0.03)],
)
def test_chunks_make_the_chain_between_its_ends(turns, blended, most, apart):
    """Three chunks of an AR(1) chain of .5: exact ends, close means, correlations by the blend."""
    denoiser, ends = exact_chunks(0.5, 3), jnp.array([1.0, -1.0])
    x = joint_samples(jax.random.key(0), denoiser, ends, count=3, rows=3000, turns=turns, blended=blended)
    plans = np.asarray(overlapping.merged(x, 3, K))[..., 0]
    assert (plans[:, 0] == 1).all() and (plans[:, -1] == -1).all()
    assert overlapping.disagreement(x, 3, K).mean() < apart
    mean, covariance = bridge(0.5, plans.shape[1], [1, -1])
    found = np.cov(plans[:, 1:-1].T)
    assert np.abs(plans[:, 1:-1].mean(0) - mean).max() < 0.07  # measured .039 to .045
    assert np.abs(np.sqrt(np.diag(found) / np.diag(covariance)) - 1).max() < 0.14  # .069, .075, in turn .116
    error = np.abs(found - covariance)
    assert error.max() < most  # .114 to .132 with the blend, .250 without it:
    seams = [T - K - 2, T - 2, 2 * (T - K) - 2, 2 * (T - K) + K - 2]  # overlaps begin after, or end at, these
    lost = np.diag(error, 1)[seams] / np.diag(covariance, 1)[seams]
    assert (lost < 0.15).all() if blended else lost.max() > 0.4  # .06 to .10; .26 to .50


def _told(x, sigma):
    level = jnp.broadcast_to(expand(sigma, x), x.shape)
    return jnp.concatenate([x[..., :1] + 10 * x[..., 1:], 0 * x[..., 1:]], -1) + level.sum(-1, keepdims=True)


@pytest.mark.parametrize("alone", [False, True])
def test_a_chunk_is_shown_its_neighbours_copies_at_their_level(alone):
    x = np.random.default_rng(0).normal(size=(2, 3 * T, 1)).astype(np.float32)
    found = overlapping.composed(bind(_told), 3, K, alone=alone)(jnp.asarray(x), jnp.array([2.0, 3.0]))
    own, expected = x.reshape(2, 3, T), np.zeros((2, 3, T))
    for b, level in enumerate((2, 3)):
        for n in range(3):
            for t in range(T):
                expected[b, n, t] = own[b, n, t] + level
                if not alone and n > 0 and t < K:
                    expected[b, n, t] += 10 * own[b, n - 1, T - K + t] + level
                if not alone and n < 2 and t >= T - K:
                    expected[b, n, t] += 10 * own[b, n + 1, t - (T - K)] + level
    np.testing.assert_allclose(np.asarray(found).reshape(2, 3, T), expected, rtol=1e-5, atol=1e-5)


def test_one_chunk_is_the_plain_denoising_bit_for_bit():
    denoiser, x = exact_chunks(0.9, 1), 20 * jax.random.normal(jax.random.key(1), (5, T, 1))

    def plain(x, sigma):
        none = jnp.zeros_like(x)
        levels = jnp.broadcast_to(expand(sigma, x), x.shape)
        return denoiser(jnp.concatenate([x, none], -1), jnp.concatenate([levels, none], -1))[..., :1]

    sigmas, draw = karras(8, 0.02, 20.0), jax.jit(SAMPLERS["dpmpp_2m"])
    joint = overlapping.agreeing(overlapping.composed(denoiser, 1, K), 1, K)
    expected = draw(bind(plain), x, sigmas)
    assert (draw(joint, x, sigmas) == expected).all()
    assert (overlapping.merged(expected, 1, K) == expected).all()


def test_chunks_that_move_in_turn_are_those_denoised_one_after_the_other():
    count, steps, rows = 3, 4, 6
    denoiser, sigmas = exact_chunks(0.9, count), karras(steps, 0.1, 5.0)
    x, *noise = jax.random.normal(jax.random.key(2), (3, rows, count * T, 1))
    joint = overlapping.composed(denoiser, count, K, noise=jnp.stack(noise))
    found = jax.jit(SAMPLERS["euler"])(joint, 5 * x, overlapping.in_turns(sigmas, count, T))
    precision = np.linalg.inv(chain_covariance(0.9, T))
    own, copies = (5 * np.asarray(x)).reshape(rows, count, T), np.asarray(noise[1]).reshape(rows, count, T)
    for now, then in zip(np.asarray(sigmas)[:-1], np.asarray(sigmas)[1:], strict=True):
        for n in range(count):
            weight, seen = np.full(T, now**-2), own[:, n] / now**2
            if n > 0:  # a level further on, and noised back
                weight[:K] += now**-2
                raised = own[:, n - 1, -K:] + np.sqrt(now**2 - then**2) * copies[:, n, :K]
                seen[:, :K] += raised / now**2
            if n < count - 1:
                weight[-K:] += now**-2
                seen[:, -K:] += own[:, n + 1, :K] / now**2
            clean = seen @ np.linalg.inv(precision + np.diag(weight))
            own[:, n] = clean + then / now * (own[:, n] - clean)
    np.testing.assert_allclose(np.asarray(found).reshape(own.shape), own, atol=2e-4)


def test_merging_goes_from_one_chunk_to_the_next():
    x = np.random.default_rng(3).normal(size=(2, 3, T, 2)).astype(np.float32)
    joint, expected = jnp.asarray(x.reshape(2, 3 * T, 2)), np.zeros((2, 3 * (T - K) + K, 2))
    for n in range(3):
        for t in range(T):
            share = 1.0
            share *= t / (K - 1) if n > 0 and t < K else 1
            share *= 1 - (t - T + K) / (K - 1) if n < 2 and t >= T - K else 1
            expected[:, n * (T - K) + t] += share * x[:, n, t]
    np.testing.assert_allclose(overlapping.merged(joint, 3, K), expected, atol=1e-6)
    gap = np.concatenate([x[:, n, -K:] - x[:, n + 1, :K] for n in range(2)], 1)
    np.testing.assert_allclose(
        overlapping.disagreement(joint, 3, K), np.sqrt((gap**2).mean((1, 2))), rtol=1e-5
    )
    agreed = overlapping.agreeing(bind(lambda x, sigma: x), 3, K)(joint, jnp.ones(2))
    assert overlapping.disagreement(agreed, 3, K).max() == 0
    np.testing.assert_allclose(overlapping.merged(agreed, 3, K), expected, atol=1e-6)
