"""Projections onto conditions against closed forms and scipy; barriers that hold from step to step."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import linprog, nnls

from jdp.errors import UserError
from jdp.tasks.barriers import PointMass, apart, condition, halfspace, project, raised
from jdp.tasks.barriers.braking import spare, speed_limit, usable
from jdp.tasks.barriers.conditions import power

MANY = 1000
solve = jax.jit(project)


def problems(seed, rows, dim=2, easy=1.0):
    """Wishes `[MANY, A]`, and conditions that the middle of the box keeps where `easy` is 1."""
    rng = np.random.default_rng(seed)
    wish, row = rng.uniform(-1.5, 1.5, (MANY, dim)), rng.normal(size=(MANY, rows, dim))
    bound = rng.normal(size=(MANY, rows))
    kept = -np.abs(bound) * np.linalg.norm(row, axis=-1)
    return tuple(
        x.astype(np.float32) for x in (wish, row, np.where(rng.random((MANY, 1)) < easy, kept, bound))
    )


def least_distance(wish, rows, bounds):
    """Lawson and Hanson's LDP: the point nearest to `wish` in a polyhedron, as non-negative least squares."""
    dim = len(wish)
    box = np.concatenate([np.eye(dim), -np.eye(dim)])
    rows, bounds = np.concatenate([rows, box]), np.concatenate([bounds, -np.ones(2 * dim)])
    system = np.vstack([rows.T, bounds - rows @ wish]).astype(float)
    target = np.append(np.zeros(dim), 1.0)
    rest = system @ nnls(system, target)[0] - target
    return wish - rest[:-1] / rest[-1]


@pytest.mark.parametrize(("rows", "dim"), [(1, 2), (3, 2), (6, 2), (2, 1), (3, 3)])
def test_the_nearest_action_is_scipys(rows, dim):
    wish, row, bound = problems(rows, rows, dim)
    found = solve(wish, row, bound)
    expected = np.stack([least_distance(*x) for x in zip(wish, row, bound, strict=True)])
    np.testing.assert_allclose(found.action, expected, rtol=0, atol=1e-5)
    assert not found.violation.any()
    assert (np.abs(expected - np.clip(wish, -1, 1)) > 1e-3).any(1).sum() > 50  # of which conditions bind


def test_one_condition_is_the_closed_form():
    wish, row, bound = problems(0, 1)
    found = jax.jit(partial(project, low=-50.0, high=50.0))(wish, row, bound)
    expected = halfspace(*(jnp.asarray(x) for x in (wish, row[:, 0], bound[:, 0])))
    by_hand = wish + np.maximum(bound - (row[:, 0] * wish).sum(-1, keepdims=True), 0) * row[:, 0] / np.square(
        row[:, 0]
    ).sum(-1, keepdims=True)
    np.testing.assert_allclose(expected, by_hand, atol=1e-5)
    np.testing.assert_allclose(found.action, expected, atol=1e-5)


def test_an_action_that_keeps_all_is_returned_bit_by_bit():
    wish, row, bound = problems(1, 4)
    wish = np.clip(wish, -1, 1) * 0.5
    found = np.asarray(solve(wish, row, bound).action)
    keeps = ((row * wish[:, None]).sum(-1) >= bound + 1e-6).all(1)
    assert 100 < keeps.sum() < 900
    np.testing.assert_array_equal(found[keeps], wish[keeps])
    assert (found[~keeps] != wish[~keeps]).any(1).mean() > 0.99
    np.testing.assert_array_equal(
        halfspace(*(jnp.asarray(x) for x in (wish, row[:, 0], bound[:, 0] - 50))), wish
    )


