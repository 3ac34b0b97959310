"""EDAC: the alignment of gradients in closed form, and whole updates against numpy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sac_reference as reference
from agent_reference import backward, member, to_numpy
from sac_reference import ROWS, SMALL, SPEC, transitions

from jdp import UserError
from jdp.agents.edac import EDACConfig, alignment, edac
from jdp.learning.critics import critic as twins

CONFIG = EDACConfig(**SMALL, critics=3, diversity=2.0)


def linear(slopes):
    """`(parameters, critic)` of critics `Q_i = <slopes_i, a>` `[N, 2]` on observations of 3 numbers."""
    kernel = jnp.concatenate([jnp.ones((len(slopes), 3)), jnp.asarray(slopes, jnp.float32)], axis=1)
    params = {"Dense_0": {"kernel": kernel[..., None], "bias": jnp.zeros((len(slopes), 1))}}
    return params, twins((), size=len(slopes))


def aligned(slopes):
    batch = transitions(0)
    params, critic = linear(slopes)
    return jax.jit(alignment, static_argnums=1)(params, critic, batch.observation, batch.action)


def test_alignment_in_closed_form():
    np.testing.assert_allclose(aligned([[3.0, 4.0]] * 5), 5, rtol=1e-5)  # identical: N
    np.testing.assert_allclose(aligned([[2.0, 0.0], [0.0, 0.1]]), 0, atol=1e-6)  # orthogonal
    np.testing.assert_allclose(aligned([[1.0, 1.0], [-5.0, -5.0]]), -2, rtol=1e-5)  # opposite
    slopes = np.asarray(jax.random.normal(jax.random.key(0), (4, 2)))
    unit = slopes / np.linalg.norm(slopes, axis=1, keepdims=True)
    pairs = sum(unit[i] @ unit[j] for i in range(4) for j in range(4) if i != j)
    np.testing.assert_allclose(aligned(slopes), pairs / 3, rtol=1e-4)


def test_a_gradient_of_zero_does_no_harm():
    """A critic that ignores the action has no direction: it counts for nothing, and all stays finite."""
    batch = transitions(0)
    params, critic = linear([[1.0, 0.0], [1.0, 0.0], [0.0, 0.0]])
    np.testing.assert_allclose(aligned([[1.0, 0.0], [1.0, 0.0], [0.0, 0.0]]), 1, rtol=1e-5)

    def loss(params):
        return jnp.sum(alignment(params, critic, batch.observation, batch.action))

    assert all(jnp.isfinite(x).all() for x in jax.tree.leaves(jax.jit(jax.grad(loss))(params)))


def penalty(params, actor, s, a, s2):
    """Algorithm 1 with a loop over pairs."""
    x, unit = np.concatenate([s, a], axis=1), []
    for i in range(CONFIG.critics):
        g = backward(member(params, i), x, np.ones((len(s), 1)))[1][:, 3:]
        unit.append(g / np.maximum(np.linalg.norm(g, axis=1, keepdims=True), 1e-10))  # all units may be off
    pairs = [(unit[i] * unit[j]).sum(1) for i in range(3) for j in range(3) if i != j]
    return CONFIG.diversity / (CONFIG.critics - 1) * np.mean(np.sum(pairs, axis=0))


def test_two_updates_equal_numpy():
    agent = edac(CONFIG, SPEC)
    state, update = (
        jax.jit(agent.learner.init)(jax.random.key(0), transitions(0)),
        jax.jit(agent.learner.update),
    )
    p, adams = reference.start(state, CONFIG)
    for i in range(2):
        key, batch = jax.random.key(10 + i), transitions(20 + i)
        state, _ = update(key, state, batch)
        reference.update(p, adams, key, to_numpy(batch), CONFIG, penalty)
    reference.assert_equal(state, p)
    assert agent.target(state, jnp.ones((ROWS, 3))).mean.shape == (ROWS, 2)


def test_settings():
    assert edac(EDACConfig(**SMALL, critics=3, diversity=2.0), SPEC) is edac(CONFIG, SPEC)
    with pytest.raises(UserError, match=r"EDACConfig\.critics is 1"):
        EDACConfig(critics=1)
