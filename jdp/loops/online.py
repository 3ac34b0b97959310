"""Methods that learn while they act: one learner of method and task, trained and scored."""

import time
from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh

from jdp.data.draws import batches, together
from jdp.errors import UserError
from jdp.finetune.dream import Dream
from jdp.learning.acting import OffPolicyConfig, OnPolicyConfig
from jdp.learning.optimiser import copied
from jdp.loops.chunks import Chunks
from jdp.loops.collect import Episodes, score
from jdp.loops.journal import Journal, Memory
from jdp.loops.off_policy import off_policy, offline_rows
from jdp.loops.on_policy import in_dreams, on_policy
from jdp.loops.rounds import Evaluate, evaluate_due
from jdp.loops.train import INIT, continue_training, vmapped
from jdp.types import Json, Learner, Method, Policy, PyTree, Task, Update

Acting = OnPolicyConfig | OffPolicyConfig


def online_learner(method: Method, task: Task, acting: Acting) -> Learner:
    """`on_policy` or `off_policy`, as `acting` says. Equal arguments give equal learners."""
    if isinstance(acting, OnPolicyConfig):
        return on_policy(method, task, acting)
    return off_policy(method, task, acting)


def steps_of_update(acting: Acting) -> int:
    """Steps of the task in one update, over all environments of a seed."""
    return acting.environments * (acting.steps if isinstance(acting, OnPolicyConfig) else 1)


def steps_of(acting: Acting, updates: int) -> int:
    """Steps of the task that a seed takes in `updates`, those before the first one included."""
    first = 0 if isinstance(acting, OnPolicyConfig) else acting.first_steps * acting.environments
    return first + updates * steps_of_update(acting)


def train_online(
    method: Method,
    task: Task | Dream,
    acting: Acting,
    *,
    key: Array,
    updates: int,
    seeds: int,
    rows: PyTree = (),
    base: PyTree = (),
    begun: PyTree = (),
    chunk: int = 100,
    mesh: Mesh | None = None,
    journal: Journal | None = None,
    phase: str = "online",
    evaluate: Evaluate | None = None,
    evaluate_every: int | None = None,
) -> PyTree:
    """All seeds of `method`, stacked `[S, ...]`: what they learned in `updates` updates in `task`.

    Args:
        task: where it acts; a `Dream` is shared by all seeds, and lies on one device.
        key: typed; initial weights and environments use `fold_in(key, INIT)`, update `i` `fold_in(key, i)`.
        rows: of a dataset, where `acting` or the method asks for them (`jdp.data.prepared`).
        base: of fine-tuners the state of what they improve, which `init` sees in the place of rows.
        begun: states `[S, ...]` of the method to go on from; () to begin anew.
        evaluate: called as of `train_in_rounds` with the methods' own states, after each `evaluate_every`
            updates (default: never before the end) and at the end.

    Raises:
        UserError: if the loss is not finite, or the method does not learn as `acting` says.
    """
    journal = Memory() if journal is None else journal
    learner, first_rows, rows, source, update = _sources(method, task, acting, seeds, rows, base)
    keys = jax.random.split(jax.random.fold_in(key, INIT), seeds)

    def init(keys: Array, data: PyTree, begun: PyTree) -> PyTree:
        states = jax.vmap(learner.init, in_axes=(0, None))(keys, data)
        # Copied, for what is trained is written over.
        return states._replace(learner=copied(begun)) if jax.tree.leaves(begun) else states

    states, start = journal.begin(phase, init, keys, first_rows, begun)
    journal.cut(f"{phase}/evaluation", start)
    mesh = None if isinstance(task, Dream) else mesh
    after, every = Chunks(journal, phase, updates), evaluate_every or max(updates, 1)
    for first in range(0, updates, every):
        end = min(first + every, updates)
        if end < start:
            continue
        if start < end:
            at = {"start": max(first, start), "stop": end}
            options = {"key": key, "chunk": chunk, "mesh": mesh, "batch_axis": 1, "save": True}
            states = continue_training(update, source, states, rows, after, **at, **options)
        evaluate_due(after, evaluate, states.learner, first, end, every)
    return states.learner


class _Sources(NamedTuple):
    """What an online method learns from."""

    learner: Learner
    first: PyTree  # what `init` sees
    rows: PyTree  # what batches are drawn from
    source: Callable[[Array, PyTree], PyTree]  # (key, rows) -> batch, of all seeds
    update: Update  # of all seeds


def _sources(
    method: Method, task: Task | Dream, acting: Acting, seeds: int, rows: PyTree, base: PyTree
) -> _Sources:
    learner = method.learner if isinstance(task, Dream) else online_learner(method, task, acting)
    draw = together(learner.draws)
    first = base if jax.tree.leaves(base) else draw.view(rows)
    if isinstance(task, Dream):
        if not isinstance(acting, OnPolicyConfig):
            raise UserError("in dreams only on-policy methods learn: model-based agents have rollouts")
        learner, world = in_dreams(method, task.make, acting), jax.tree.map(jnp.asarray, task.world)
        return _Sources(learner, (first, world), world, _whole, vmapped(learner.update, seeds, shared=True))
    count = offline_rows(acting) if isinstance(acting, OffPolicyConfig) else 0
    return _Sources(learner, first, rows, batches(draw, count, seeds), vmapped(learner.update, seeds))


def _whole(key: Array, rows: PyTree) -> PyTree:
    """All rows."""
    del key
    return rows


@lru_cache(maxsize=64)
def _scores(policy: Policy, task: Task, episodes: int) -> Callable[[Array, PyTree], Episodes]:
    return jax.jit(jax.vmap(lambda key, state: score(task, policy, key, state, episodes)))


def score_together(
    policy: Policy, states: PyTree, task: Task, *, key: Array, seeds: int, episodes: int
) -> Json:
    """The record of one evaluation of S seeds in a JAX task: as of `jdp.loops.play_together`."""
    began = time.monotonic()
    found = _scores(policy, task, episodes)(jax.random.split(key, seeds), states)
    returns, lengths, success = (np.asarray(x) for x in found)
    return {
        "returns": returns,
        "success": success.astype(int),
        "lengths": lengths,
        "seconds": time.monotonic() - began,
    }
