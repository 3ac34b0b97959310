"""Filters have the last word on actions, see what guides see, and tell what they could not keep."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdp.errors import UserError
from jdp.learning.filters import filtered, keep_apart, keep_out, within
from jdp.loops.recorder import Recorder
from jdp.tasks.simulators import simulator
from jdp.types import Decision, Policy, Spec

SPEC = Spec(4, 2, goal=(0, 1))
KEY = jax.random.key(0)


def _begin(observation):
    return jnp.zeros(observation.shape[0], jnp.int32)


def _act(key, state, carry, observation, goal):
    """Pushes at the goal, and remembers how often."""
    wish = jnp.clip(state * (goal - observation[:, :2]), -1, 1)
    return carry + 1, Decision(wish, carry % 3 == 0, value=carry.astype(jnp.float32))


POLICY = Policy(_begin, _act)
SEEN, GOAL = (jax.random.normal(k, s) for k, s in zip(jax.random.split(KEY), [(5, 4), (5, 2)], strict=True))


def same(context, action):
    return action


@dataclass(frozen=True)
class Delayed:
    """Acts by what was seen two steps ago, and how long ago the episode began."""

    history: int = 3

    def __call__(self, context, action):
        assert context.scale.action(action) is not None
        return context.history[:, 0, :2], context.elapsed.astype(jnp.float32)


def test_a_filter_that_changes_nothing_leaves_every_bit():
    policy, own = filtered(POLICY, same, SPEC), POLICY.init(SEEN)
    carry = policy.init(SEEN)
    for _ in range(4):
        carry, found = jax.jit(policy.act)(KEY, 2.0, carry, SEEN, GOAL)
        own, expected = jax.jit(POLICY.act)(KEY, 2.0, own, SEEN, GOAL)
        np.testing.assert_array_equal(found.intended, expected.action)
        assert found.violation is None
        jax.tree.map(np.testing.assert_array_equal, found._replace(intended=None), expected)
        np.testing.assert_array_equal(carry.own, own)


def test_a_filter_sees_the_past_as_guides_do_and_rows_begin_anew():
    policy = filtered(POLICY, Delayed(), SPEC)
    act, carry = jax.jit(policy.act), policy.init(SEEN)
    rows = [SEEN + i for i in range(4)]
    for i, seen in enumerate(rows):
        carry, found = act(KEY, 1.0, carry, seen, GOAL)
        np.testing.assert_array_equal(found.action, rows[max(i - 2, 0)][:, :2])
        np.testing.assert_array_equal(found.violation, i)
    again = jax.tree.map(lambda old, new: old.at[1].set(new[1]), carry, policy.init(SEEN))
    _, found = act(KEY, 1.0, again, SEEN, GOAL)
    np.testing.assert_array_equal(found.violation, [4, 0, 4, 4, 4])
    np.testing.assert_array_equal(found.action[1], SEEN[1, :2])
    assert act._cache_size() == 1


def test_equal_filters_are_one_program():
    first, second = (filtered(POLICY, keep_out((0.0, 0.0, 0.5), eta=3.0), SPEC) for _ in range(2))
    assert first == second and hash(first.act) == hash(second.act)
    assert first != filtered(POLICY, keep_out((0.0, 0.0, 0.5), eta=4.0), SPEC)


def test_a_ball_is_kept_out_of_discs_in_a_maze():
    """Whatever it wants: 64 balls of an open maze that push to goals on the other side."""
    task = simulator("PointMaze_Open-v3")
    discs = ((0.5, 0.0, 0.6), (-0.8, 0.5, 0.4))
    policy = filtered(POLICY, keep_out(*discs), task.spec)
    state, seen, _ = jax.vmap(task.reset)(jax.random.split(KEY, 128))
    centres, radii = jnp.array(discs)[:, :2], jnp.array(discs)[:, 2]

    def clearance(seen):
        away = jnp.linalg.norm(seen[:, None, :2] - centres[None], axis=-1)
        return jnp.min(away - radii[None], -1)

    def step(carry, key):
        state, memory, seen = carry
        memory, found = policy.act(key, 3.0, memory, seen, goal)
        state, after = jax.vmap(task.step)(jax.random.split(key, len(seen)), state, found.action)
        changed = (found.action != found.intended).any(-1)
        return (state, memory, after.observation), (clearance(after.observation), changed, found.violation)

    outside = np.flatnonzero(clearance(seen) > 0.05)[:64]
    state, seen = jax.tree.map(lambda x: x[outside], (state, seen))
    goal = -seen[:, :2]
    run = jax.jit(lambda *begun: jax.lax.scan(step, begun, jax.random.split(KEY, 250))[1])
    away, changed, violation = run(state, policy.init(seen), seen)
    assert away.min() >= 0 and violation.max() == 0
    assert away.min(0).min() < 0.05 and 0.02 < changed.mean() < 0.9
    assert (changed.any(0)).mean() > 0.3


def _inside(seen):
    return 1.0 - seen[0]


def _drift(seen):
    return jnp.concatenate([jnp.zeros(2), jnp.zeros(2)])


def _push(seen):
    return jnp.concatenate([jnp.eye(2), jnp.zeros((2, 2))])


def test_any_function_of_what_is_observed_can_be_kept():
    """`dh/dt = -u_0 >= -eta h`, here of a point whose velocity is the action."""
    policy = filtered(POLICY, within(_inside, drift=_drift, push=_push, eta=0.5), SPEC)
    seen = jnp.array([[0.0, 0.0, 0, 0], [0.8, 0.0, 0, 0], [1.0, 0.0, 0, 0], [4.0, 0.0, 0, 0]])
    goal = jnp.full((4, 2), 9.0)
    _, found = jax.jit(policy.act)(KEY, 1.0, policy.init(seen), seen, goal)
    np.testing.assert_allclose(found.action[:, 0], [0.5, 0.1, 0.0, -1.0], atol=1e-6)
    np.testing.assert_array_equal(found.action[:, 1], 1)
    np.testing.assert_allclose(found.violation, [0, 0, 0, 0.5], atol=1e-6)


def test_what_a_filter_did_is_counted_over_the_steps_that_are_played():
    record = Recorder(0)
    assert record.told() == {}
    wish = np.array([[2.0, 0.0], [0.5, 0.0], [0.5, 0.0]])
    done = np.array([[1.0, 0.0], [0.2, 0.0], [0.0, 0.0]])
    decided, none = np.ones(3, bool), np.zeros((3, 4))
    for violation, running in ((None, [True, True, False]), (np.array([0.0, 0.3, 9.0]), [True, True, False])):
        found = Decision(
            jnp.asarray(done),
            jnp.asarray(decided),
            intended=jnp.asarray(wish),
            violation=None if violation is None else jnp.asarray(violation),
        )
        record(0, found, none, np.array(running))
    told = record.told()["filter"]
    assert told == {"steps": 4, "changed": 0.5, "broken": 0.25, "worst": pytest.approx(0.3)}


@dataclass
class Unhashable:
    def __call__(self, context, action):
        return action


def test_mistakes_get_one_line():
    with pytest.raises(UserError, match="a filter must be hashable"):
        filtered(POLICY, Unhashable(), SPEC)
    wrong = filtered(POLICY, _one, SPEC)
    with pytest.raises(UserError, match=r"the filter _one gives actions of shape \(5,\), where .* \(5, 2\)"):
        wrong.act(KEY, 1.0, wrong.init(SEEN), SEEN, GOAL)
    with pytest.raises(UserError, match="no disc"):
        keep_out()
    with pytest.raises(UserError, match=r"keep_out\.radius is -1"):
        keep_out((0.0, 0.0, -1.0))
    with pytest.raises(UserError, match=r"keep_out\.brake is 99"):
        keep_out((0.0, 0.0, 1.0), brake=99.0)
    with pytest.raises(UserError, match=r"keep_apart\.eta is -1"):
        keep_apart(eta=-1.0)
    with pytest.raises(UserError, match="no barrier"):
        within(drift=_drift, push=_push)


def _one(context, action):
    return action[:, 0]
