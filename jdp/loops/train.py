"""One model or all seeds of it, trained on rows of a dataset: begun or resumed, logged, saved."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
from jax import Array
from jax.sharding import Mesh

from jdp.data.draws import batches, together
from jdp.data.stream import Stream, blocks, host_device
from jdp.devices import distributed
from jdp.devices.mesh import on_one
from jdp.loops.chunks import Chunks, Stopped, StopWhen
from jdp.loops.fit import fit, fit_blocks
from jdp.loops.journal import Journal, Memory
from jdp.types import Bound, Draw, Learner, PyTree, Update

INIT = 2**31 - 1  # folded into a phase's key for its initial weights; update i uses i


def train(
    learner: Learner,
    rows: PyTree,
    *,
    key: Array,
    updates: int,
    batch_size: int,
    seeds: int | None = None,
    chunk: int = 100,
    mesh: Mesh | None = None,
    stream: bool = False,
    journal: Journal | None = None,
    phase: str = "train",
    saved: Mapping[str, PyTree] | None = None,
    stop_when: StopWhen | None = None,
) -> PyTree:
    """The state of `learner` after `updates` updates; of `seeds` = S of them the states, stacked `[S, ...]`.

    Args:
        rows: of `learner.draws.prepare(data)` (`jdp.data.prepared`), a dictionary of them for named draws.
        key: typed; initial weights use `fold_in(key, INIT)`, update `i` `fold_in(key, i)`; seeds split both.
        batch_size: rows in a batch of one seed, over all devices.
        chunk: updates between two calls of `journal.after`.
        stream: `rows` stay on the host, memory-mapped or not; batches are gathered ahead of the updates.
        saved: what the journal saves beside the state.
        stop_when: of the state after a chunk and its metrics, why training is to stop, or None. It then
            goes back to the state before that chunk, saves and returns it; the journal notes so in a line.

    Raises:
        UserError: if the loss is not finite.
    """
    journal = Memory() if journal is None else journal
    draw = together(learner.draws)
    first = jax.random.fold_in(key, INIT)
    init, keys = learner.init, first
    if seeds is not None:
        init, keys = jax.vmap(learner.init, in_axes=(0, None)), jax.random.split(first, seeds)
    # Statistics of rows that no device may hold are computed on the host.
    with jax.default_device(host_device() if stream else None):
        state, start = journal.begin(phase, init, keys, draw.view(rows), saved=saved)
    after = Chunks(journal, phase, updates, stop_when=stop_when)
    after.keep(start, state)
    try:
        return continue_training(
            learner.update if seeds is None else vmapped(learner.update, seeds),
            in_files(draw, rows, batch_size, seeds) if stream else batches(draw, batch_size, seeds),
            state,
            None if stream else rows,
            after,
            key=key,
            start=start,
            stop=updates,
            chunk=chunk,
            mesh=mesh,
            batch_axis=0 if seeds is None else 1,
        )
    except Stopped as early:
        return local(early.state)


def continue_training(
    update: Update,
    source: Callable[[Array, PyTree], PyTree] | Stream,
    state: PyTree,
    data: PyTree,
    after: Chunks,
    *,
    key: Array,
    start: int,
    stop: int,
    chunk: int = 100,
    mesh: Mesh | None = None,
    batch_axis: int = 0,
    save: bool = False,
) -> PyTree:
    """Updates `start .. stop - 1` of a phase that has begun, with progress; `state` is donated.

    Args:
        source: `(key, data) -> batch`, or a `Stream`, which needs no `data`.
        after: what is done after each chunk.
        start, stop, chunk, mesh, batch_axis: as of `jdp.loops.fit`.
        save: whether the state is saved at `stop` also where the phase goes on after it.

    Raises:
        UserError: if the loss is not finite.
    """
    options: dict[str, Any] = {
        "key": key,
        "stop": stop,
        "chunk": chunk,
        "mesh": mesh,
        "batch_axis": batch_axis,
    }
    journal = after.journal
    with journal.held(), journal.progress(after.label, after.last, "update", start) as after.bar:
        if isinstance(source, Stream):
            with blocks(source, start=start, **options) as made:
                state = fit_blocks(update, made, state, **options, after=after)
        else:
            state = fit(update, source, state, data, start=start, **options, after=after)
        if save:
            journal.save(after.phase, stop, state)
    return local(state)


def in_files(draw: Draw, rows: PyTree, batch_size: int, seeds: int | None) -> Stream:
    """The stream of rows on the host of which every process reads its own part of each batch."""
    return Stream(
        draw,
        rows,
        batch_size,
        seeds,
        process=distributed.number(),
        processes=jax.process_count(),
    )


def local(state: PyTree) -> PyTree:
    """What this process holds of a state that training has replicated over many processes.

    What follows training is then the work of each alone, or is replicated anew.
    """
    return on_one(state) if distributed.is_many() else state


def _update_all(
    key: Array, states: PyTree, batch: PyTree, *, update: Update, seeds: int, shared: bool
) -> Any:
    axes = (0, 0, None if shared else 0)
    return jax.vmap(update, in_axes=axes)(jax.random.split(key, seeds), states, batch)


def vmapped(update: Update, seeds: int, *, shared: bool = False) -> Bound:
    """One update of all seeds; equal arguments make equal functions, which compile once.

    Args:
        shared: whether they all see one batch, without an axis of seeds.
    """
    return Bound(_update_all, (("update", update), ("seeds", seeds), ("shared", shared)))
