"""Several actions as one: the task of a policy that decides anew only after it has executed a chunk."""

from dataclasses import replace

import jax
import jax.numpy as jnp
from jax import Array

from jdp.errors import UserError
from jdp.types import Bound, PyTree, Stepped, Task


def _step(key: Array, state: PyTree, action: Array, *, task: Task, execute: int) -> tuple[PyTree, Stepped]:
    """`execute` = E steps under `action` `[E * A]`; after an end none counts, and the state stays."""

    def body(carry: tuple[PyTree, Stepped], step: tuple[Array, Array]):
        state, so_far = carry
        key, action = step
        moved, found = task.step(key, state, action)
        over = so_far.terminal
        state = jax.tree.map(lambda old, new: jnp.where(over, old, new), state, moved)
        together = Stepped(
            observation=jnp.where(over, so_far.observation, found.observation),
            reward=so_far.reward + jnp.where(over, 0.0, found.reward),
            terminal=over | found.terminal,
            success=so_far.success | (found.success & ~over),
        )
        return (state, together), None

    never = jnp.zeros((), bool)
    none = Stepped(jnp.zeros(task.spec.observation_dim), jnp.zeros(()), never, never)
    steps = jax.random.split(key, execute), action.reshape(execute, -1)
    return jax.lax.scan(body, (state, none), steps)[0]


def chunked(task: Task, execute: int) -> Task:
    """`task` with actions `[E * A]` of `execute` = E steps one after another; rewards are their sums.

    A success at any of the steps is one. The time limit is cut to whole chunks.

    Raises:
        UserError: if no chunk fits into the time limit.
    """
    limit = task.spec.max_episode_steps
    if limit is not None and limit < execute:
        raise UserError(f"{task.spec.env_id} ends after {limit} steps, before {execute} actions are executed")
    whole = None if limit is None else limit // execute
    spec = replace(task.spec, action_dim=task.spec.action_dim * execute, max_episode_steps=whole)
    settings = (("execute", execute), ("task", task))
    return Task(task.reset, Bound(_step, settings), spec, task.state_of)
