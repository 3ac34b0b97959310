"""What a scene is: a `Task` whose score is its success, and an expert, which knows more than policies do."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array

from jdp.types import Bound, PyTree, Spec, Stepped, Task

Reset = Callable[[Array], PyTree]  # of a key, which is consumed
Observe = Callable[[PyTree], Array]  # of a state, [O]
Move = Callable[[Array, PyTree, Array], tuple[PyTree, Array, Array]]
# move(key, state, action [A]) -> (state, success [] bool, failed [] bool); the key is consumed
StateOf = Callable[[Array], PyTree]  # of an observation [O], a state that is observed so
Expert = Callable[[PyTree], Array]  # of a state, action [A] within [-1, 1]


class Planner(NamedTuple):
    """An expert that plans at every step, in a model of the scene."""

    agent: str  # of `jdp.online`: "cem"
    settings: tuple[tuple[str, Any], ...]  # those of its config that are not the defaults
    step: Callable[[Array, PyTree, Array], tuple[PyTree, Stepped]]
    # of the model that it plans in, as of `Task`, with rewards along the way


class Scene(NamedTuple):
    """A task, and where its data come from.

    Rows of an expert that is a function have the actions as they were executed, with noise. Of a planner they
    have the actions as planned, beside what was executed, and failures are left out: the noise leads to where
    a clone's errors would (DART, Laskey et al. 2017, arXiv 1703.09327), and what is cloned is how to recover.
    """

    task: Task
    expert: Expert | Planner
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


def _state_of(observation: Array, goal: Array, *, state_of: StateOf) -> PyTree:
    del goal  # scenes have none but what is observed
    return state_of(observation)


def scene(
    env_id: str,
    limit: int,
    groups: tuple[tuple[str, int], ...],
    *,
    reset: Reset,
    observe: Observe,
    move: Move,
    expert: Expert | Planner,
    noise: float = 0.1,
    data: str | None = None,
    state_of: StateOf | None = None,
) -> Scene:
    """A scene of module-level functions: reward 1 at the success, which ends an episode, as failure does.

    Args:
        limit: steps of an episode.
        groups: the parts of the observation in order, and how many entries each has; actions have two.
        data: the scene whose data policies learn from; None: its own.
        state_of: where observations tell the state, what planners start from.
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
        None if state_of is None else Bound(_state_of, (("state_of", state_of),)),
    )
    return Scene(task, expert, noise, data or env_id)
