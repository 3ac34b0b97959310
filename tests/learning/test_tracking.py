"""A controller that must follow plans: its gain, its bound, and plans that it can follow."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdp import UserError
from jdp.diffusion import exact, samplers
from jdp.diffusion.schedules import karras
from jdp.learning.guides import cost_guide, first_context, optimise_guide
from jdp.learning.scale import Affine, Scale
from jdp.learning.tracking import BoundedTracker, regulator, tracking_cost, tracking_error
from jdp.types import bind

T, STD, ROWS = 25, 0.02, 256
TRACKER = BoundedTracker(dt=0.1, bound=2.0)
SCALE = Scale(*(Affine(jnp.zeros(n), jnp.ones(n)) for n in (2, 1, 1)))


def turn(radius):
    """`[T, 2]`, right, then up: around a corner of this radius, at a constant speed."""
    straight, arc = 2 - radius, np.pi * radius / 2
    way = np.linspace(0, 2 * straight + arc, T)
    angle = np.clip((way - straight) / radius, 0, np.pi / 2)
    along, up = np.minimum(way, straight), np.maximum(way - straight - arc, 0)
    return np.stack([along + radius * np.sin(angle), up + radius * (1 - np.cos(angle))], axis=1)


SHARP, WIDE = turn(0.02), turn(1.5)


def _rows(denoiser, x, sigma):
    return denoiser(x.reshape(x.shape[0], -1), sigma).reshape(x.shape)


PRIOR = bind(_rows, exact.mixture([0.5, 0.5], np.stack([SHARP.ravel(), WIDE.ravel()]), [STD, STD]))
SIGMAS = karras(32, 0.02, 20.0)


@jax.jit
def drawn(denoiser):
    """Plans, and the root mean square by which the controller misses them."""
    x = SIGMAS[0] * jax.random.normal(jax.random.key(0), (ROWS, T, 2))
    plans = samplers.churned_euler(denoiser, x, SIGMAS, key=jax.random.key(1))
    return plans, jnp.sqrt(jnp.mean(tracking_error(TRACKER, plans)) / T)


def guided(guide):
    context = first_context(SCALE, jnp.zeros((ROWS, 2)), jnp.zeros((ROWS, 0)), guide)
    return guide(context)(PRIOR)


def test_plans_take_the_turn_that_the_body_can_take():
    """Of sharp and wide turns in equal shares nearly all are wide, and the tracking error falls by 80 %."""
    plain, missed = drawn(PRIOR)
    cost = tracking_cost(TRACKER)
    for guide, share in (
        (cost_guide(cost, 3.0, covariance="jacobian"), 0.95),
        (optimise_guide(cost, rate=0.3, iterations=3, radius=0.1, latest=3.0), 0.85),
    ):
        plans, error = drawn(guided(guide))
        off = [np.square(np.asarray(plans) - way).sum((1, 2)) for way in (WIDE, SHARP)]
        assert (off[0] < off[1]).mean() > share
        assert error < 0.5 * missed
        assert np.sqrt(np.minimum(*off) / (2 * T)).max() < 2 * STD  # it is still a plan of the data
    off = [np.square(np.asarray(plain) - way).sum((1, 2)) for way in (WIDE, SHARP)]
    assert 0.4 < (off[0] < off[1]).mean() < 0.6


def test_guidance_of_strength_0_is_none():
    assert guided(cost_guide(tracking_cost(TRACKER), 0.0, covariance="jacobian")) is PRIOR


def test_the_gain_is_that_of_the_regulator():
    """No gain near it costs less, from a place off the path, in a roll-out that is long enough."""

    def cost(gain, rate):
        place, speed, total = 1.0, 0.0, 0.0
        for _ in range(400):
            u = -gain * place - rate * speed
            total += place**2 + 1e-3 * u**2
            place, speed = place + 0.1 * speed + 0.005 * u, speed + 0.1 * u
        return total

    gain, rate = regulator(0.1, 1e-3)
    best = cost(gain, rate)
    for a, b in ((1.05, 1), (0.95, 1), (1, 1.05), (1, 0.95)):
        assert cost(a * gain, b * rate) > best


def test_what_the_bound_allows_is_followed_and_what_it_does_not_is_missed():
    time = 0.1 * jnp.arange(float(T))
    for acceleration, misses in ((1.0, False), (8.0, True)):
        path = (0.5 * acceleration * jnp.square(time))[None, :, None]
        gap = np.abs(np.asarray(TRACKER(path) - path)).max()
        assert (gap > 1) == misses and (misses or gap < 0.05)
    hard = BoundedTracker(dt=0.1, bound=2.0, softness=0.0)
    found = np.asarray(hard(path))[0, :, 0]
    # All it can: from rest with the path's first velocity on, by the bound.
    start = float(path[0, 1, 0] / 0.1)
    np.testing.assert_allclose(found, start * np.asarray(time) + np.square(np.asarray(time)), rtol=1e-4)
    soft = jnp.linspace(-6, 6, 101)
    np.testing.assert_allclose(TRACKER.cut(soft), jnp.clip(soft, -2, 2), atol=0.2 * np.log(2) + 1e-5)


def test_a_policy_has_no_plan_to_track():
    with pytest.raises(UserError, match="which a policy has not"):
        tracking_cost(TRACKER)(jnp.zeros((2, 1, 2)), jnp.zeros((2, 4, 1)))
    with pytest.raises(UserError, match=r"BoundedTracker\.bound"):
        BoundedTracker(bound=0.0)
    observed = jnp.concatenate([jnp.asarray(SHARP)[None], jnp.ones((1, T, 3))], axis=-1)
    found = tracking_cost(TRACKER, (0, 1))(observed, jnp.zeros((1, 0, 1)))
    np.testing.assert_allclose(found, tracking_error(TRACKER, observed[..., :2]), rtol=1e-6)
