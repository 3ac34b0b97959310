"""A user's rule by its name in a file: what it may be, what is said of a wrong one, and how it steers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdp.data import SegmentRows
from jdp.diffusion import exact
from jdp.diffusion.guidance.logic import (
    above,
    always,
    below,
    disc,
    effort,
    entry,
    eventually,
    inside,
)
from jdp.errors import UserError
from jdp.learning import rules
from jdp.learning.guides import logic_guide
from jdp.learning.scale import ActionScale, Affine, Scale
from jdp.types import Context

ONE = Affine(jnp.zeros(2), jnp.ones(2))
SCALE = Scale(ONE, Affine(jnp.zeros(1), jnp.ones(1)), Affine(jnp.zeros(1), jnp.ones(1)))
THERE = eventually(inside(disc((2.0, 0.0), 0.5)))
FILE = """
import jax.numpy as jnp
from jdp.diffusion.guidance.logic import always, disc, effort, inside, outside, below, predicate
from jdp.planners import cost_guide

keep_out = always(outside(disc((1.5, 0.0), 0.5)))
far = always(inside(disc((0.0, 0.0), 1.0, (7, 8))))
gentle = always(below(effort(), 0.5))
arrays = always(outside(disc(jnp.zeros(2), 0.5)))
beyond = always(lambda observation, action: observation[..., 7])
number = 3

def near(observation, action):
    return jnp.sum(jnp.square(observation[..., :2]), axis=(1, 2))

def steps(observation, action):
    return jnp.sum(jnp.floor(10 * observation[..., 0]), axis=1)

def counts(observation, action):
    return jnp.sum(observation[..., 0] > 0, axis=1)

def rows(observation, action):
    return observation[..., 0]

def missing(observation, action):
    return observation[:, :, 9].sum(1)

def root(observation, action):
    return jnp.sqrt(jnp.sum(jnp.square(0 * observation), axis=(1, 2)))

def infinite(observation, action):
    return jnp.sum(1 / (0 * observation[..., 0]), axis=1)

def broken(observation, action):
    return undefined(observation)

def own(context):
    return lambda denoiser: denoiser

made = cost_guide(near, 0.2)

def three(a, b, c):
    return a
