"""Rotary embedding over n axes: differences alone count; attention of two points by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdp.networks import from_module
from jdp.networks.flat import flat
from jdp.networks.rope_nd import PointTransformer, Scene, frequencies, rotary_attention, rotate

WIDTH, TURNS = 14, {axes: frequencies(14, axes, 0.5, 8.0) for axes in (1, 2, 3)}


def normal(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_products_depend_on_differences_alone_and_lengths_stay(axes):
    """Also of points far from the origin; and what differs by a place is another product."""
    q, k, turns = normal(0, 5, 7, 2, WIDTH), normal(1, 5, 7, 2, WIDTH), TURNS[axes]
    assert turns.shape == (WIDTH // (2 * axes),)
    here, there, shift = normal(2, 5, 7, axes), normal(3, 5, 7, axes), 3 * normal(4, 5, 1, axes)

    def product(a, b):
        return jnp.sum(rotate(q, a, turns) * rotate(k, b, turns), axis=-1)

    found = product(here, there)
    np.testing.assert_allclose(product(here + shift, there + shift), found, atol=1e-5 * WIDTH)
    np.testing.assert_allclose(product(here - there, jnp.zeros_like(here)), found, atol=1e-5 * WIDTH)
    np.testing.assert_allclose(
        jnp.linalg.norm(rotate(q, here, turns), axis=-1), jnp.linalg.norm(q, axis=-1), rtol=1e-5
    )
    for axis in range(axes):
        moved = product(here.at[..., axis].add(0.2), there)
        assert np.abs(moved - found).max() > 0.1


@pytest.mark.parametrize("values", [False, True])
def test_attention_of_two_points_by_hand(values):
    """One pair of entries an axis: `q . R(d) k = q1 . Rot(w d1) k1 + q2 . Rot(w d2) k2`, complex numbers."""
    w = np.float32(1.3)
    rng = np.random.default_rng(5)
    q, k, v = (rng.normal(size=(2, 4)).astype(np.float32) for _ in range(3))
    at = rng.normal(size=(2, 2)).astype(np.float32)
    turned = lambda x, d: (x[..., :2] + 1j * x[..., 2:]) * np.exp(1j * w * d)  # noqa: E731
    wanted = np.zeros((2, 4))
    for i in range(2):
        score = [np.sum(np.conj(turned(q[i], 0)) * turned(k[j], at[j] - at[i])).real / 2 for j in range(2)]
        share = 1 / (1 + np.exp(score[1] - score[0]))
        for j, weight in enumerate((share, 1 - share)):
            heard = turned(v[j], (at[j] - at[i]) * values)
            wanted[i] += weight * np.concatenate([heard.real, heard.imag])
    stacked = [jnp.asarray(x)[None, :, None] for x in (q, k, v)]
    found = rotary_attention(*stacked, at=jnp.asarray(at)[None], frequencies=jnp.array([w]), values=values)
    np.testing.assert_allclose(found[0, :, 0], wanted, atol=1e-5)


@pytest.mark.parametrize(("axes", "place"), [(2, ()), (2, (0, 1)), (3, (0, 1, 2))])
def test_a_point_transformer_hears_only_where_points_lie_to_one_another(axes, place):
    """All points move far: nothing changes. One of them moves a little: all actions do."""
    module = PointTransformer(16, 2, 2, place=place, groups=(0, 3), values=axes == 3)
    x, level = normal(6, 4, 3, 4), jnp.linspace(-1, 1, 4)
    scene = Scene(normal(7, 4, 5, axes), normal(8, 4, 2), jnp.full((4, axes), 0.4))
    shapes = jax.eval_shape(module.init, jax.random.key(0), x, level, scene)
    rng, apply = np.random.default_rng(9), jax.jit(module.apply)
    params = jax.tree.map(lambda p: jnp.asarray(0.3 * rng.normal(size=p.shape), jnp.float32), shapes)
    found = apply(params, x, level, scene)
    moved = apply(params, x, level, scene._replace(points=scene.points + 5 * normal(10, 4, 1, axes)))
    scale = np.std(found)
    np.testing.assert_allclose(moved, found, atol=1e-5 * scale * 10)
    for point in range(5):
        other = apply(params, x, level, scene._replace(points=scene.points.at[:, point, 0].add(0.1)))
        assert np.abs(other - found).max(axis=(0, 2)).min() > 1e-4 * scale
    far = apply(params, x, level, scene._replace(reach=2 * scene.reach))
    assert np.array_equal(far, found) == (not place)


def test_levels_of_entries_are_heard_by_group():
    """Of flat chunks of 2 actions. Equal levels are one level; only a group's first entry is listened to."""
    module = PointTransformer(16, 1, 2, groups=(0, 3))
    network = flat(from_module(module), 2)
    x, level = normal(6, 4, 8), jnp.linspace(-1, 1, 4)
    scene = Scene(normal(7, 4, 3, 2), normal(8, 4, 2), jnp.zeros((4, 2)))
    rng, shapes = np.random.default_rng(9), jax.eval_shape(network.init, jax.random.key(0), x, level, scene)
    params = jax.tree.map(lambda p: jnp.asarray(0.3 * rng.normal(size=p.shape), jnp.float32), shapes)
    apply, every = jax.jit(network.apply), jnp.repeat(level[:, None], 8, axis=1)
    found = apply(params, x, every, scene)
    np.testing.assert_allclose(apply(params, x, level, scene), found, atol=1e-5)
    for entry in range(8):
        other = apply(params, x, every.at[:, entry].add(0.5), scene)
        assert np.array_equal(other, found) == (entry % 4 not in (0, 3))
