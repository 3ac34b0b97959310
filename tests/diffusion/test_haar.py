"""The Haar transform along time: orthonormal, exactly inverted, of no volume."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdp import UserError
from jdp.diffusion import haar

T, D = 8, 2


def flat(x, levels):
    """All entries of the scales of `x` `[T * D]`, coarse first."""
    scales = haar.analysis(x.reshape(1, T, D), levels)
    return jnp.concatenate([part.reshape(-1) for part in (scales.coarse, *scales.details)])


@pytest.mark.parametrize("levels", [0, 1, 3])
def test_it_is_a_rotation_without_volume(levels):
    matrix = np.asarray(jax.jacfwd(flat)(jnp.zeros(T * D), levels), np.float64)
    np.testing.assert_allclose(matrix @ matrix.T, np.eye(T * D), atol=1e-6)
    assert abs(np.linalg.slogdet(matrix)[1]) < 1e-5
    assert np.linalg.matrix_rank(matrix) == T * D


def test_the_inverse_is_exact_and_scales_are_block_means_and_differences():
    x = np.asarray(jax.random.normal(jax.random.key(0), (3, T, D)))
    scales = haar.analysis(jnp.asarray(x), 2)
    np.testing.assert_allclose(scales.coarse, x.reshape(3, 2, 4, D).mean(2) * 2, atol=1e-6)
    blocks = x.reshape(3, 2, 2, 2, D).mean(3)
    np.testing.assert_allclose(scales.details[0], blocks[:, :, 0] - blocks[:, :, 1], atol=1e-6)
    np.testing.assert_allclose(scales.details[1], (x[:, 0::2] - x[:, 1::2]) / np.sqrt(2), atol=1e-6)
    np.testing.assert_allclose(haar.synthesis(scales), x, atol=1e-6)


def test_lengths_must_divide():
    with pytest.raises(UserError, match="8 rows have no 4 scales"):
        haar.analysis(jnp.zeros((1, T, D)), 4)
