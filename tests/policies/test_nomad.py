"""A hidden goal says nothing; a shown one decides; what is trained does both."""

from dataclasses import replace

import jax
import numpy as np
import pytest
from policy_batches import GOALS, MODE, SHARE, TINY, actions_of, bandit, programs, segments, shaken, trained

from jdp.policies import make
from jdp.policies.nomad import distance, encoded

CONFIG = TINY["nomad"]


def test_a_hidden_goal_changes_no_bit():
    params = shaken(programs("nomad").state.actor.params)
    rng = np.random.default_rng(0)
    seen = rng.normal(size=(4, CONFIG.history * 3 + 2)).astype(np.float32)
    other = seen.copy()
    other[:, -2:] += rng.normal(size=(4, 2))
    present = np.array([True, False, True, False])
    context = jax.jit(lambda seen: encoded(params, seen, present, CONFIG, GOALS))
    found = np.asarray(context(seen)), np.asarray(context(other))
    np.testing.assert_array_equal(found[0][~present], found[1][~present])
    assert np.abs(found[0] - found[1])[present].max(axis=1).min() > 1e-2


def test_exploring_is_the_policy_without_its_goal():
    method, state, _, act = programs("nomad")
    state = state._replace(actor=state.actor._replace(ema=shaken(state.actor.ema)))
    assert method.behaviour == make(replace(CONFIG, explore=True), GOALS).policy
    rng, key = np.random.default_rng(1), jax.random.key(3)
    observation, goals = rng.normal(size=(8, 3)).astype(np.float32), rng.normal(size=(2, 8, 2))
    explore, carry = jax.jit(method.behaviour.act), method.policy.init(observation)
    for policy, same in ((act, False), (explore, True)):
        a, b = (policy(key, state, carry, observation, g.astype(np.float32))[1].action for g in goals)
        assert np.array_equal(a, b) == same


def test_hidden_goals_teach_no_distance():
    method, state, shared, _ = programs("nomad")
    hidden = make(replace(CONFIG, goal_mask=1.0), GOALS).learner.update
    batch, before = segments(3, method.learner.draws.offsets), state.actor.params["distance"]
    for update, learns in ((shared, True), (jax.jit(hidden), False)):
        after = update(jax.random.key(0), state, batch)[0].actor.params["distance"]
        pairs = zip(*map(jax.tree.leaves, (before, after)), strict=True)
        assert [not np.array_equal(*pair) for pair in pairs] == 2 * [learns]


@pytest.mark.slow
def test_one_network_goes_to_its_goal_and_explores():
    state = trained("nomad", 800, told=True)
    for goal in (1.0, -1.0):
        found = actions_of(programs("nomad").method, state, goal)
        assert (np.sign(found) == goal).mean() > 0.95 and np.median(found) == pytest.approx(
            MODE * goal, abs=0.1
        )
    free = actions_of(make(replace(CONFIG, explore=True), GOALS), state, 1.0)
    assert (free > 0).mean() == pytest.approx(SHARE, abs=0.1)  # the share of the data
    batch = bandit(9, (0,), told=True)
    steps = distance(
        state, batch.observation.repeat(CONFIG.history, 1), batch.goal, config=CONFIG, spec=GOALS
    )
    assert np.abs(np.asarray(steps) - batch.distance).mean() < 0.2
