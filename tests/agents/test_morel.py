"""MOReL's disagreement in closed form, and what happens at its threshold."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdp import UserError
from jdp.agents.morel import MOReLConfig, morel
from jdp.agents.pessimism import CHUNK, disagreement
from jdp.agents.sac import sac
from jdp.types import Learner, Normal, Spec, Transition, WorldModel
from jdp.world_models import REPLAY, HistoryDraw, rollout

SPEC = Spec(observation_dim=2, action_dim=1)
CONFIG = MOReLConfig(hidden=(4,), pessimism=2.0, halt_penalty=30.0)


def start(observations, actions):
    return observations[:, -1]


def step(key, state, carry, action):
    following = carry + action
    return following, following, jnp.ones(len(action)), jnp.zeros(len(action))


def predict(state, observation, action):
    """Three members that lie `state * |a| * (0, 1, 3)` from the observation; rewards differ much more."""
    offset = state * jnp.array([0.0, 1.0, 3.0])[:, None, None] * jnp.abs(action)[None]
    mean = jnp.stack([observation] * 3) + offset * jnp.array([1.0, 0.0])[None, None]
    mean = jnp.concatenate([mean, 1e3 * offset], axis=-1)
    return Normal(mean, jnp.ones_like(mean))


LEARNER = Learner(lambda k, t: jnp.float32(1), lambda k, s, b: (s + b, {}), HistoryDraw(2, 1))  # pyright: ignore[reportArgumentType]
MODEL = WorldModel(LEARNER, start, step, 1, predict)


def dataset(rows):
    action = jnp.linspace(-0.8, 0.6, rows)[:, None]
    far = 1e3 * (jnp.arange(rows) % 2).astype(jnp.float32)  # other inputs are far away, and say nothing
    return Transition(
        observation=jnp.stack([far, far], axis=1),
        action=action,
        reward=jnp.linspace(-4.0, 7.0, rows),
        next_observation=jnp.stack([far, far], axis=1),
        terminal=jnp.zeros(rows),
    )


@pytest.mark.parametrize("members", [1, 2, 3, 4, 5, 7])
def test_disagreement_is_over_all_pairs_at_one_input(members):
    mean = np.asarray(jax.random.normal(jax.random.key(members), (members, 6, 3)))
    expected = [
        max(np.linalg.norm(mean[i, b] - mean[j, b]) for i in range(members) for j in range(members))
        for b in range(6)
    ]
    np.testing.assert_allclose(disagreement(jnp.asarray(mean)), expected, rtol=1e-5)


@pytest.mark.parametrize("rows", [5, 2 * CHUNK + 1])
def test_calibration(rows):
    """The largest |a| of the dataset is .8, where the members are 3 * .8 * state apart."""
    state = morel(CONFIG, SPEC, MODEL).imagination.calibrate(
        jnp.float32(0.5), jax.tree.map(np.asarray, dataset(rows))
    )
    assert state.model == 0.5
    np.testing.assert_allclose(state.threshold, 3 * 0.8 * 0.5 / CONFIG.pessimism, rtol=1e-3)
    np.testing.assert_allclose(state.halt_reward, -4.0 - 30.0)


def test_calibration_of_several_models():
    states = jax.vmap(morel(CONFIG, SPEC, MODEL).imagination.calibrate, in_axes=(0, None))(
        jnp.array([0.5, 1.0]), dataset(5)
    )
    np.testing.assert_allclose(states.threshold, [0.6, 1.2], rtol=1e-3)


def test_an_unknown_step_ends_the_episode():
    """The threshold is at |a| = .4: the second row goes beyond it at its second step."""
    made = morel(CONFIG, SPEC, MODEL)
    state = made.imagination.calibrate(jnp.float32(1), dataset(5))
    actions = jnp.array([[[0.3], [-0.39], [0.1]], [[0.3], [-0.41], [0.1]]])
    found = rollout(
        jax.random.key(0),
        made.imagination.model,
        state,
        REPLAY,
        actions,
        jnp.zeros((2, 1, 2)),
        jnp.zeros((2, 0, 1)),
        length=3,
    )
    np.testing.assert_allclose(found.transitions.reward[0], 1)
    np.testing.assert_allclose(found.transitions.reward[1, :2], [1, -34])
    np.testing.assert_array_equal(found.transitions.terminal[:, :2], [[0, 0], [0, 1]])
    np.testing.assert_array_equal(found.alive, [[True, True, True], [True, True, False]])


def test_pessimistic_model_is_a_world_model():
    made = morel(CONFIG, SPEC, MODEL)
    assert made is morel(MOReLConfig(hidden=(4,), pessimism=2.0, halt_penalty=30.0), SPEC, MODEL)
    assert made.learner is sac(CONFIG, SPEC).learner
    state = made.imagination.model.learner.init(jax.random.key(0), dataset(5))
    assert jnp.isinf(state.threshold)  # everything is known until it is calibrated
    state, _ = made.imagination.model.learner.update(jax.random.key(0), state, jnp.float32(2))
    assert state.model == 3
    prediction = made.imagination.model.predict(state, jnp.zeros((4, 2)), jnp.ones((4, 1)))
    assert prediction.mean.shape == (3, 4, 3)


def test_a_model_without_members_is_refused():
    with pytest.raises(UserError, match="MOReL measures the uncertainty of an ensemble"):
        morel(CONFIG, SPEC, MODEL._replace(predict=None))
