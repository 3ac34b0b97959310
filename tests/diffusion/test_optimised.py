"""The noised plan optimised between steps: the hook that it is, a disc that is avoided, segments blended."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdp import UserError
from jdp.diffusion import exact, samplers
from jdp.diffusion.guidance import blend, inpaint, optimised
from jdp.diffusion.schedules import karras
from jdp.types import bind

T, ROWS, RADIUS = 17, 512, 0.4
TIME = np.linspace(0, 1, T)
SMOOTH = np.exp(-0.5 * np.square((TIME[:, None] - TIME[None]) / 0.3)) + 1e-4 * np.eye(T)
ENDS = [0, T - 1]
GAIN = SMOOTH[:, ENDS] @ np.linalg.inv(SMOOTH[np.ix_(ENDS, ENDS)])
MEAN = GAIN @ np.array([[-1.2, 0.0], [1.2, 0.0]])  # smooth ways from left to right, through the disc at 0
BETWEEN = SMOOTH - GAIN @ SMOOTH[ENDS]
PRIOR = exact.correlated_gaussian(MEAN.ravel(), np.kron(BETWEEN, np.eye(2)))


def _inside(x0):
    """How deep a path is within the disc, or nearly; `[B]`."""
    gap = jnp.sqrt(jnp.sum(jnp.square(x0), axis=-1) + 1e-6)
    return jnp.sum(jnp.square(jax.nn.relu(RADIUS + 0.1 - gap)), axis=1)


def test_paths_avoid_a_disc_keep_their_keyframes_and_stay_likely():
    """Of 49 % that cross it .2 % are left; their negative log density rises by less than a fifth."""
    sigmas, run = karras(24, 0.02, 20.0), jax.jit(samplers.euler)
    x = sigmas[0] * jax.random.normal(jax.random.key(0), (ROWS, T, 2))
    mask = jnp.zeros((ROWS, T, 2), bool).at[:, jnp.array(ENDS)].set(True)
    known, precision = (
        jnp.broadcast_to(jnp.asarray(MEAN, jnp.float32), mask.shape),
        np.linalg.pinv(BETWEEN, 1e-5),
    )
    crossed, unlikely = {}, {}
    for rate in (0.0, 0.1):
        steered = inpaint(optimised(PRIOR, bind(_inside), rate=rate), known, mask)
        found = np.asarray(run(steered, x, sigmas))
        np.testing.assert_array_equal(found[:, ENDS], np.asarray(known)[:, ENDS])
        crossed[rate] = (np.linalg.norm(found, axis=-1).min(1) < RADIUS).mean()
        off = found - MEAN
        unlikely[rate] = 0.5 * np.einsum("bti,ts,bsi->b", off, precision, off).mean()
    assert crossed[0.0] > 0.4 and crossed[0.1] < 0.02
    assert unlikely[0.1] < 1.2 * unlikely[0.0]


def _bowl(aim, x0):
    return 0.5 * jnp.sum(jnp.square(x0 - aim), axis=(1, 2))


X = jax.random.normal(jax.random.key(1), (6, 3, 2))
LEVELS = jnp.array([0.1, 0.2, 0.4, 0.6, 0.8, 0.9])
BASE = exact.gaussian(0.3, 0.5)


def moved(rate, iterations, radius):
    """The hook in float64: `D = c x + d`, so that the slope of the bowl is `c (D - aim)`."""
    x, s2 = np.asarray(X, float), np.square(np.asarray(LEVELS, float))[:, None, None]
    c, total = 0.25 / (0.25 + s2), np.zeros_like(x)
    for _ in range(iterations):
        total -= rate * c * (c * (x + total) + (1 - c) * 0.3 - 1.0)
        length = np.sqrt(np.square(total).sum((1, 2), keepdims=True))
        total *= np.minimum(1, radius * np.sqrt(6) * np.asarray(LEVELS)[:, None, None] / length)
    return x + total


@pytest.mark.parametrize("radius", [10.0, 0.1])
def test_a_step_that_halves_the_level_is_the_hook_and_then_the_plain_step(radius):
    guided = optimised(BASE, bind(_bowl, jnp.float32(1.0)), rate=0.3, iterations=3, radius=radius)
    wanted = samplers.euler_step(BASE, jnp.asarray(moved(0.3, 3, radius), jnp.float32), LEVELS, LEVELS / 2)
    np.testing.assert_allclose(samplers.euler_step(guided, X, LEVELS, LEVELS / 2), wanted, atol=1e-5)


def test_nothing_moves_without_iterations_or_rate_and_above_the_latest_level():
    cost, plain = bind(_bowl, jnp.float32(1.0)), BASE(X, LEVELS)
    for settings in ({"iterations": 0}, {"rate": 0.0}):
        np.testing.assert_array_equal(optimised(BASE, cost, **settings)(X, LEVELS), plain)
    changed = np.asarray(optimised(BASE, cost, latest=0.5)(X, LEVELS) != plain).any((1, 2))
    np.testing.assert_array_equal(changed, np.asarray(LEVELS) <= 0.5)
    held = jnp.broadcast_to(LEVELS[:, None], (6, 3)).at[:, 0].set(0.0)  # known rows stay
    np.testing.assert_array_equal(optimised(BASE, cost)(X, held)[:, 0], X[:, 0])
    with pytest.raises(UserError, match="iterations is -1"):
        optimised(BASE, cost, iterations=-1)


def test_segments_are_blended_without_a_kink():
    """Of smooth curves that differ by a tenth of a step; cut instead of blended they jump."""
    time = np.linspace(0, 2, 41)
    curve = np.stack([time, np.sin(time)], axis=1)
    step = np.median(np.linalg.norm(np.diff(curve, axis=0), axis=1))
    first, second = curve[:25], curve[15:] + 3 * step * np.array([0.0, 1.0])
    whole = np.asarray(blend(jnp.asarray(first), jnp.asarray(second), 10))
    kink = np.linalg.norm(np.diff(whole, 2, axis=0), axis=1).max()  # of velocities, from step to step
    cut = np.concatenate([first[:20], second[5:]])
    assert kink < 2 * step < np.linalg.norm(np.diff(cut, 2, axis=0), axis=1).max()
    share = np.arange(1, 11)[:, None] / 11
    np.testing.assert_allclose(whole[15:25], (1 - share) * first[15:] + share * second[:10], atol=1e-6)
    same = blend(jnp.asarray(curve[:25]), jnp.asarray(curve[15:]), 10)
    np.testing.assert_allclose(same, curve, atol=1e-6)
    np.testing.assert_array_equal(blend(X, X, 0), jnp.concatenate([X, X], axis=1))
    with pytest.raises(UserError, match="overlap is 4 rows; of segments of 3 and 3"):
        blend(X, X, 4)