"""


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("mine") / "rules.py"
    path.write_text(FILE)
    return str(path)


def context(history):
    observation = history[:, -1]
    none = jnp.zeros((observation.shape[0], 0))
    return Context(SCALE, observation, none, jnp.zeros(observation.shape[0], jnp.int32), history)


def steered(guide, x, *, history=None, spread=1.0, at=1.0):
    history = jnp.zeros((x.shape[0], 1, 2)) if history is None else history
    level = jnp.full(x.shape[0], at)
    return jax.jit(lambda x, past: guide(context(past))(exact.gaussian(0.0, spread))(x, level))(x, history)


def test_a_name_is_a_formula_a_cost_or_a_guide(file):
    x = jax.random.normal(jax.random.key(0), (4, 6, 2))
    found = {name: rules.rule(f"{file}:{name}") for name in ("keep_out", "near", "own", "made")}
    assert [(f.formula is not None, f.cost is not None) for f in found.values()] == [
        (True, False), (False, True), (False, False), (False, False),
    ]  # fmt: skip
    assert rules.rule(f"{file}:near", 2.0).guide != found["near"].guide
    plain = np.asarray(steered(found["own"].guide, x))
    near = rules.rule(f"{file}:near", 0.2)
    np.testing.assert_array_equal(steered(near.guide, x), steered(found["made"].guide, x))
    assert np.linalg.norm(steered(near.guide, x)) < np.linalg.norm(plain)
    zero = rules.rule(f"{file}:keep_out", 0.0)
    np.testing.assert_array_equal(steered(zero.guide, x), plain)


def test_a_cost_that_is_linear_moves_plans_by_the_covariance():
    """`margin` above all: of `N(0, s^2)` entries the shift is `strength * s^2 sigma^2 / (s^2 + sigma^2)`."""
    x = jnp.zeros((2, 3, 2))
    for covariance, spread in (("jacobian", 0.5), ("isotropic", 1.0)):
        guide = logic_guide(eventually(above(entry(0), 0.0), 0, 0), 2.0, margin=9.0, covariance=covariance)
        found = np.asarray(steered(guide, x, spread=spread, at=2.0))
        variance = spread**2 * 4 / (spread**2 + 4)
        np.testing.assert_allclose(found[:, 0, 0], 2 * variance, rtol=1e-5)
        np.testing.assert_array_equal(found[:, 1:], 0)


def test_what_was_visited_before_the_plan_counts():
    """With a history: a plan that need not go there again is left as it is, bit for bit."""
    x = jax.random.normal(jax.random.key(1), (2, 5, 2)) * jnp.array([0.1, 0.1])[None, None]
    visited = jnp.zeros((2, 7, 2)).at[0, 2].set(jnp.array([2.0, 0.0]))  # 4 steps ago, by the first row alone
    plain = np.asarray(steered(logic_guide(THERE, 0.0), x))
    found = np.asarray(steered(logic_guide(THERE, 2.0, stride=2), x, history=visited))
    np.testing.assert_array_equal(found[0], plain[0])
    assert np.abs(found[1] - plain[1]).max() > 0.1
    early = np.asarray(steered(logic_guide(THERE, 2.0, stride=3), x, history=visited))
    assert np.abs(early[0] - plain[0]).max() > 0.1  # every third step back is 3 and 6 steps ago


def test_what_was_done_is_judged_exactly():
    """Of episodes of several lengths, whose last row is repeated."""
    path = np.zeros((9, 2, 2), np.float32)
    path[4, 0] = (2.2, 0.0)
    done = np.ones((8, 2, 1), np.float32)
    np.testing.assert_allclose(rules.kept(THERE, path, done), [0.3, -1.5], atol=1e-5)
    early = eventually(inside(disc((2.0, 0.0), 0.5)), 0, 3)
    np.testing.assert_allclose(rules.kept(early, path, done), [-1.5, -1.5], atol=1e-5)
    np.testing.assert_allclose(rules.kept(always(above(effort(), 0.4)), path, done), 0.6, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("nowhere", "there is no nowhere in .*rules.py, but keep_out, far"),
        ("number", "is no rule: give a formula"),
        ("three", "is no rule: give a formula"),
        ("arrays", "must be hashable"),
    ],
)
def test_what_is_no_rule_is_refused(file, name, line):
    with pytest.raises(UserError, match=line):
        rules.rule(f"{file}:{name}")


@pytest.mark.parametrize(
    ("source", "more", "line"),
    [
        ("rules.py", {}, "say where it is and how it is called"),
        ("no_such_file.py:rule", {}, "there is no file no_such_file.py"),
        ("{}:own", {"strength": 2.0}, "with a strength of its own"),
        ("{}:near", {"margin": 0.1}, "is no formula, and --guide-margin"),
    ],
)
def test_wrong_words_are_refused(file, source, more, line):
    with pytest.raises(UserError, match=line):
        rules.rule(source.format(file), **more)


PLAN = jnp.stack([jnp.linspace(0.1, 3.0, 6), jnp.linspace(0.2, 1.0, 6)], axis=1)[None]


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("far", "names entry 7, 8 of observations, which have the entries 0 to 1"),
        ("gentle", "judges actions, and what it is shown holds states alone"),
        ("beyond", "for what they have not"),
        ("steps", "changes in steps, and has no gradient"),
        ("counts", "gives int32 numbers, which have no gradient"),
        ("missing", "for what they have not"),
        ("root", "gradient of its cost is not finite on the first plan"),
        ("infinite", "its cost of the first plan is inf"),
        ("broken", "cannot be computed .NameError: name 'undefined'"),
    ],
)
def test_a_first_plan_tells_what_is_wrong(file, name, line):
    with pytest.raises(UserError, match=line) as error:
        rules.check_rule(rules.rule(f"{file}:{name}"), PLAN, jnp.zeros((1, 0, 1)), drawn="observation")
    assert str(error.value).startswith(f"--guide {file}:{name}") and "\n" not in str(error.value)


def test_a_first_plan_lets_pass_what_is_right(file):
    for name in ("keep_out", "near", "own"):
        rules.check_rule(rules.rule(f"{file}:{name}"), PLAN, jnp.zeros((1, 0, 1)), drawn="observation")
    with pytest.raises(UserError, match="says nothing of what is drawn here, which is actions alone"):
        rules.check_rule(rules.rule(f"{file}:keep_out"), PLAN[:, :1], jnp.zeros((1, 3, 1)), drawn="action")
    rules.check_rule(rules.rule(f"{file}:gentle"), PLAN[:, :1], jnp.full((1, 3, 1), 0.2), drawn="action")


def test_one_number_a_plan_is_asked_for(file):
    with pytest.raises(UserError, match=r"of 4 plans has the shape \(4, 6\): give one number a plan"):
        steered(rules.rule(f"{file}:rows").guide, jnp.zeros((4, 6, 2)))


def test_a_policy_is_steered_by_what_it_draws():
    """Actions towards small ones; the present, which is given, moves by nothing."""
    scale = ActionScale(ONE, Affine(jnp.zeros(2), jnp.ones(2)), 0.5)
    observation = jnp.zeros((3, 2))
    own = Context(scale, observation, jnp.zeros((3, 0)), jnp.zeros(3, jnp.int32), observation[:, None])
    x = jnp.full((3, 4, 2), 2.0)
    guide = logic_guide(always(below(effort(), 0.3)), 1.0)
    found = jax.jit(lambda x: guide(own)(exact.gaussian(0.0, 0.5))(x, jnp.ones(3)))(x)
    plain = exact.gaussian(0.0, 0.5)(x, jnp.ones(3))
    assert np.linalg.norm(found) < np.linalg.norm(plain)
    np.testing.assert_allclose(found[..., 0], found[..., 1], rtol=1e-5)


def test_of_the_data_those_segments_stay_that_keep_a_rule_and_all_rows_for_statistics():
    """Two walks of 30 and 20 rows; windows of the rule are in steps, and its rows two apart."""
    x = np.random.default_rng(0).normal(size=(50, 2)).cumsum(0).astype(np.float32)
    starts = np.arange(50, dtype=np.int32)
    last, first = np.where(starts < 30, 29, 49), np.where(starts < 30, 0, 30)
    rows = SegmentRows(x, x[:, :1], *np.zeros((3, 50), np.float32), starts, last, first)
    rule = eventually(inside(disc((0.0, 0.0), 2.0)), 4, 8)
    found = rules.keeping(rows, rule, (0, 2, 4, 6, 8, 10))
    away = np.linalg.norm(x, axis=1)
    expected = [i for i in starts if away[np.minimum(i + np.array([4, 6, 8]), last[i])].min() <= 2.0]
    np.testing.assert_array_equal(found.starts, expected)
    np.testing.assert_array_equal(found.last, last[expected])
    assert 0 < len(expected) < 50 and found.observation is rows.observation
    with pytest.raises(UserError, match="none of 50 segments of the data keeps the rule"):
        rules.keeping(rows, always(inside(disc((0.0, 0.0), 1e-3))), (0, 2))
