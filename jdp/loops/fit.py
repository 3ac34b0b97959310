"""The fit loop: chunks of updates in one compiled program; it knows neither diffusion nor RL."""

from collections.abc import Callable, Iterable
from functools import lru_cache

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jdp.data.draws import step_keys
from jdp.data.stream import Block, chunk_end
from jdp.devices.mesh import replicate, split_batch
from jdp.types import Json, Metrics, PyTree, Update

Draw = Callable[[Array, PyTree], PyTree]  # draw(key, data) -> batch
AfterChunk = Callable[[int, PyTree, Json], None]


def _program(update: Update, pick: Callable, mesh: Mesh | None, batch_axis: int) -> Callable:
    def one(data: PyTree, key: Array, step: Array, state: PyTree) -> tuple[PyTree, Metrics]:
        keys = step_keys(key, step)
        batch = split_batch(pick(keys["draw"], step, data), mesh, batch_axis)
        return update(keys["update"], state, batch)

    def chunk(state: PyTree, data: PyTree, key: Array, start: Array, stop: Array):
        shapes = jax.eval_shape(one, data, key, start, state)[1]
        sums = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)

        def body(step: Array, carry):
            state, sums = carry
            state, metrics = one(data, key, step, state)
            return state, jax.tree.map(jnp.add, sums, metrics)

        state, sums = jax.lax.fori_loop(start, stop, body, (state, sums))
        count = jnp.maximum(stop - start, 1)
        return state, jax.tree.map(lambda s: s / count.astype(s.dtype), sums)

    shardings = None if mesh is None else NamedSharding(mesh, PartitionSpec())
    return jax.jit(chunk, donate_argnums=0, out_shardings=shardings)


@lru_cache(maxsize=64)
def chunk_program(update: Update, draw: Draw, mesh: Mesh | None, batch_axis: int) -> Callable:
    """The jitted `(state, data, key, start, stop) -> (state, mean metrics)`; the state is donated.

    The bounds are arguments, so chunks of any length share one program. Equal functions are the same
    program too: make them once, or with `jdp.types.bind`.
    """
    return _program(update, lambda key, step, data: draw(key, data), mesh, batch_axis)


@lru_cache(maxsize=64)
def block_program(update: Update, mesh: Mesh | None, batch_axis: int) -> Callable:
    """As `chunk_program`, where `data` is `(step [] of the first batch, batches [K, ...])`."""

    def pick(key: Array, step: Array, data: tuple[Array, PyTree]) -> PyTree:
        del key
        first, batches = data
        take = jax.lax.dynamic_index_in_dim
        return jax.tree.map(lambda x: take(x, step - first, keepdims=False), batches)

    return _program(update, pick, mesh, batch_axis)


def fit(
    update: Update,
    draw: Draw,
    state: PyTree,
    data: PyTree,
    *,
    key: Array,
    start: int = 0,
    stop: int,
    chunk: int = 500,
    mesh: Mesh | None = None,
    batch_axis: int = 0,
    after: AfterChunk | None = None,
) -> PyTree:
    """Makes updates `start .. stop - 1` and returns the new state; `state` is donated.

    Args:
        update: `(key, state, batch) -> (state, metrics)`, pure.
        draw: `(key, data) -> batch`, pure; a uniform draw is one gather.
        data: what batches are drawn from, an argument of the compiled program.
        key: typed; update `i` uses `fold_in(key, i)`, so a run that was cut continues bit for bit.
        chunk: updates between two calls of `after`.
        mesh: from `data_mesh`; every batch is split over it along `batch_axis`.
        after: called as `after(step, state, metrics)` after each chunk, with the number of updates made
            and the metrics averaged over the chunk (numpy). It must not keep `state`, which the next
            chunk overwrites.
    """
    program = chunk_program(update, draw, mesh, batch_axis)
    state, data = replicate(state, mesh), replicate(data, mesh)
    while start < stop:
        end = chunk_end(start, stop, chunk)
        state, metrics = program(state, data, key, jnp.int32(start), jnp.int32(end))
        start = end
        if after is not None:
            after(start, state, jax.device_get(metrics))
    return state


def fit_blocks(
    update: Update,
    blocks: Iterable[Block],
    state: PyTree,
    *,
    key: Array,
    stop: int,
    chunk: int = 500,
    mesh: Mesh | None = None,
    batch_axis: int = 0,
    after: AfterChunk | None = None,
) -> PyTree:
    """`fit` on batches that were drawn elsewhere (`jdp.data.stream`): the same updates with the same keys.

    Args:
        blocks: in order; none may reach over the end of a chunk. Their batches are split already.
        chunk, after, and the rest: as of `fit`. The host waits for the devices only after a chunk.
    """
    program = block_program(update, mesh, batch_axis)
    state, seen = replicate(state, mesh), []
    for start, end, batches in blocks:
        data = (jnp.int32(start), batches)
        state, metrics = program(state, data, key, jnp.int32(start), jnp.int32(end))
        seen.append((end - start, metrics))
        if end % chunk == 0 or end == stop:
            if after is not None:
                after(end, state, _mean(jax.device_get(seen)))
            seen = []
    return state


def _mean(parts: list[tuple[int, Metrics]]) -> Json:
    """The metrics of some blocks, averaged over all their updates."""
    total = sum(count for count, _ in parts)
    return jax.tree.map(
        lambda *x: np.asarray(sum(n * v for (n, _), v in zip(parts, x, strict=True)) / total, x[0].dtype),
        *(dict(metrics) for _, metrics in parts),
    )
