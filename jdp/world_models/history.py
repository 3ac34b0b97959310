"""Steps with the history before them, drawn within episodes."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jdp.data import Episodes
from jdp.types import AnyArray, Bound, Transition, pack, unpack


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


def take(data: Histories, index: Array, *, history: int, dims: tuple[int, int]) -> History:
    """The steps `index` `[B]` of `data`, each with the `history` steps that end in it.

    Where the episode is younger, its first observation is repeated, with actions 0. `dims` is `(O, A)`.
    """
    back = jnp.arange(history - 1, -1, -1, dtype=jnp.int32)[None]
    wanted = jnp.asarray(data.at)[index][:, None] - back
    first = jnp.asarray(data.first)[index][:, None]
    steps = unpack(jnp.asarray(data.rows)[jnp.maximum(wanted, first)], *dims)
    return History(
        observations=steps.observation,
        actions=jnp.where((wanted >= first)[..., None], steps.action, 0.0),
        reward=steps.reward[:, -1],
        next_observation=steps.next_observation[:, -1],
        terminal=steps.terminal[:, -1],
    )


def _draw(key: Array, data: Histories, *, batch_size: int, history: int, dims: tuple[int, int]) -> History:
    index = jax.random.randint(key, (batch_size,), 0, data.at.shape[0])
    return take(data, index, history=history, dims=dims)


def draw_histories(batch_size: int, history: int, dims: tuple[int, int]) -> Bound:
    """A `draw(key, Histories) -> History` for `jdp.loops.fit`; `dims` is `(O, A)`."""
    return Bound(_draw, (("batch_size", batch_size), ("history", history), ("dims", dims)))


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
