"""A reward as a guide, and as the judge of episodes: closed forms and a numpy reference."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jdp
from jdp.alignment.playing import ROWS, executed, reward_guide
from jdp.alignment.rewards import Avoid, valued
from jdp.types import Context, Spec, bind

SPEC = Spec(observation_dim=2, action_dim=1, env_id="a plane", goal=(0, 1))


def towards(observation, action, goal):
    """Linear in plans, and of the goal: its first entry says which way."""
    del action
    return goal[:, 0] * jnp.sum(observation[..., 0], axis=1)


class Twice:
    """Coordinates: the task's unit is twice the model's, and plans hold states alone."""

    sigma_data = 1.0

    def rows(self, x, present):
        del present
        return 2 * x, jnp.zeros((len(x), 0, 1))


jax.tree_util.register_pytree_node(Twice, lambda _: ((), None), lambda *_: Twice())


def test_a_guide_of_a_linear_reward_moves_a_plan_by_its_closed_form():
    """At level s a clean plan of N(0, 1) has the variance s^2 / (1 + s^2), and moves it times the slope."""
    sigma, strength = jnp.array([0.5, 2.0]), 3.0
    x, goal = jnp.ones((2, 4, 2)), jnp.array([[1.0, 0.0], [-2.0, 0.0]])
    plain = bind(lambda x, sigma: x / (1 + sigma[:, None, None] ** 2))
    context = Context(Twice(), x[:, 0], goal, jnp.zeros(2, jnp.int32), x[:, :1])
    steered = reward_guide(towards, strength)(context)(plain)
    moved = steered(x, sigma) - plain(x, sigma)
    variance = sigma**2 / (1 + sigma**2)
    expected = strength * variance * 2 * goal[:, 0]
    np.testing.assert_allclose(moved[..., 0], np.repeat(expected[:, None], 4, axis=1), rtol=1e-5)
    np.testing.assert_allclose(moved[..., 1], 0, atol=1e-6)
    assert reward_guide(Avoid(), 1.0) == reward_guide(Avoid(), 1.0)  # so nothing compiles twice


def test_a_reward_of_arrays_cannot_guide():
    with pytest.raises(jdp.UserError, match="this reward holds arrays"):
        reward_guide(valued(lambda observation, action: action[:, 0]), 1.0)


def test_what_was_done_is_judged_until_it_arrives():
    """Two straight walks: one passes its goal at a third of the way, one ends before the batch does."""
    steps = np.arange(31, dtype=np.float32)
    walk = np.stack([steps, np.zeros(31, np.float32)], axis=1)
    observation = np.stack([walk, np.where(steps[:, None] > 12, np.nan, walk)], axis=1)
    goal = np.array([[10.0, 0.3], [50.0, 0.0]], np.float32)
    seen = {}

    def last(observation, action, goal):
        seen["shape"] = (observation.shape, action.shape, goal.shape)
        return observation[:, -1, 0]

    found = executed(last, observation, np.array([30, 12]), goal, SPEC)
    np.testing.assert_array_equal(found, [10, 12])
    assert seen["shape"] == ((2, ROWS, 2), (2, 0, 1), (2, 2))
    inside = executed(Avoid(centre=(5.0, 0.0), radius=2.0), observation, np.array([30, 12]), goal, SPEC)
    np.testing.assert_allclose(inside, -1, atol=1e-6)
