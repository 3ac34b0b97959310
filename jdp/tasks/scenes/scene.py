"""What a scene is: a `Task` whose score is its success, and an expert that sees what policies do not."""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from jdp.types import Bound, PyTree, Spec, Stepped, Task

Reset = Callable[[Array], PyTree]  # of a key, which is consumed
Observe = Callable[[PyTree], Array]  # of a state, [O]
Move = Callable[[Array, PyTree, Array], tuple[PyTree, Array, Array]]
# move(key, state, action [A]) -> (state, success [] bool, failed [] bool); the key is consumed
Expert = Callable[[PyTree], Array]  # of a state, action [A] within [-1, 1]


class Scene(NamedTuple):
    """A task, and where its data come from."""

    task: Task
    expert: Expert
    noise: float  # standard deviation of what is added to the expert's actions in the data
    data: str  # the scene whose data policies learn from: this one, or the one that it is a variation of


def _reset(key: Array, *, reset: Reset, observe: Observe) -> tuple[PyTree, Array, Array]:
    state = reset(key)
    return state, observe(state), jnp.zeros(0)


def _step(
    key: Array, state: PyTree, action: Array, *, observe: Observe, move: Move
) -> tuple[PyTree, Stepped]:
    state, success, failed = move(key, state, action)
    success = success & ~failed
    return state, Stepped(observe(state), success.astype(jnp.float32), success | failed, success)


def scene(
    env_id: str,
    limit: int,
    groups: tuple[tuple[str, int], ...],
    *,
    reset: Reset,
    observe: Observe,
    move: Move,
    expert: Expert,
    noise: float = 0.1,
    data: str | None = None,
) -> Scene:
    """A scene of module-level functions: reward 1 at the success, which ends an episode, as failure does.

    Args:
        limit: steps of an episode.
        groups: the parts of the observation in order, and how many entries each has; actions have two.
        data: the scene whose data policies learn from; None: its own.
    """
    named, begin = [], 0
    for name, size in groups:
        named.append((name, tuple(range(begin, begin + size))))
        begin += size
    spec = Spec(begin, 2, env_id, limit, score_range=(0.0, 1.0), groups=tuple(named))
    task = Task(
        Bound(_reset, (("observe", observe), ("reset", reset))),
        Bound(_step, (("move", move), ("observe", observe))),
        spec,
    )
    return Scene(task, expert, noise, data or env_id)
