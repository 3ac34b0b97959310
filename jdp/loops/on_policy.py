"""A method that learns from what it has just done in a `Task`, as one learner: an update collects first.

So the loop that trains everything (`jdp.loops.train`) trains it too: seeds are vmapped, chunks are one
program, and a run that was killed goes on to the same bits, for environments are part of the state.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from jax import Array

from jdp.data.draws import together
from jdp.finetune.dream import World
from jdp.learning.acting import OnPolicyConfig
from jdp.loops.collect import Acting, collect, start
from jdp.types import Bound, Learner, Method, Metrics, Policy, PyTree, Task, named_keys


class OnPolicyState(NamedTuple):
    """What has been learned, and the environments that it is learned in."""

    learner: PyTree  # of the method
    acting: Acting


def explores(method: Method) -> Policy:
    """How `method` collects."""
    return method.policy if method.behaviour is None else method.behaviour


def _init(key: Array, data: PyTree, *, method: Method, task: Task, acting: OnPolicyConfig) -> OnPolicyState:
    keys = named_keys(key, "learner", "environments")
    learned = method.learner.init(keys["learner"], data)
    return OnPolicyState(learned, start(task, explores(method), keys["environments"], acting.environments))


def _update(
    key: Array, state: OnPolicyState, batch: PyTree, *, method: Method, task: Task, acting: OnPolicyConfig
) -> tuple[OnPolicyState, Metrics]:
    keys = named_keys(key, "collect", "learn")
    policy, learned = explores(method), state.learner
    after, rollout, ended = collect(task, policy, keys["collect"], learned, state.acting, acting.steps)
    seen = rollout if not jax.tree.leaves(batch) else (rollout, batch)
    learned, metrics = method.learner.update(keys["learn"], learned, seen)
    return OnPolicyState(learned, after), {**metrics, **ended}


def on_policy(method: Method, task: Task, acting: OnPolicyConfig) -> Learner:
    """Collects T steps of N copies of `task`, then updates `method`, and so on.

    `method.learner.update` takes a `Rollout` `[T, N]`; `(rollout, batch)` where its draws give rows of a
    dataset. Metrics are the method's, and `jdp.loops.collect.finished` of the episodes that ended. Equal
    arguments give equal learners.
    """
    settings = (("acting", acting), ("method", method), ("task", task))
    return Learner(Bound(_init, settings), Bound(_update, settings), together(method.learner.draws))


def _begin_dreaming(
    key: Array, data: tuple[PyTree, World], *, make: Callable[[World], Task], **settings: Any
) -> OnPolicyState:
    rows, world = data
    return _init(key, rows, task=make(world), **settings)


def _dream(
    key: Array, state: OnPolicyState, world: World, *, make: Callable[[World], Task], **settings: Any
) -> tuple[OnPolicyState, Metrics]:
    return _update(key, state, (), task=make(world), **settings)


def in_dreams(method: Method, make: Callable[[World], Task], acting: OnPolicyConfig) -> Learner:
    """`on_policy` in the task that `make` makes of a `World` (see `jdp.finetune.dream`).

    `init` takes what the method's own takes and the world, a pair; a batch of `update` is the world, whose
    arrays so are arguments of the program.
    """
    settings = (("acting", acting), ("make", make), ("method", method))
    return Learner(Bound(_begin_dreaming, settings), Bound(_dream, settings), together(method.learner.draws))