def test_where_nothing_keeps_all_the_least_violating_action_is_told_by_how_much():
    """A linear program; of several actions that break conditions as little, the nearest."""
    wish, row, bound = problems(2, 4, easy=0.0)
    found, broken = solve(wish, row, bound), 0
    for i in range(100):
        length = np.linalg.norm(row[i], axis=-1)
        units, limits = row[i] / length[:, None], bound[i] / length
        best = linprog([0, 0, 1], -np.c_[units, np.ones(4)], -limits, bounds=[(-1, 1), (-1, 1), (0, None)]).x[
            -1
        ]
        assert found.violation[i] == pytest.approx(best, abs=3e-5)
        worst = np.max(limits - units @ np.asarray(found.action[i]))
        assert max(worst, 0) == pytest.approx(best, abs=3e-5)
        broken += best > 1e-3
    assert 30 < broken < 95
    assert (np.abs(found.action) <= 1).all()
    wall, rest = (
        [[1.0, 0.0], *3 * [[0.0, 1.0]]],
        [3.0, *3 * [-1.0]],
    )  # one that nothing keeps, and three that are kept
    hopeless = (
        np.broadcast_to(np.array(x, np.float32), y.shape)
        for x, y in (([0, 0.3], wish), (wall, row), (rest, bound))
    )
    corner = solve(*hopeless)
    np.testing.assert_allclose(corner.action[0], [1.0, 0.3], atol=1e-5)
    assert corner.violation[0] == pytest.approx(2.0, abs=1e-5)


def test_a_condition_that_no_action_moves_is_told_and_eases_no_other():
    wish, row, bound = problems(3, 3)
    still, told = (
        np.concatenate(x, 1) for x in ((row, 0 * row[:, :1]), (bound, np.full((MANY, 1), 0.5, np.float32)))
    )
    found, expected = solve(wish, still, told), solve(wish, row, bound)
    np.testing.assert_allclose(found.action, expected.action, atol=1e-6)
    np.testing.assert_allclose(found.violation, 0.5)
    told[:, 3] = -0.5
    assert not solve(wish, still, told).violation.any()


def test_too_many_conditions_are_refused():
    with pytest.raises(UserError, match=r"40 conditions on actions of 2 entries: .* give fewer conditions"):
        project(jnp.zeros(2), jnp.ones((40, 2)), jnp.ones(40))


def _drift(x):
    return jnp.concatenate([x[2:], -0.3 * x[2:]])


def _push(x):
    del x
    return jnp.concatenate([jnp.zeros((2, 2)), 2.0 * jnp.eye(2)])


def _outside(x):
    return jnp.sum(jnp.square(x[:2])) - 0.25


def test_conditions_are_the_derivatives_of_the_barrier():
    """Of a pushed point with drag: `h'' + (k + eta) h' + k eta h >= 0`, and no row for `h` itself."""
    x, u = np.random.default_rng(0).normal(size=(2, 4)).astype(np.float32)
    row, bound = condition(raised(_outside, _drift, 1.5), _drift, _push, x, eta=0.7)
    (p, v), u = np.split(x, 2), u[:2]
    h, rate = p @ p - 0.25, 2 * p @ v
    second = 2 * v @ v + 2 * p @ (2.0 * u - 0.3 * v)
    expected = second + (1.5 + 0.7) * rate + 1.5 * 0.7 * h
    np.testing.assert_allclose(row @ u - bound, expected, rtol=1e-5)
    np.testing.assert_array_equal(condition(_outside, _drift, _push, x)[0], 0)
    np.testing.assert_allclose(power(jnp.array([4.0, 0.0, -4.0]), 0.5), [2, 0, -2])
    assert np.isfinite(jax.grad(lambda h: power(h, 0.5))(0.0))


@partial(jax.jit, static_argnums=2)
def between(place, speed, brake=0.7):
    """The barriers `[P]` of pairs of points `[P, 2, 2]`."""
    return spare(place[:, 0] - place[:, 1], speed[:, 0], speed[:, 1], jnp.asarray(0.2), brake)[1]


