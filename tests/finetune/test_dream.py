"""Dreams: a world model as a task, its penalty, and what is learned in it without the environment."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdp.errors import UserError
from jdp.finetune.dream import DreamConfig, World, doubt, dream
from jdp.types import Normal, Spec, WorldModel
from jdp.world_models.history import present

KEY = jax.random.key(0)
SPEC = Spec(2, 1, "line", 50)


def _after(state, observation, action):
    """Position and velocity `[..., 2]` after a push, and the reward: minus the square of the position."""
    following = observation @ state["a"].T + action @ state["b"].T
    return following, -jnp.square(following[..., 0])


def _step(key, state, carry, action):
    following, reward = _after(state, carry, action)
    return following, following, reward, (following[:, 0] > 5).astype(jnp.float32)


def _predict(state, observation, action):
    """Members that are `state["apart"]` `[E, 3]` from what happens."""
    following, reward = _after(state, observation, action)
    mean = jnp.concatenate([following, reward[:, None]], axis=1)[None] + state["apart"][:, None]
    return Normal(mean, jnp.ones_like(mean))


LINEAR = WorldModel(None, present, _step, 1, _predict)  # type: ignore[arg-type]  (given, not learned)
STATE = {
    "a": jnp.array([[1.0, 0.2], [0.0, 1.0]]),
    "b": jnp.array([[0.02], [0.2]]),
    "apart": jnp.zeros((3, 3)),
}


def world(state=STATE, starts=7):
    """Episodes begin at whole positions."""
    observations = jnp.stack([jnp.arange(starts, dtype=jnp.float32) - 3, jnp.ones(starts)], axis=1)[:, None]
    return World(
        state, observations, jnp.zeros((starts, 0, 1)), jnp.array([1, 2, 4.0]), jnp.array([-10.0, 0])
    )


@jax.jit
def played(at, actions):
    """What the linear model's dream shows under `actions` `[T, 1]`."""
    task = dream(LINEAR, at, DreamConfig(), SPEC).make(at)
    begun, _, _ = task.reset(KEY)
    return begun, jax.lax.scan(lambda s, a: task.step(KEY, s, a), begun, actions)[1]


def test_a_dream_of_a_linear_model_is_its_closed_form():
    actions = jnp.linspace(-1, 1, 20)[:, None]
    (_, first), found = played(world(), actions)
    assert float(first[0]) in range(-3, 4) and first[1] == 1
    x, expected = np.asarray(first), []
    for a in np.asarray(actions):
        x = np.asarray(STATE["a"]) @ x + np.asarray(STATE["b"]) @ a
        expected.append(x)
    expected = np.array(expected)
    np.testing.assert_allclose(found.observation, expected, rtol=1e-5, atol=1e-5)
    rewards = np.clip(-(expected[:, 0] ** 2), -10, 0)
    np.testing.assert_allclose(found.reward, rewards, rtol=1e-4, atol=1e-5)  # members agree: nothing is lost
    np.testing.assert_array_equal(found.terminal, expected[:, 0] > 5)
    assert not found.success.any()


def test_the_penalty_is_the_largest_distance_between_two_members_in_units_of_the_data():
    apart = jnp.array([[0.0, 0, 0], [3, 0, 0], [0, 0, 16]])
    unsure = world(STATE | {"apart": apart})
    x, a = jnp.zeros((5, 2)), jnp.zeros((5, 1))
    np.testing.assert_allclose(doubt(unsure, x, a, model=LINEAR), 5)  # the 3, 4, 5 of units [1, 2, 4]
    np.testing.assert_array_equal(doubt(world(), x, a, model=LINEAR), 0)
    actions = jnp.zeros((20, 1))
    (_, sure), (_, less) = played(world(), actions), played(unsure, actions)
    np.testing.assert_allclose(sure.reward - less.reward, 5, rtol=1e-5)


def test_what_is_not_finite_ends_the_dream_with_the_least_reward():
    broken = STATE | {"b": jnp.array([[jnp.inf], [0.0]])}
    (_, first), found = played(world(broken), jnp.ones((20, 1)))
    assert found.terminal[0] and found.reward[0] == -10
    np.testing.assert_array_equal(found.observation[0], first)


def test_dreams_that_cannot_be_are_refused():
    at = world()
    for config, spec, model, execute, message in [
        (DreamConfig(), replace(SPEC, goal=(0,)), LINEAR, 1, "line has goals"),
        (DreamConfig(horizon=7), SPEC, LINEAR, 8, "give --settings.dream.horizon 8 or more"),
        (DreamConfig(), SPEC, LINEAR._replace(predict=None), 1, "--settings.dream.penalty 0"),
    ]:
        with pytest.raises(UserError, match=message):
            dream(model, at, config, spec, execute=execute)
    with pytest.raises(UserError, match="horizon is 0"):
        DreamConfig(horizon=0)
    quiet = dream(LINEAR._replace(predict=None), at, DreamConfig(penalty=0), SPEC)
    assert (
        quiet.make == dream(LINEAR._replace(predict=None), world(starts=3), DreamConfig(penalty=0), SPEC).make
    )
