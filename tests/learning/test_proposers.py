"""Proposers: what a row is predicted from, the loss, and proposals as predictions of themselves."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdp.learning.proposers import ProposerConfig, predicted, proposer
from jdp.networks.recurrent import gru

B, T, D, C = 4, 6, 3, 2
NETWORK = gru(8, 2, D)
ROWS, GIVEN = jax.random.normal(jax.random.key(0), (B, T, D)), jax.random.normal(jax.random.key(1), (B, C))
MADE = proposer(ProposerConfig(features=8, layers=2, steps=100, learning_rate=1e-2, ema=0.0), D)


@pytest.fixture(scope="module")
def state():
    return jax.jit(MADE.init)(jax.random.key(2), ROWS[:1, 0], GIVEN[:1])


PREDICT = jax.jit(predicted, static_argnums=0)


def test_the_cells_are_gated_recurrent_units(state):
    """Two layers in numpy, of the equations of arXiv 1406.1078 as flax writes them."""
    params = jax.tree.map(lambda x: np.asarray(x, float), state.params)["params"]

    def dense(p, x):
        return x @ p["kernel"] + p.get("bias", 0.0)

    def cell(p, h, x):
        r, z = (1 / (1 + np.exp(-dense(p[f"i{k}"], x) - dense(p[f"h{k}"], h))) for k in "rz")
        n = np.tanh(dense(p["in"], x) + r * dense(p["hn"], h))
        return (1 - z) * n + z * h

    memory, wanted = [np.zeros((B, 8)), np.zeros((B, 8))], []
    for t in range(T):
        x = np.concatenate([ROWS[:, t], GIVEN], axis=1)
        for layer in range(2):
            memory[layer] = x = cell(params[f"GRUCell_{layer}"], memory[layer], x)
        wanted.append(np.asarray(ROWS[:, t]) + dense(params["Dense_0"], x))
    found = PREDICT(NETWORK, state.params, ROWS, GIVEN)
    np.testing.assert_allclose(found, np.stack(wanted, axis=1), atol=1e-5)


def test_a_row_is_predicted_from_those_before_it_alone(state):
    found, other = (PREDICT(NETWORK, state.params, rows, GIVEN) for rows in (ROWS, ROWS.at[:, 3].add(1.0)))
    np.testing.assert_array_equal(found[:, :3], other[:, :3])
    assert (np.abs(found - other)[:, 3:].max(axis=(0, 2)) > 1e-3).all()


def test_a_proposal_is_what_is_predicted_of_itself(state):
    rows = MADE.propose(state, ROWS[:, 0], GIVEN, T)
    np.testing.assert_array_equal(rows[:, 0], ROWS[:, 0])
    found = PREDICT(NETWORK, state.ema, rows[:, :-1], GIVEN)
    np.testing.assert_allclose(found, rows[:, 1:], atol=1e-5)
    shorter = MADE.propose(state, ROWS[:, 0], GIVEN, 3)
    np.testing.assert_allclose(shorter, rows[:, :3], atol=1e-6)


def test_it_learns_by_the_squared_error_of_the_next_row(state):
    update = jax.jit(MADE.update)
    _, metrics = update(state, ROWS, GIVEN)
    error = np.asarray(PREDICT(NETWORK, state.params, ROWS[:, :-1], GIVEN)) - np.asarray(ROWS[:, 1:])
    assert metrics["proposer_loss"] == pytest.approx(np.mean(error**2), rel=1e-5)
    # Of rows that all move by the condition's first entry there is nothing else to learn.
    steady = jnp.cumsum(jnp.broadcast_to(GIVEN[:, None, :1], (B, T, D)), axis=1)
    _, begun = update(state, steady, GIVEN)
    for _ in range(100):
        state, metrics = update(state, steady, GIVEN)
    assert metrics["proposer_loss"] < begun["proposer_loss"] / 20
