"""MOPO's penalty by hand, on an ensemble of closed form."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdp import UserError
from jdp.agents.mopo import MOPOConfig, mopo, penalised, uncertainty
from jdp.agents.sac import sac
from jdp.types import Learner, Normal, Spec, WorldModel
from jdp.world_models import REPLAY, HistoryDraw, RolloutConfig, rollout

SPEC = Spec(observation_dim=2, action_dim=1)
CONFIG = MOPOConfig(hidden=(4,), penalty=0.5, rollouts=RolloutConfig(length=2, batch=8))


def start(observations, actions):
    return {"position": observations[:, -1]}


def step(key, state, carry, action):
    """The position moves by `state * action`; its carry is of a kind that no wrapper can know."""
    position = carry["position"] + state * action
    reward = jnp.sum(position, axis=-1)
    return {"position": position}, position, reward, jnp.zeros(len(action))


def predict(state, observation, action):
    """Two members; the std of the second grows with the observation that a step STARTS from."""
    std = jnp.concatenate([observation, action], axis=-1)  # [B, O + 1]
    return Normal(jnp.zeros((2, *std.shape)), jnp.stack([jnp.ones_like(std), 2 * jnp.abs(std)]))


LEARNER = Learner(lambda k, t: jnp.float32(1), lambda k, s, b: (s, {}), HistoryDraw(2, 1))  # pyright: ignore[reportArgumentType]
MODEL = WorldModel(LEARNER, start, step, 1, predict)


def test_uncertainty_is_the_largest_norm():
    std = jnp.array([[[3.0, 4.0], [0.0, 1.0]], [[1.0, 1.0], [5.0, 12.0]]])  # [M, B, O + 1]
    np.testing.assert_allclose(uncertainty(std), [5.0, 13.0], rtol=1e-6)


def test_penalty_by_hand():
    """Over two steps, so that the wrapper must carry the observation along."""
    observations = np.array([[[9.0, 9.0], [1.0, 2.0]], [[9.0, 9.0], [0.0, 0.0]]], np.float32)
    actions = np.array([[[1.0], [-0.5]], [[0.25], [0.5]]], np.float32)
    program = jax.jit(rollout, static_argnums=(1, 3), static_argnames="length")
    run = [
        program(
            jax.random.key(0),
            model,
            jnp.float32(2),
            REPLAY,
            jnp.asarray(actions),
            jnp.asarray(observations),
            jnp.zeros((2, 1, 1)),
            length=2,
        ).transitions
        for model in (MODEL, penalised(MODEL, CONFIG))
    ]
    np.testing.assert_array_equal(run[0].next_observation, run[1].next_observation)
    position = observations[:, 1].astype(np.float64)
    for t in range(2):
        std = np.concatenate([position, actions[:, t]], axis=1)
        largest = np.maximum(np.sqrt(3), 2 * np.linalg.norm(std, axis=1))
        np.testing.assert_allclose(run[0].reward[:, t] - run[1].reward[:, t], 0.5 * largest, rtol=1e-5)
        position = position + 2 * actions[:, t]


def test_agent_model_and_calibration():
    made = mopo(CONFIG, SPEC, MODEL)
    assert made is mopo(MOPOConfig(hidden=(4,), penalty=0.5, rollouts=CONFIG.rollouts), SPEC, MODEL)
    assert made.learner is sac(CONFIG, SPEC).learner and made.imagination.model == penalised(MODEL, CONFIG)
    state = jnp.float32(3)
    assert made.imagination.calibrate(state, None) is state  # pyright: ignore[reportArgumentType]
    hash(made.imagination.model)


def test_a_model_without_members_is_refused():
    with pytest.raises(UserError, match="MOPO measures the uncertainty of an ensemble"):
        mopo(CONFIG, SPEC, MODEL._replace(predict=None))
    with pytest.raises(UserError, match=r"MOPOConfig\.penalty is -1"):
        MOPOConfig(penalty=-1)
