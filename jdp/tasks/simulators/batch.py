"""Many copies of a `Task` that never stop: time limits are counted, and what has ended begins anew."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jdp.types import AnyArray, PyTree, Task, named_keys


class Running(NamedTuple):
    """N environments in the middle of their episodes."""

    state: PyTree  # of the task, leaves [N, ...]
    observation: Array  # [N, O], what to act on next
    goal: Array  # [N, G], of the episode that runs
    length: Array  # [N] int32, steps of it so far
    total: Array  # [N], rewards of it so far
    reached: Array  # [N] bool, whether it has been a success at any step


class Outcome(NamedTuple):
    """What one step of N environments led to: of an episode that ended, its last state. Numpy on the host."""

    observation: AnyArray  # [N, O], of the state reached
    reward: AnyArray  # [N]
    terminal: AnyArray  # [N] bool
    truncated: AnyArray  # [N] bool, cut by the time limit and no terminal
    success: AnyArray  # [N] bool, at this step
    length: AnyArray  # [N] int32, steps of the episode so far
    total: AnyArray  # [N], its rewards so far
    reached: AnyArray  # [N] bool, whether it has been a success at any step

    @property
    def ended(self) -> AnyArray:
        """`[N]` bool, whether the episode is over."""
        return self.terminal | self.truncated


def begin(task: Task, key: Array, count: int) -> Running:
    """`count` new episodes; the key is consumed."""
    state, observation, goal = jax.vmap(task.reset)(jax.random.split(key, count))
    none = jnp.zeros(count)
    return Running(state, observation, goal, none.astype(jnp.int32), none, none.astype(bool))


def advance(task: Task, key: Array, running: Running, action: Array) -> tuple[Running, Outcome]:
    """One step of all under `action` `[N, A]`, clipped to [-1, 1]; the key is consumed.

    Where an episode ends the next one begins, so that `running.observation` differs from the outcome's.
    """
    count = len(running.length)
    keys = named_keys(key, "step", "reset")
    step_keys = jax.random.split(keys["step"], count)
    state, found = jax.vmap(task.step)(step_keys, running.state, jnp.clip(action, -1.0, 1.0))
    length, total = running.length + 1, running.total + found.reward
    reached = running.reached | found.success
    limit = task.spec.max_episode_steps
    late = jnp.zeros(count, bool) if limit is None else length >= limit
    outcome = Outcome(
        observation=found.observation,
        reward=found.reward,
        terminal=found.terminal,
        truncated=late & ~found.terminal,
        success=found.success,
        length=length,
        total=total,
        reached=reached,
    )
    running = Running(state, found.observation, running.goal, length, total, reached)
    # Resets are computed only where one is needed (under a `vmap` over seeds they always are).
    running = jax.lax.cond(
        jnp.any(outcome.ended),
        lambda: renewed(outcome.ended, begin(task, keys["reset"], count), running),
        lambda: running,
    )
    return running, outcome


def renewed(ended: Array, new: PyTree, old: PyTree) -> PyTree:
    """The rows of `new`, leaves `[N, ...]`, where `ended` `[N]`, else those of `old`."""
    return jax.tree.map(lambda n, o: jnp.where(ended.reshape(-1, *[1] * (o.ndim - 1)), n, o), new, old)
