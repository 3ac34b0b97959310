"""Dreams of a dataset: its rows are where episodes in a trained world model begin."""

import numpy as np

from jdp.data import Episodes, transitions
from jdp.finetune.dream import Dream, DreamConfig, World, dream, spread_of
from jdp.synthesis.branches import histories_at
from jdp.synthesis.imagined import TrainedModel


def dream_of(trained: TrainedModel, data: Episodes, config: DreamConfig, *, execute: int = 1) -> Dream:
    """What `jdp.loops.train_online` takes in the place of a task; episodes begin at any row of `data`.

    Args:
        trained: a world model of the task of `data`.
        execute: actions that the policy decides on at once.

    Raises:
        UserError: see `jdp.finetune.dream.dream`.
    """
    observations, actions = histories_at(data, np.arange(len(data)), trained.model.history)
    rows = transitions(data, known_successors=True)
    world = World(
        model=trained.state,
        observations=observations,
        actions=actions,
        spread=spread_of(rows.observation, rows.next_observation, rows.reward),
        rewards=np.array([data.rewards.min(), data.rewards.max()], np.float32),
    )
    return dream(trained.model, world, config, data.spec, execute=execute)
