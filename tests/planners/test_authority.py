"""Subgoals that can be reached, who has the last word, and planning anew on arrival."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdp import UserError
from jdp.planners import authority
from jdp.planners.following import Planned, Planner, follow, played
from jdp.tasks.scenes.point import pushed
from jdp.types import Plan

STEPS = 8


def test_a_subgoal_in_reach_stays_and_another_moves_to_the_rim():
    rng = np.random.default_rng(0)
    here, subgoal = rng.normal(size=(2, 50, 3)).astype(np.float32) / 2
    found = authority.within_ball(here, subgoal, 1.0)
    far = np.linalg.norm(subgoal - here, axis=1)
    inside = far <= 1
    assert 10 < inside.sum() < 40
    np.testing.assert_allclose(found[inside], subgoal[inside], atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(found - here, axis=1)[~inside], 1, rtol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(found - subgoal, axis=1)[~inside], far[~inside] - 1, atol=1e-5)
    chain = authority.in_turn(here, jnp.stack([subgoal, 3 * subgoal, here], axis=1), 0.5)
    steps = np.diff(np.concatenate([here[:, None], chain], axis=1), axis=1)
    assert np.linalg.norm(steps, axis=-1).max() < 0.5 + 1e-5


def point(state, action):
    return pushed(*state, action)


@jax.jit
def reached(position, velocity, subgoal):
    """Where a point gets by the best constant pushes towards the projected subgoal, and that subgoal."""
    low, high = authority.reachable_box(point, (position, velocity), 2, STEPS)
    target = jnp.clip(subgoal, low[0], high[0])

    def end(push):
        return jax.lax.fori_loop(0, STEPS, lambda _, state: point(state, push), (position, velocity))[0]

    def halve(_, bounds):
        least, most = bounds
        middle = (least + most) / 2
        short = end(middle) < target
        return jnp.where(short, middle, least), jnp.where(short, most, middle)

    bounds = jax.lax.fori_loop(0, 30, halve, (-jnp.ones(2), jnp.ones(2)))
    return end(sum(bounds) / 2), target, low[0], high[0]


def test_every_projected_subgoal_is_reached_by_a_pushed_point():
    rng = np.random.default_rng(0)
    position, velocity = rng.uniform(-1, 1, (2, 40, 2)).astype(np.float32)
    subgoal = 2 * rng.normal(size=(40, 2)).astype(np.float32)
    end, target, low, high = jax.vmap(reached)(position, velocity, subgoal)
    np.testing.assert_allclose(end, target, atol=1e-4)
    outside = (subgoal < low) | (subgoal > high)
    assert 0.3 < outside.mean() < 0.99 and np.all(np.where(outside, target != subgoal, target == subgoal))


def test_a_plan_gives_way_where_it_does_not_hold_or_is_worth_less():
    plan, fallback = {"x": jnp.ones((4, 2))}, {"x": jnp.zeros((4, 2))}
    found, planned = authority.arbitrate(
        plan,
        fallback,
        feasible=jnp.array([True, False, True, True]),
        value=jnp.array([1.0, 9.0, 0.0, jnp.nan]),
        fallback_value=jnp.array([1.0, 0.0, 0.5, 0.0]),
    )
    np.testing.assert_array_equal(planned, [True, False, False, False])
    np.testing.assert_array_equal(found["x"][:, 0], planned)


class State(NamedTuple):
    scale: Any = None


def straight(key, state, memory, context):
    """A subgoal 3 m on, and steps of 1 m; those of the second row are of 1.5 m."""
    here = context.observation
    pace = jnp.array([1.0, 1.5])[:, None, None]
    action = jnp.broadcast_to(pace, (2, 10, 1))
    subgoal = jnp.stack([here, here + 3], axis=1)
    return Planned(memory, Plan(jnp.zeros((2, 1, 1)), action, jnp.zeros(2), subgoal))


def decisions(policy, steps=12):
    observation, found = jnp.zeros((2, 1)), []
    carry, act = policy.init(observation), jax.jit(policy.act)
    for _ in range(steps):
        carry, decision = act(jax.random.key(0), State(), carry, observation, jnp.zeros((2, 0)))
        observation = observation + decision.action
        found.append(np.asarray(decision.decided))
    return np.stack(found, axis=1)


def test_plans_end_where_their_subgoal_is_reached():
    planner = Planner((1, 1), (1, 10, 2), 1, straight, played, every=10)
    by_clock = decisions(follow(planner))
    assert [np.flatnonzero(row).tolist() for row in by_clock] == [[0, 10], [0, 10]]
    arrived = decisions(authority.on_arrival(follow(planner), (0,), 0.1))
    assert [np.flatnonzero(row).tolist() for row in arrived] == [[0, 3, 6, 9], [0, 2, 4, 6, 8, 10]]
    with pytest.raises(UserError, match="row 2"):
        decisions(authority.on_arrival(follow(planner), (0,), 0.1, subgoal=2), steps=1)
