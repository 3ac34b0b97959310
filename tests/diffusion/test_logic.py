"""Signal temporal logic: smooth against exact, against numpy, and plans that keep what a prior does not."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdp.diffusion import exact
from jdp.diffusion.guidance import logic, logic_guided
from jdp.diffusion.guidance.logic import (
    above,
    always,
    below,
    box,
    disc,
    effort,
    entry,
    eventually,
    half_plane,
    implies,
    inside,
    outside,
    predicate,
    robustness,
    slack,
    speed,
    until,
)
from jdp.diffusion.samplers import euler
from jdp.diffusion.schedules import karras
from jdp.errors import UserError
from jdp.types import bind

T, TAU = 20, 100.0
A, B, C = (above(entry(i), 0.0) for i in range(3))
FORMULAS = {
    "and": A & B & C,
    "or, not": A | ~B,
    "always": always(A),
    "eventually, in a window": eventually(B, 3, 9),
    "nested": always(eventually(A & B, 0, 6), 2) | eventually(always(C, 0, 3)),
    "until": until(A, B),
    "until, in a window": until(A | C, B, 2, 7),
    "implies": always(implies(A, eventually(B, 1, 5))),
}


@pytest.fixture(scope="module")
def signals():
    """A thousand random walks of three entries."""
    return jnp.cumsum(0.3 * jax.random.normal(jax.random.key(0), (1000, T, 3)), axis=1)


judged = jax.jit(robustness, static_argnames="stride")


def both(formula, signals):
    return tuple(np.asarray(judged(formula, signals, tau=tau)) for tau in (TAU, None))


@pytest.mark.parametrize("name", FORMULAS)
def test_the_smooth_robustness_is_within_its_band_of_the_exact_one(name, signals):
    """On 1,000 signals: `log(n) / tau` for each extremum; off the band the signs agree."""
    smooth, hard = both(FORMULAS[name], signals)
    band = slack(FORMULAS[name], T, tau=TAU)
    assert np.abs(smooth - hard).max() <= band + 1e-5
    off = np.abs(smooth) > band
    assert off.mean() > 0.5 and ((smooth > 0) == (hard > 0))[off].all()


def test_the_band_is_reached_where_all_rows_are_equal():
    still = jnp.ones((1, T, 3))
    for formula, n in ((always(A), T), (eventually(A, 0, 7), 8), (A & B & C, 3), (until(A, B, 0, 0), 1)):
        smooth, hard = both(formula, still)
        assert slack(formula, T, tau=TAU) == pytest.approx(np.log(n) / TAU)
        assert np.abs(smooth - hard)[0] == pytest.approx(np.log(n) / TAU, abs=1e-5)


def windowed(x, begin, end, best):
    """Of each row the extremum from `begin` to `end` rows on; behind the end the last row is held."""
    held = np.concatenate([x, np.repeat(x[:, -1:], x.shape[1], axis=1)], axis=1)
    return np.stack([best(held[:, t + begin : t + end + 1], axis=1) for t in range(x.shape[1])], axis=1)


def until_by_hand(left, right, begin, end):
    """For the first row: the best step for `right`, with `left` at all rows before."""
    found = []
    for k in range(begin, end + 1):
        held = left[:, :k].min(1) if k else np.full(len(left), np.inf)
        found.append(np.minimum(right[:, k], held))
    return np.max(found, axis=0)


def test_windows_are_those_of_a_loop(signals):
    a, b = (np.asarray(signals[..., i]) for i in (0, 1))
    for begin, end in ((0, T - 1), (2, 2), (0, 6), (3, 12), (5, T - 1)):
        for operator, best in ((always, np.min), (eventually, np.max)):
            found = operator(A, begin, end).signal(logic.Seen(signals, signals[..., :0], None, 1))
            np.testing.assert_array_equal(found, windowed(a, begin, end, best))
        found = judged(until(A, B, begin, end), signals)
        np.testing.assert_array_equal(found, until_by_hand(a, b, begin, end))
    nested = windowed(windowed(b, 0, 4, np.max), 1, 9, np.min)[:, 0]
    np.testing.assert_array_equal(robustness(always(eventually(B, 0, 4), 1, 9), signals), nested)
    everywhere = np.stack([until_by_hand(a[:, t:], b[:, t:], 0, T - 1 - t) for t in range(T)], axis=1)
    found = always(until(A, B)).signal(logic.Seen(signals, signals[..., :0], None, 1))
    np.testing.assert_array_equal(found[:, 0], everywhere.min(axis=1))


def test_windows_are_told_in_steps_and_a_last_row_is_held(signals):
    """Of every third row the window from step 4 to 13 has rows 2 to 4; what is held changes nothing."""
    formula, thinned = always(A, 4, 13), signals[:, ::3]
    np.testing.assert_array_equal(
        robustness(formula, thinned, stride=3), np.asarray(thinned[:, 2:5, 0]).min(axis=1)
    )
    longer = jnp.concatenate([signals, jnp.repeat(signals[:, -1:], 7, axis=1)], axis=1)
    for each in FORMULAS.values():
        np.testing.assert_array_equal(judged(each, longer), judged(each, signals))


def test_de_morgan(signals):
    pairs = (
        (~(A & B), ~A | ~B),
        (~(A | B), ~A & ~B),
        (~always(A, 2, 9), eventually(~A, 2, 9)),
        (implies(A, B), ~(A & ~B)),
    )
    for left, right in pairs:
        for x, y in zip(both(left, signals), both(right, signals), strict=True):
            np.testing.assert_array_equal(x, y)
    assert ~~A == A and hash(A & B) == hash(A & B) and (A & B) & C == A & (B & C)


def test_regions_measure_ways_in_the_units_of_the_task():
    at = jnp.array([[[0.0, 0.0], [3.0, 4.0], [1.5, 0.5], [2.0, -1.0]]])
    seen = logic.Seen(at, at[..., :0], None, 1)
    cases = (
        (inside(disc((0.0, 0.0), 2.0)), [2.0, -3.0, 2 - np.hypot(1.5, 0.5), 2 - np.sqrt(5)]),
        (inside(box((-1.0, -2.0), (2.0, 2.0))), [1.0, -np.sqrt(5), 0.5, 0.0]),
        (outside(half_plane((0.0, 2.0), 1.0)), [-0.5, 3.5, 0.0, -1.5]),
        (below(speed((0, 1)), 2.0), [2.0, -3.0, 2 - np.hypot(1.5, 0.5), 2 - np.sqrt(5)]),
        (predicate(lambda o, a, k: o[..., 0] - k, 1.0), [-1.0, 2.0, 0.5, 1.0]),
    )
    for formula, expected in cases:
        np.testing.assert_allclose(formula.signal(seen)[0], expected, atol=1e-5)


def test_other_numbers_compile_nothing(signals):
    """Of a formula as an argument: of its robustness, and of plans that it guides."""
    counts = []

    def rule(centre, radius, limit):
        return always(outside(disc(centre, radius))) & eventually(below(entry(1), limit))

    @jax.jit
    def told(formula, tau):
        counts.append(1)
        return robustness(formula, signals, tau=tau)

    first = told(rule((0.0, 0.0), 0.3, -1.0), 100.0)
    assert not np.allclose(first, told(rule((0.5, 0.2), 0.6, 0.4), 30.0)) and len(counts) == 1

    @jax.jit
    def guided(formula, strength, margin):
        counts.append(1)
        return logic_guided(exact.gaussian(0.0, 1.0), formula, strength, margin=margin)(
            signals[:8, :, :2], jnp.ones(8)
        )

    guided(rule((0.0, 0.0), 0.3, -1.0), 1.0, 0.0)
    guided(rule((0.5, 0.2), 0.6, 0.4), 3.0, 0.1)
    assert len(counts) == 2


def test_the_smooth_slope_is_shared_by_the_rows():
    """Of `always` it is a softmin: of equal rows each has one share; of the exact one a row has all."""
    still = jnp.ones((1, T, 1))
    slope = jax.jit(jax.grad(lambda x: robustness(always(above(entry(0), 0.0)), x, tau=TAU).sum()))(still)
    np.testing.assert_allclose(slope, 1 / T, rtol=1e-4)
    at_centre = jax.grad(lambda x: robustness(eventually(inside(disc((1.0, 1.0), 0.5))), x).sum())
    assert np.isfinite(at_centre(jnp.ones((1, 1, 2)))).all()


def test_what_is_not_there_is_named():
    rows, moves = jnp.zeros((2, T, 4)), jnp.zeros((2, 0, 3))
    cases = (
        (
            always(inside(disc((0.0, 0.0), 1.0, (3, 4)))),
            "entry 3, 4 of observations, which have the entries 0 to 3",
        ),
        (always(below(effort(), 0.5)), "judges actions, and what it is shown holds states alone"),
        (always(lambda o, a: jnp.sum(o, axis=(1, 2))), "has the shape"),
    )
    for formula, line in cases:
        with pytest.raises(UserError, match=line):
            robustness(formula, rows, moves)
    for wrong, line in ((lambda: always(A, 5, 2), "window from step 5 to 2"), (lambda: A & 3, "no formula")):
        with pytest.raises(UserError, match=line):
            wrong()
    with pytest.raises(UserError, match="2 numbers"):
        disc((0.0, 0.0), 1.0, (0, 1, 2))


STEPS, SPREAD = 32, 0.7
TIME = np.arange(1, STEPS + 1) / (STEPS + 1)
BRIDGE = SPREAD**2 * (np.minimum(TIME[:, None], TIME[None]) - TIME[:, None] * TIME[None])


def _ways(along, across, x, sigma):
    return jnp.stack([along(x[..., 0], sigma), across(x[..., 1], sigma)], axis=-1)


def jerk(x):
    return np.sqrt(np.mean(np.square(np.diff(x, n=3, axis=1))))


def test_a_bridge_keeps_a_rule_that_its_prior_breaks():
    """Around a disc, and by way of another, from (-1, 0) to (1, 0): kept by .07 of the ways, guided by all.

    They stay as rough as the prior's. A weak tilt is the one it says it is: `p exp(-strength * cost)` has the
    share that weighted draws of the prior have, up to what the gradient at the denoised point overshoots.
    """
    sigmas, strengths = karras(20, 0.002, 20.0), jnp.array([0.0, 1.0, 30.0])
    prior = bind(
        _ways, exact.correlated_gaussian(2 * TIME - 1, BRIDGE), exact.correlated_gaussian(0 * TIME, BRIDGE)
    )
    rule = always(outside(disc((0.0, 0.0), 0.3))) & eventually(inside(disc((0.0, 0.6), 0.2)))
    x = sigmas[0] * jax.random.normal(jax.random.key(0), (256, STEPS, 2))

    @jax.jit
    def drawn(strength):
        return euler(logic_guided(prior, rule, strength, margin=0.1, tau=30.0), x, sigmas)

    ways = [np.asarray(drawn(strength)) for strength in strengths]
    kept = [np.asarray(judged(rule, way)) > 0 for way in ways]
    assert kept[0].mean() < 0.1 and kept[2].mean() > 0.98
    assert jerk(ways[2]) / jerk(ways[0]) == pytest.approx(1.0, abs=0.02)

    rng, root = np.random.default_rng(0), np.linalg.cholesky(BRIDGE + 1e-9 * np.eye(STEPS))
    own = np.einsum("tk,bkd->btd", root, rng.normal(size=(20_000, STEPS, 2))).astype(np.float32)
    own[..., 0] += 2 * TIME - 1
    weight = np.exp(-np.maximum(0.1 - np.asarray(judged(rule, own, tau=30.0)), 0))
    expected = np.average(np.asarray(judged(rule, own)) > 0, weights=weight)
    assert kept[1].mean() == pytest.approx(expected, abs=0.05)
