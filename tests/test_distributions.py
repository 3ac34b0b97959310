"""Distributions against scipy, Monte Carlo and each other; entries that do not count."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from jdp.distributions import Categorical, Normal, TanhNormal

RNG = np.random.default_rng(0)
B, T, D, V = 3, 4, 2, 5


def f32(x):
    return jnp.asarray(x, jnp.float32)


MEANS, STDS = RNG.normal(size=(2, B, T, D)), np.exp(0.4 * RNG.normal(size=(2, B, T, D)))
FIRST, SECOND = (Normal(f32(m), f32(s)) for m, s in zip(MEANS, STDS, strict=True))
MASK = RNG.random((B, T, D)) < 0.6


@pytest.mark.parametrize("axes", [(), (-1,), (-2, -1), (0, 2)])
def test_log_densities_sum_over_named_axes_and_masked_entries(axes):
    x = RNG.normal(size=(B, T, D))
    each = stats.norm.logpdf(x, MEANS[0], STDS[0])
    np.testing.assert_allclose(FIRST.log_prob(f32(x), event_axes=axes), each.sum(axes), rtol=1e-5, atol=1e-5)
    found = FIRST.log_prob(f32(x), event_axes=axes, mask=MASK)
    np.testing.assert_allclose(found, np.where(MASK, each, 0).sum(axes), rtol=1e-5, atol=1e-5)
    inside = np.tanh(x)
    squashed = TanhNormal(f32(MEANS[0]), f32(STDS[0]))
    expected = each - np.log1p(-(inside**2))
    found = squashed.log_prob(f32(inside), event_axes=axes, mask=MASK)
    np.testing.assert_allclose(found, np.where(MASK, expected, 0).sum(axes), rtol=1e-4, atol=1e-4)


def test_divergence_is_its_closed_form_and_the_mean_log_ratio():
    ratio, gap = STDS[0] / STDS[1], (MEANS[0] - MEANS[1]) / STDS[1]
    each = 0.5 * (ratio**2 + gap**2 - 1) - np.log(ratio)
    np.testing.assert_allclose(FIRST.kl(SECOND, event_axes=()), each, rtol=1e-4, atol=1e-6)
    found = FIRST.kl(SECOND, event_axes=(-2, -1), mask=MASK)
    np.testing.assert_allclose(found, np.where(MASK, each, 0).sum((1, 2)), rtol=1e-5)
    np.testing.assert_array_equal(FIRST.kl(FIRST), 0.0)
    squashed = [TanhNormal(d.mean, d.std) for d in (FIRST, SECOND)]
    np.testing.assert_array_equal(squashed[0].kl(squashed[1]), FIRST.kl(SECOND))
    x = jax.vmap(FIRST.sample)(jax.random.split(jax.random.key(0), 40_000))
    logs = [jax.vmap(lambda x, d=d: d.log_prob(x, event_axes=()))(x) for d in (FIRST, SECOND)]
    np.testing.assert_allclose((logs[0] - logs[1]).mean(0), each, atol=0.05)


def test_entries_without_spread_or_mask_give_nothing_and_no_gradient():
    std = np.where(MASK, STDS[0], 0.0)
    x = RNG.normal(size=(B, T, D))
    x[~MASK] = np.inf  # whatever is there
    x[0, 0] = np.nan
    mask = np.ones((B, T, D), bool)
    mask[0, 0] = False

    def total(mean, std, other):
        d, e = Normal(mean, std), Normal(other, std)
        return jnp.sum(d.log_prob(f32(x), mask=mask) + d.kl(e, mask=mask))

    value, slopes = jax.value_and_grad(total, (0, 1, 2))(f32(MEANS[0]), f32(std), f32(MEANS[1]))
    assert np.isfinite(value)
    for slope in slopes:
        assert np.isfinite(slope).all()
        counts = MASK & mask
        np.testing.assert_array_equal(np.asarray(slope)[~counts], 0.0)
        assert (np.asarray(slope)[counts] != 0).all()
    # A deterministic actor: its draws are its mean, and its density says nothing.
    actor = Normal(f32(MEANS[0]), jnp.zeros((B, T, D)))
    np.testing.assert_array_equal(actor.sample(jax.random.key(0)), actor.mean)
    np.testing.assert_array_equal(actor.log_prob(f32(x)), 0.0)


def test_tokens():
    logits = 2 * RNG.normal(size=(2, B, T, V))
    logits[:, 0, 0, 0] = -np.inf  # a forbidden token
    p, q = (np.exp(a) / np.exp(a).sum(-1, keepdims=True) for a in logits)
    first, second = (Categorical(f32(a)) for a in logits)
    np.testing.assert_allclose(first.mean, p, rtol=1e-5)
    tokens = jax.vmap(first.sample)(jax.random.split(jax.random.key(1), 20_000))
    shares = (np.asarray(tokens)[..., None] == np.arange(V)).mean(0)
    np.testing.assert_allclose(shares, p, atol=0.015)
    one = np.asarray(tokens[0])
    each = np.log(np.take_along_axis(p, one[..., None], -1)[..., 0])
    np.testing.assert_allclose(first.log_prob(tokens[0]), each.sum(-1), rtol=1e-5)
    mask = MASK[..., 0]
    np.testing.assert_allclose(
        first.log_prob(tokens[0], mask=mask), np.where(mask, each, 0).sum(-1), rtol=1e-5
    )
    with np.errstate(divide="ignore", invalid="ignore"):
        gaps = np.where(p > 0, p * np.log(p / q), 0.0).sum(-1)
    np.testing.assert_allclose(first.kl(second, event_axes=()), gaps, rtol=1e-4, atol=1e-6)
    slope = jax.grad(lambda a: Categorical(a).kl(second).sum())(f32(logits[0]))
    assert np.isfinite(slope).all()
