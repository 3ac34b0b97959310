"""Steps with the history before them, drawn within episodes."""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jdp.data import Episodes
from jdp.types import AnyArray, Transition, pack, unpack


class History(NamedTuple):
    """Steps with what went before them in their episode."""

    observations: AnyArray  # [B, H, O], the last one is where the action is taken
    actions: AnyArray  # [B, H, A], the last one is the action taken; 0 before the episode began
    reward: AnyArray  # [B]
    next_observation: AnyArray  # [B, O]
    terminal: AnyArray  # [B], 1.0 where the step ended the task


class Histories(NamedTuple):
    """What batches of `History` are drawn from: rows in time order and indices into them."""

    rows: AnyArray  # [N, 2 O + A + 2], packed transitions
    at: AnyArray  # [W] int32, the rows whose successor is known
    first: AnyArray  # [W] int32, the first row of their episode


def histories(episodes: Episodes) -> Histories:
    """The steps of `episodes` whose successor is known; numpy arrays."""
    terminal = episodes.terminals.astype(np.float32)
    fields = (episodes.observations, episodes.actions, episodes.rewards, episodes.next_observations)
    rows = np.asarray(pack(Transition(*(jnp.asarray(field) for field in (*fields, terminal)))))
    at = np.flatnonzero(episodes.next_valid)
    first = np.repeat(episodes.starts, episodes.lengths)[at]
    return Histories(rows, at.astype(np.int32), first.astype(np.int32))


class Located(NamedTuple):
    """Where the steps of a batch and what went before them lie."""

    at: AnyArray  # [B, H] int32, the row of each; its episode's first where the episode is younger
    inside: AnyArray  # [B, H] bool, whether the episode had begun


@dataclass(frozen=True)
class HistoryDraw:
    """Steps with the `history` steps that end in them, uniform and with replacement (a `jdp.types.Draw`).

    Where an episode is younger, its first observation is repeated, with actions 0.
    """

    observation_dim: int
    action_dim: int
    history: int = 1

    def prepare(self, episodes: Episodes) -> Histories:
        """The steps whose successor is known."""
        return histories(episodes)

    def view(self, rows: Histories) -> Transition:
        """All steps, without what went before them, fields `[W, ...]`."""
        return unpack(rows.rows[rows.at], self.observation_dim, self.action_dim)

    def tables(self, rows: Histories) -> tuple[AnyArray, AnyArray]:
        """The rows of the steps, and where their episodes begin."""
        return rows.at, rows.first

    def locate(self, key: Array, tables: tuple[AnyArray, AnyArray], batch_size: int) -> Located:
        """Of a batch of steps."""
        return self.located(tables, jax.random.randint(key, (batch_size,), 0, tables[0].shape[0]))

    def located(self, tables: tuple[AnyArray, AnyArray], index: AnyArray) -> Located:
        """Of the steps `index` `[B]`."""
        at, first = (jnp.asarray(table)[index][:, None] for table in tables)
        wanted = at - jnp.arange(self.history - 1, -1, -1, dtype=jnp.int32)[None]
        return Located(jnp.maximum(wanted, first), wanted >= first)

    def take(self, rows: Histories, located: Located) -> History:
        """Fields `[B, ...]`."""
        steps = unpack(rows.rows[located.at], self.observation_dim, self.action_dim)
        where = (np if isinstance(steps.action, np.ndarray) else jnp).where
        return History(
            observations=steps.observation,
            actions=where(located.inside[..., None], steps.action, steps.action.dtype.type(0)),
            reward=steps.reward[:, -1],
            next_observation=steps.next_observation[:, -1],
            terminal=steps.terminal[:, -1],
        )


def present(observations: Array, actions: Array) -> Array:
    """`[B, O]`, the carry of a model that sees the last of `observations` `[B, H, O]` alone."""
    del actions
    return observations[:, -1]


def as_history(batch: Transition | History) -> History:
    """A batch of transitions as histories of one step."""
    if isinstance(batch, History):
        return batch
    return History(
        batch.observation[:, None],
        batch.action[:, None],
        batch.reward,
        batch.next_observation,
        batch.terminal,
    )
