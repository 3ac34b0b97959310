"""Many copies of a `Task` that never stop: time limits are counted, and what has ended begins anew."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jdp.types import PyTree, Task, named_keys


class Running(NamedTuple):
    """N environments in the middle of their episodes."""

    state: PyTree  # of the task, leaves [N, ...]
    observation: Array  # [N, O], what to act on next
    goal: Array  # [N, G], of the episode that runs
    elapsed: Array  # [N] int32, steps of it so far


class Outcome(NamedTuple):
    """What one step of N environments led to; of those that ended, not yet of their next episode."""

    observation: Array  # [N, O], of the state reached
    reward: Array  # [N]
    terminal: Array  # [N] bool
    truncated: Array  # [N] bool, cut by the time limit and no terminal
    success: Array  # [N] bool
    length: Array  # [N] int32, steps of the episode so far


def begin(task: Task, key: Array, count: int) -> Running:
    """`count` new episodes; the key is consumed."""
    state, observation, goal = jax.vmap(task.reset)(jax.random.split(key, count))
    return Running(state, observation, goal, jnp.zeros(count, jnp.int32))


def advance(task: Task, key: Array, running: Running, action: Array) -> tuple[Running, Outcome]:
    """One step of all under `action` `[N, A]`, clipped to [-1, 1]; the key is consumed.

    Where an episode ends the next one begins, so that `running.observation` differs from the outcome's.
    """
    count = len(running.elapsed)
    keys = named_keys(key, "step", "reset")
    step_keys = jax.random.split(keys["step"], count)
    state, found = jax.vmap(task.step)(step_keys, running.state, jnp.clip(action, -1.0, 1.0))
    elapsed = running.elapsed + 1
    limit = task.spec.max_episode_steps
    late = jnp.zeros(count, bool) if limit is None else elapsed >= limit
    ended = found.terminal | late
    outcome = Outcome(
        found.observation, found.reward, found.terminal, late & ~found.terminal, found.success, elapsed
    )
    running = Running(state, found.observation, running.goal, elapsed)
    # Resets are computed only where one is needed (under a `vmap` over seeds they always are).
    running = jax.lax.cond(
        jnp.any(ended),
        lambda: renewed(ended, begin(task, keys["reset"], count), running),
        lambda: running,
    )
    return running, outcome


def renewed(ended: Array, new: PyTree, old: PyTree) -> PyTree:
    """The rows of `new`, leaves `[N, ...]`, where `ended` `[N]`, else those of `old`."""
    return jax.tree.map(lambda n, o: jnp.where(ended.reshape(-1, *[1] * (o.ndim - 1)), n, o), new, old)