def pairs(seed, count=2000, brake=0.7):
    """Points that could both still stop, some at the very last moment."""
    rng = np.random.default_rng(seed)
    place = rng.uniform(-1, 1, (count, 2, 2))
    speed = rng.normal(size=(count, 2, 2)) * rng.choice([0.1, 0.5, 1.0], (count, 1, 1))
    place, speed = (jnp.asarray(x, jnp.float32) for x in (place, speed))
    h = between(place, speed, brake)
    keep = np.flatnonzero(np.asarray(h) >= 0)[:1000]
    return tuple(np.asarray(x)[keep] for x in (place, speed, h))


def test_the_normal_is_the_one_with_the_largest_barrier():
    place, speed, found = pairs(0)
    angles = np.linspace(0, 2 * np.pi, 4000, endpoint=False)
    normal = np.stack([np.cos(angles), np.sin(angles)], -1)
    offset = np.asarray(place[:, 0] - place[:, 1])
    near, far = np.maximum(-(speed[:, 0] @ normal.T), 0), np.maximum(speed[:, 1] @ normal.T, 0)
    best = (offset @ normal.T - 0.2 - (near**2 + far**2) / 1.4).max(1)
    assert len(found) == 1000
    np.testing.assert_allclose(found, best, atol=1e-4)


@pytest.mark.parametrize("mass", [PointMass(), PointMass(0.05, 2.0, 0.4, late=1.0)])
def test_a_step_at_the_limit_uses_up_what_it_may_and_no_more(mass):
    """The worst that conditions allow, of points with cautions of their own: `h` stays at 0 or above."""
    brake, rng = 0.7, np.random.default_rng(2)
    place, speed, h = pairs(1)
    eta, zeta = rng.choice([0.2, 3.0, 50.0], (len(h), 2)), rng.uniform(0.5, 2, (len(h), 2))
    eta, zeta = eta.astype(np.float32), zeta.astype(np.float32)
    conditions = jax.jit(partial(apart, distance=0.2, brake=brake, mass=mass))
    row, bound, found = (np.asarray(x) for x in conditions(place, speed, eta=eta, zeta=zeta))
    np.testing.assert_allclose(found[..., 0], np.stack([h, h], 1), atol=1e-4)
    assert (bound <= brake / mass.push + 1e-4).all()  # full braking keeps it
    np.testing.assert_allclose(row[:, 0], -row[:, 1], atol=1e-5)
    along = row[:, :, 0]
    aside = np.stack([-along[..., 1], along[..., 0]], -1) * rng.normal(size=(len(h), 2, 1))
    after = (1 - mass.drag * mass.time_step) * speed + mass.time_step * mass.push * (bound * along + aside)
    moved = place + mass.time_step * ((1 - mass.late) * speed + mass.late * after)
    use = np.asarray(jax.jit(usable, static_argnums=3)(h[:, None], eta, zeta, mass.time_step)).mean(1)
    left = between(moved.astype(np.float32), after.astype(np.float32))
    np.testing.assert_array_less(h - use - 1e-3, left)
    np.testing.assert_array_less(-1e-3, left)
    normal = along[:, 0]  # along the old normal it is used up exactly
    near, far = (np.maximum(s * (normal * after[:, i]).sum(-1), 0) for s, i in ((-1, 0), (1, 1)))
    same = (normal * (moved[:, 0] - moved[:, 1])).sum(-1) - 0.2 - (near**2 + far**2) / (2 * brake)
    np.testing.assert_allclose(same, h - use, atol=1e-4)


def test_the_speed_limit_is_the_root():
    """Of what a step and braking after it use up, which bisection finds too."""
    closing, use = jnp.linspace(-1, 1, 41)[:, None], jnp.linspace(-0.02, 0.2, 12)[None]
    closing, use = (x.astype(jnp.float32) for x in jnp.broadcast_arrays(closing, use))
    limit = speed_limit(closing, use, 0.7, PointMass())
    way = 0.1 * (closing + limit) / 2 + jnp.square(jnp.maximum(limit, 0)) / 1.4
    np.testing.assert_allclose(way - jnp.square(jnp.maximum(closing, 0)) / 1.4, use, atol=1e-6)
