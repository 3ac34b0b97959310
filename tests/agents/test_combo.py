"""COMBO: low on all states, high on real rows only, and whole updates against numpy."""

import dataclasses

import jax
import pytest
import sac_reference as reference
from agent_reference import to_numpy
from sac_reference import ROWS, SMALL, SPEC, transitions

from jdp import UserError
from jdp.agents.combo import COMBOConfig, combo
from jdp.data import TransitionDraw
from jdp.types import Learner, WorldModel
from jdp.world_models.rollout import RolloutConfig

REAL = 2
CONFIG = COMBOConfig(
    **SMALL, conservative_weight=0.7, actions=3, rollouts=RolloutConfig(real_share=REAL / ROWS)
)
MODEL = WorldModel(Learner(len, len, TransitionDraw(3, 2)), len, len)  # of no concern to the agent  # pyright: ignore[reportArgumentType]


@pytest.fixture(scope="module")
def agent():
    return combo(CONFIG, SPEC, MODEL)


@pytest.fixture(scope="module")
def update(agent):
    return jax.jit(agent.learner.update)


@pytest.fixture(scope="module")
def state(agent):
    return jax.jit(agent.learner.init)(jax.random.key(0), transitions(0))


def test_two_updates_equal_numpy(update, state):
    p, adams = reference.start(state, CONFIG)
    for i in range(2):
        key, batch = jax.random.key(10 + i), transitions(20 + i)

        def penalty(params, actor, s, a, s2, key=key):
            high = reference.soft_maximum(params, actor, s, s2, jax.random.split(key, 3)[2], CONFIG)
            gap = high.mean(1) - reference.q_values(params, s[:REAL], a[:REAL]).mean(1)
            return CONFIG.conservative_weight * gap.sum()

        state, _ = update(key, state, batch)
        reference.update(p, adams, key, to_numpy(batch), CONFIG, penalty)
    reference.assert_equal(state, p)


def test_only_real_rows_are_pushed_up(update, state):
    batch = transitions(1)

    def gap(batch):
        return update(jax.random.key(1), state, batch)[1]["conservative_gap"]

    def turned(x, rows):
        return x.at[rows].set(-x[rows])

    imagined, real = slice(REAL, None), slice(REAL)
    assert gap(batch._replace(action=turned(batch.action, imagined))) == gap(batch)
    assert gap(batch._replace(action=turned(batch.action, real))) != gap(batch)
    # but imagined states are pushed down as well
    assert gap(batch._replace(observation=turned(batch.observation, imagined))) != gap(batch)


def test_agent_model_and_calibration():
    made = combo(CONFIG, SPEC, MODEL)
    assert made is combo(dataclasses.replace(CONFIG), SPEC, MODEL) and made.imagination.model is MODEL
    assert made.imagination.calibrate({"a": 1}, transitions(0)) == {"a": 1}
    assert COMBOConfig().rollouts.real_share == 0.5 and not COMBOConfig().backup_entropy


def test_a_batch_without_real_rows_is_refused(state):
    config = dataclasses.replace(CONFIG, rollouts=RolloutConfig(real_share=0.01))
    with pytest.raises(UserError, match="COMBO needs real rows in its batches of 6"):
        combo(config, SPEC, MODEL).learner.update(jax.random.key(0), state, transitions(0))
