"""Steps of a dataset as those of a task whose actions are chunks (`jdp.tasks.simulators.chunked`)."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from jdp.data.draws import TransitionDraw
from jdp.data.episodes import Episodes, require_successors
from jdp.types import Transition, pack


def chunked(episodes: Episodes, execute: int) -> Transition:
    """From every row `execute` = E steps as one, fields `[n, ...]`: actions `[n, E * A]`, rewards summed.

    Where the task ended within them, rewards are those until its end and the actions after it are 0. Rows
    with fewer than E steps before a time limit are left out.

    Raises:
        UserError: if no row is left.
    """
    count = len(episodes.observations)
    last = np.repeat(episodes.stops - 1, episodes.stops - episodes.starts)  # [N], of the row's episode
    end = np.minimum(np.arange(count) + execute - 1, last)
    terminal = episodes.terminals[end].astype(bool)
    keep = terminal | ((np.arange(count) + execute - 1 <= last) & episodes.next_valid[end])
    require_successors(episodes, keep)
    first = np.flatnonzero(keep)
    steps = first[:, None] + np.arange(execute)  # [n, E]
    within = steps <= last[first, None]
    steps = np.minimum(steps, last[first, None])
    return Transition(
        observation=episodes.observations[first],
        action=np.where(within[..., None], episodes.actions[steps], 0.0).reshape(len(first), -1),
        reward=np.where(within, episodes.rewards[steps], 0.0).sum(1, dtype=np.float32),
        next_observation=episodes.next_observations[end[first]],
        terminal=terminal[first].astype(np.float32),
    )


@dataclass(frozen=True)
class ChunkDraw(TransitionDraw):
    """Single steps of a chunked task; `action_dim` is that of a chunk."""

    execute: int = 1  # actions in a chunk

    def prepare(self, episodes: Episodes) -> np.ndarray:
        """`[n, P]`, packed steps (`jdp.types.pack`) of `chunked`."""
        return np.asarray(pack(jax.tree.map(jnp.asarray, chunked(episodes, self.execute))))
