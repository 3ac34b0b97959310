"""Rounds of self-improvement on a planner made by hand: what is imagined, kept, mixed and learned."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hand_made import CONSTANT, bits
from test_train import DATA

from jdp.data import Hindsight, SegmentDraw, prepared
from jdp.errors import UserError
from jdp.loops import Memory, improve
from jdp.loops.self_improvement import Imagination, mixed, plans_that_pass
from jdp.types import Learner, Method, Segments

KEY, L = jax.random.key(1), 3
DRAW = SegmentDraw((0, 1, 2), hindsight=Hindsight())


def _init(key, rows):
    return jnp.zeros(())


def _update(key, state, batch):
    return state + jnp.mean(batch.reward), {"loss": jnp.mean(batch.reward)}


def _imagine(key, state, observation, goal):
    """Plans of reward 1000 that pass where they begin on the right; none does once the state is over 1e6."""
    count = observation.shape[0]
    ones = jnp.ones((count, L))
    segments = Segments(
        jnp.repeat(observation[:, None], L, axis=1), ones[..., None], 1000 * ones, 0 * ones,
        ones, goal, jnp.full(count, L - 1, jnp.int32),
    )  # fmt: skip
    return segments, (observation[:, 0] > 0) & (state < 1e6)


METHOD = Method(Learner(_init, _update, DRAW), CONSTANT, imagine=_imagine)
ROWS = prepared(DRAW, DATA)
SETTINGS = Imagination(plans=40, share=0.25)


def improved(states=None, journal=None, rounds=2):
    states = jnp.zeros(2) if states is None else states
    return improve(
        METHOD, states, ROWS, DATA, SETTINGS,
        key=KEY, seeds=2, rounds=rounds, updates=6, batch_size=16, journal=journal,
    )  # fmt: skip


def test_batches_are_mixed_by_the_share():
    plans = plans_that_pass(_imagine, jnp.zeros(2), DATA, 40, KEY, 2)
    assert plans.reward.shape == (2, 40 * L)  # as many rows whatever passed
    assert (plans.observation[..., 0] > 0).all()
    batch = jax.jit(mixed(DRAW, 16, 0.25, 2))(KEY, (jax.tree.map(jnp.asarray, ROWS), plans))
    np.testing.assert_array_equal((np.asarray(batch.reward) == 1000).all(axis=2).sum(axis=1), [4, 4])
    assert (np.asarray(batch.reward)[:, -4:] == 1000).all()  # plans last


def test_rounds_have_phases_of_their_own_and_equal_keys_equal_bits():
    journal = Memory()
    found = improved(journal=journal)
    assert [r["phase"] for r in journal.records()] == ["round_1", "round_2"]
    np.testing.assert_allclose(found, 12 * 250, rtol=0.1)
    assert bits(improved()) == bits(found)


def test_a_round_without_a_plan_ends_the_rounds_and_keeps_what_was_trained():
    told = []
    found = improved(jnp.full(2, 2e6), Memory(note=told.append))
    np.testing.assert_array_equal(found, 2e6)
    assert len(told) == 1 and told[0].startswith("round 1: none of 40 plans passed")


def test_a_method_that_imagines_nothing_is_refused():
    with pytest.raises(UserError, match="imagines"):
        improve(
            METHOD._replace(imagine=None), jnp.zeros(2), ROWS, DATA, SETTINGS,
            key=KEY, seeds=2, rounds=1, updates=1, batch_size=4,
        )  # fmt: skip
