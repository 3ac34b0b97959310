"""Agents trained in rounds: what batches are drawn from is made anew before each, by their own policies."""

from collections.abc import Callable
from typing import Any, Required, TypedDict

import jax
from jax import Array
from jax.sharding import Mesh

from jdp.data.draws import TransitionDraw, batches
from jdp.data.pools import Pool, PoolDraw, seed_axes
from jdp.data.stream import host_device
from jdp.errors import UserError
from jdp.loops.chunks import Chunks
from jdp.loops.journal import Journal, Memory
from jdp.loops.train import INIT, continue_training, in_files, vmapped
from jdp.types import AnyArray, Logged, Method, PyTree

PoolFor = Callable[[int, PyTree], Pool]  # (updates made, states [S, ...]) -> what batches are drawn from
Evaluate = Callable[[int, PyTree], Logged]  # (updates made, states [S, ...]) -> a record


class RoundOptions(TypedDict, total=False):
    """Arguments of `train_in_rounds` that `train_model_based` hands on to it."""

    key: Required[Array]
    seeds: Required[int]
    updates: Required[int]
    batch_size: Required[int]
    chunk: int
    mesh: Mesh | None
    journal: Journal | None
    phase: str
    evaluate: Evaluate | None
    evaluate_every: int | None


def train_in_rounds(
    method: Method,
    rows: AnyArray,
    pool_for: PoolFor | None = None,
    *,
    key: Array,
    seeds: int,
    updates: int,
    every: int,
    batch_size: int,
    real_share: float = 1.0,
    chunk: int = 200,
    mesh: Mesh | None = None,
    stream: bool = False,
    journal: Journal | None = None,
    phase: str = "agent",
    evaluate: Evaluate | None = None,
    evaluate_every: int | None = None,
) -> PyTree:
    """All seeds of an agent, stacked `[S, ...]`, in rounds of `every` updates.

    `pool_for` gives what a round's batches are drawn from; after it the agents are saved, and evaluated after
    each `evaluate_every` updates (default: every round) and at the end.

    Args:
        method: whose `learner.draws` is a `TransitionDraw`.
        rows: the dataset `[N, P]`, of that draw (`jdp.data.prepared`); initial states see it.
        pool_for: called once a round, at updates 0, `every`, ...; None: the dataset alone.
        key, batch_size: as of `jdp.loops.train`; `real_share` of a minibatch is real.
        stream: `rows` stay on the host; without `pool_for` only.
        evaluate: its record is logged as phase "<phase>/evaluation", once a step.

    Raises:
        UserError: if the loss is not finite, or the learner does not draw transitions.
    """
    journal = journal or Memory()
    draw = PoolDraw(_transitions(method, stream and pool_for is not None), real_share)
    keys, init = (
        jax.random.split(jax.random.fold_in(key, INIT), seeds),
        jax.vmap(method.learner.init, (0, None)),
    )
    with jax.default_device(host_device() if stream else None):
        states, start = journal.begin(phase, init, keys, draw.transitions.view(rows))
    journal.cut(f"{phase}/evaluation", start)
    update, data = vmapped(method.learner.update, seeds), Pool(rows, None, None)
    after = Chunks(journal, phase, updates, f"{phase}: train agents")
    options: dict[str, Any] = {"key": key, "chunk": chunk, "mesh": mesh, "batch_axis": 1, "save": True}
    for first in range(0, updates, every):
        end = min(first + every, updates)
        if end < start:
            continue
        if start < end:  # else the round ended when the run was cut, and may not have been evaluated
            data = data if pool_for is None else pool_for(first, states)
            source = _source(draw, data, batch_size, seeds, stream)
            at = {"start": max(first, start), "stop": end}
            states = continue_training(update, source, states, data, after, **at, **options)
        evaluate_due(after, evaluate, states, first, end, evaluate_every or every)
    return states


def _source(draw: PoolDraw, data: Pool, batch_size: int, seeds: int, stream: bool) -> Any:
    """Where batches come from: files, or the devices."""
    if stream:
        return in_files(draw, data, batch_size, seeds)
    return batches(draw, batch_size, seeds, seed_axes(data))


def evaluate_due(
    after: Chunks, evaluate: Evaluate | None, states: PyTree, first: int, end: int, every: int
) -> None:
    """Evaluates and logs a round from `first` to `end`, where that is due and has not been done."""
    if evaluate is None or not (end == after.last or end // every > first // every):
        return
    phase = f"{after.phase}/evaluation"
    if all(r["step"] != end for r in after.journal.records(phase)):
        after.journal.log(phase, end, evaluate(end, states))
        after.restart()


def _transitions(method: Method, from_files: bool) -> TransitionDraw:
    if from_files:
        raise UserError("synthetic sets lie on the devices: train in rounds without stream")
    draw = method.learner.draws
    if not isinstance(draw, TransitionDraw):
        raise UserError(f"rounds of synthetic experience need a method that draws transitions, not {draw}")
    return draw
