"""Surrogates against ten lines of numpy, and what their gradients are where nothing has been learned yet."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdp.alignment import surrogates
from jdp.learning.ppo import clipped_surrogate

T, B = 5, 4
ADVANTAGE, NOISE = np.random.default_rng(0).normal(size=(2, T, B)).astype(np.float32)
GATES = {"rise": 0.2, "fall": 0.15, "residual": 0.1}


def fibre(log_ratio, advantage=ADVANTAGE):
    return surrogates.fibre(log_ratio, jnp.asarray(advantage), **GATES)[0]


FIBRE = jax.jit(fibre)


def rebel(log_ratio, advantage=ADVANTAGE):
    """Of pairs of neighbours, halved so that its gradient is that of single rows."""
    pairs = (jnp.asarray(x).reshape(-1, 2) for x in (log_ratio, advantage))
    return surrogates.rebel(*pairs, 1.0)


def rebels_gradient():
    mine, other = ADVANTAGE.reshape(-1, 2), ADVANTAGE.reshape(-1, 2)[:, ::-1]
    return -2 * (mine - other) / len(mine)


@pytest.mark.parametrize(
    ("loss", "value", "gradient"),
    [
        (lambda x: clipped_surrogate(x, jnp.zeros((T, B)), ADVANTAGE, 0.2)[0], -ADVANTAGE.mean(), None),
        (fibre, -ADVANTAGE.mean(), None),
        (rebel, np.mean(np.square(ADVANTAGE[:, ::2] - ADVANTAGE[:, 1::2])), rebels_gradient()),
    ],
    ids=["ppo", "fibre", "rebel"],
)
def test_at_ratio_1_the_gradient_is_the_policy_gradient(loss, value, gradient):
    found, slope = jax.jit(jax.value_and_grad(loss))(np.zeros((T, B), np.float32))
    np.testing.assert_allclose(found, value, rtol=1e-6)
    wanted = -ADVANTAGE / (T * B) if gradient is None else gradient.reshape(T, B)
    np.testing.assert_allclose(slope, wanted, rtol=1e-5)


def reference(log_ratio, advantage, *, rise, fall, residual):
    """FiberPO as its paper writes it, one chain and one step at a time."""

    def gate(x, budget):
        if abs(x) <= budget:
            return x
        return np.sign(x) * (T + 1) * budget - T * x if abs(x) < (1 + 1 / T) * budget else 0.0

    total = 0.0
    for chain, worth in zip(np.float64(log_ratio).T, np.float64(advantage).T, strict=True):
        s = {1: np.mean(np.maximum(chain, 0)), -1: np.mean(np.maximum(-chain, 0))}
        base = np.exp(gate(s[1], rise) - gate(s[-1], fall))
        for x, a in zip(chain, worth, strict=True):
            sign = 1 if x >= 0 else -1
            u, v = sign * x - s[sign], -s[-sign]
            total += (
                base
                * a
                * np.exp(np.clip(sign * u, -residual, residual) - np.clip(sign * v, -residual, residual))
            )
    return -total / log_ratio.size


@pytest.mark.parametrize("size", [0.02, 0.2, 1.0])
def test_fibre_is_the_papers_formula_and_the_plain_ratio_where_no_gate_acts(size):
    log_ratio = np.float32(size) * NOISE
    found = FIBRE(log_ratio)
    np.testing.assert_allclose(found, reference(log_ratio, ADVANTAGE, **GATES), rtol=1e-5)
    plain = -np.mean(np.exp(log_ratio) * ADVANTAGE)
    assert np.isclose(found, plain, rtol=1e-5) == (size < 0.1)


def test_a_chain_is_rolled_back_beyond_its_budget_and_no_longer_moved_beyond_the_next_step():
    slope = jax.jit(jax.vmap(jax.grad(lambda x: surrogates.rolled_back(x, 0.2, T))))
    within, back, beyond = 0.19, 0.2 * (1 + 0.5 / T), 0.2 * (1 + 1 / T) + 1e-4
    np.testing.assert_allclose(slope(np.float32([0.0, within, back, beyond, 3.0])), [1, 1, -T, 0, 0])


def test_no_chain_learns_from_another():
    log_ratio = 0.1 * NOISE
    curvature = jax.jit(jax.jacfwd(jax.grad(fibre)))(log_ratio)  # [T, B, T, B]
    own = np.eye(B, dtype=bool)[None, :, None, :]
    assert np.all(np.where(own, 0.0, curvature) == 0) and np.abs(curvature).max() > 0


def test_where_rebels_residual_is_0_log_ratios_are_differences_of_rewards():
    scale, reward = 2.0, ADVANTAGE.reshape(-1, 2)
    slope = jax.jit(jax.value_and_grad(lambda x: surrogates.rebel(x, reward, scale)))
    shift = np.arange(len(reward), dtype=np.float32)[:, None]  # of a pair's both samples: their normalisation
    assert slope(reward / np.float32(scale) + shift)[0] < 1e-10
    change = np.zeros_like(reward)
    for _ in range(60):  # any minimum of it
        change = change - np.float32(0.3) * np.asarray(slope(change)[1])
    gap, wanted = (x[:, 0] - x[:, 1] for x in (change, reward / scale))
    np.testing.assert_allclose(gap, wanted, atol=1e-4)
