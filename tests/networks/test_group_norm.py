"""Group norm with Mish against flax's layer, a numpy reference and automatic derivatives."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from jdp.networks.group_norm import GroupNormMish, group_norm_mish, mish

B, T, C, GROUPS = 3, 5, 16, 4


def rows(shape, key, spread=1.0):
    return spread * jax.random.normal(jax.random.key(key), shape)


def plain(x, scale, shift):
    """What automatic derivatives are taken of."""
    wide = x.reshape(B, T, GROUPS, -1)
    mean, var = wide.mean((1, 3), keepdims=True), wide.var((1, 3), keepdims=True)
    y = ((wide - mean) / jnp.sqrt(var + 1e-5)).reshape(x.shape) * scale + shift
    return y * jnp.tanh(jnp.logaddexp(y, 0.0))


@pytest.fixture(scope="module")
def given():
    return rows((B, T, C), 0, 2.0) + 1.0, 1 + rows((C,), 1, 0.3), rows((C,), 2, 0.3)


def test_it_is_group_norm_then_mish(given):
    x, scale, shift = (np.asarray(v, np.float64) for v in given)
    wide = x.reshape(B, T, GROUPS, -1)
    normal = (wide - wide.mean((1, 3), keepdims=True)) / np.sqrt(wide.var((1, 3), keepdims=True) + 1e-5)
    y = normal.reshape(x.shape) * scale + shift
    expected = y * np.tanh(np.logaddexp(y, 0.0))
    np.testing.assert_allclose(group_norm_mish(*given, GROUPS), expected, atol=1e-5)


@pytest.mark.parametrize("wrt", [0, 1, 2])
def test_its_derivative_is_that_of_the_formula(given, wrt):
    cotangent = rows((B, T, C), 3)
    ours = jax.vjp(lambda *v: group_norm_mish(*v, GROUPS), *given)[1](cotangent)[wrt]
    with jax.numpy_rank_promotion("allow"):
        expected = jax.vjp(plain, *given)[1](cotangent)[wrt]
    np.testing.assert_allclose(ours, expected, atol=2e-5)


def test_both_modes_agree_to_the_second_order(given):
    """Guidance takes products with Jacobians, Newton's steps with Hessians."""
    x = given[0][:1, :3]
    check_grads(
        lambda x: group_norm_mish(x, *given[1:], GROUPS), (x,), order=2, atol=0.02, rtol=0.02, eps=1e-2
    )
    check_grads(mish, (jnp.linspace(-4.0, 4.0, 7),), order=2, atol=0.02, rtol=0.02, eps=1e-2)


@pytest.mark.parametrize(("dtype", "tolerance"), [(jnp.float32, 1e-5), (jnp.bfloat16, 0.05)])
def test_its_parameters_are_those_of_flax(given, dtype, tolerance):
    x = given[0]
    ours, theirs = GroupNormMish(GROUPS, dtype), nn.GroupNorm(num_groups=GROUPS, epsilon=1e-5, dtype=dtype)
    params = {"params": {"scale": given[1], "bias": given[2]}}
    assert jax.tree.structure(ours.init(jax.random.key(0), x)) == jax.tree.structure(params)
    out = ours.apply(params, x.astype(dtype))
    assert out.dtype == dtype
    with jax.numpy_dtype_promotion("standard"):
        expected = mish(theirs.apply(params, x.astype(dtype)).astype(jnp.float32))
    np.testing.assert_allclose(out.astype(jnp.float32), expected, atol=tolerance, rtol=tolerance)
