"""Goals as part of what is observed, for methods that know no goals."""

from dataclasses import replace

import jax.numpy as jnp
from jax import Array

from jdp.types import Bound, PyTree, Stepped, Task


def _reset(key: Array, *, task: Task) -> tuple[tuple[PyTree, Array], Array, Array]:
    state, observation, goal = task.reset(key)
    return (state, goal), jnp.concatenate([observation, goal]), jnp.zeros(0)


def _step(
    key: Array, state: tuple[PyTree, Array], action: Array, *, task: Task
) -> tuple[tuple[PyTree, Array], Stepped]:
    inner, goal = state
    inner, found = task.step(key, inner, action)
    return (inner, goal), found._replace(observation=jnp.concatenate([found.observation, goal]))


def _state_of(observation: Array, goal: Array, *, task: Task) -> tuple[PyTree, Array]:
    del goal  # the observation ends with it
    assert task.state_of is not None
    inner, goal = jnp.split(observation, [task.spec.observation_dim])
    return (task.state_of(inner, goal), goal)


def observed_goal(task: Task) -> Task:
    """`task` whose observations `[O + G]` end with the goal; the same task where there are no goals."""
    if not task.spec.goal:
        return task
    seen = task.spec.observation_dim
    width = seen + len(task.spec.goal)
    groups = (*task.spec.groups, ("goal", tuple(range(seen, width)))) if task.spec.groups else ()
    spec = replace(task.spec, observation_dim=width, goal=(), groups=groups)
    settings = (("task", task),)
    known = None if task.state_of is None else Bound(_state_of, settings)
    return Task(Bound(_reset, settings), Bound(_step, settings), spec, known)
