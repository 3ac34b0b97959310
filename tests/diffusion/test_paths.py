"""Paths as steps: round trips, where gradients flow, and the loss of both against numpy."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdp.diffusion import formulations
from jdp.diffusion.paths import differences, integrated, waypoint_loss

B, T, D = 3, 25, 2
PATH = jnp.cumsum(jax.random.normal(jax.random.key(0), (B, T, D)), axis=1)


def test_steps_lead_along_their_path():
    steps = differences(PATH)
    wanted = np.diff(np.concatenate([np.zeros((B, 1, D)), PATH], axis=1), axis=1)
    np.testing.assert_allclose(steps, wanted, atol=1e-6)
    np.testing.assert_allclose(integrated(steps), PATH, atol=1e-5)


@pytest.mark.parametrize("window", [1, 7, 10, 25, 40])
def test_a_window_changes_no_bit_of_the_path_and_keeps_gradients_within_itself(window):
    steps = differences(PATH)
    np.testing.assert_array_equal(integrated(steps, window), integrated(steps))
    slope = jax.jit(jax.jacrev(lambda s: integrated(s[None, :, None], window)[0, :, 0]))(steps[0, :, 0])
    row, step = np.arange(T)[:, None], np.arange(T)[None]
    wanted = (step <= row) & (step // window == row // window)
    np.testing.assert_array_equal(slope, wanted.astype(np.float32))


@pytest.mark.parametrize("flat", [True, False])
def test_the_hybrid_loss_is_that_of_steps_and_waypoints(flat):
    """`|x0_hat - x0|^2 + w |path_hat - path|^2` in numpy, and its gradient through windows of 10 rows."""
    form = replace(formulations.vp("x0"), beside=waypoint_loss(T))
    x0, noise = differences(PATH), jax.random.normal(jax.random.key(1), (B, T, D))
    x0, noise = (x.reshape(B, T * D) if flat else x for x in (x0, noise))
    sigma = jnp.array([0.1, 1.0, 5.0])

    def loss(p):
        return form.error(lambda p, x, c: p * jnp.sin(x), p, x0, sigma, noise)[0]

    found, slope = jax.jit(jax.value_and_grad(loss))(jnp.float32(0.7))
    y, s = (np.asarray(x, float).reshape(B, T, D) for x in (x0, noise))
    level = np.asarray(sigma, float)[:, None, None]
    seen = np.sin((y + level * s) / np.sqrt(1 + level**2))
    error, off = 0.7 * seen - y, np.cumsum(0.7 * seen - y, axis=1)
    within = np.concatenate([np.cumsum(part, axis=1) for part in np.split(seen, [10, 20], axis=1)], axis=1)
    assert found == pytest.approx(np.mean(error**2 + 0.05 * off**2), rel=1e-4)
    assert slope == pytest.approx(np.mean(2 * error * seen + 0.1 * off * within), rel=1e-4)
