"""Datasets larger than a device: rows in memory-mapped files, batches gathered ahead of the step.

A thread of this process finds out which rows the next updates want (by the keys that the fit loop would use,
so the numbers are those of data on the device), gathers them from the files, and puts them on the devices
while the last ones compute. `grain` is for records that must be decoded, in worker processes: here a row is
an index away, and the keys of the fit loop already say which.
"""

import queue
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jdp.data.draws import step_keys
from jdp.data.mapped import check_files
from jdp.types import Draw, PyTree

# (start, stop, batches [K, ...]): those of updates start .. stop - 1 come first
Block = tuple[int, int, PyTree]
AHEAD = 2  # blocks that wait on the devices while one computes


@dataclass(frozen=True)
class Stream:
    """Rows on the host and how batches are drawn from them."""

    draw: Draw
    rows: PyTree  # of numpy arrays, memory-mapped or not
    batch_size: int
    seeds: int | None = None  # batches are [S, B, ...]: one for each seed, of its own key
    block: int = 20  # updates whose batches are put on the devices at once
    process: int = 0  # which part of every batch this process reads
    processes: int = 1


@contextmanager
def blocks(
    stream: Stream,
    *,
    key: Array,
    start: int,
    stop: int,
    chunk: int = 500,
    mesh: Mesh | None = None,
    batch_axis: int = 0,
) -> Iterator[Iterator[Block]]:
    """A context that gives the blocks of updates `start .. stop - 1` for `jdp.loops.fit_blocks`.

    What is drawn for update `i` depends on `key` and `i` alone, as in `fit`: it may begin anywhere. Of many
    processes each gathers its own slice of every batch (`stream.process`), along `batch_axis`.

    Raises:
        UserError: from the reader, in the thread that trains: a file is gone or was cut.
    """
    ready: queue.Queue = queue.Queue(maxsize=AHEAD)
    left = threading.Event()

    def hand(item: Any) -> bool:
        while not left.is_set():
            try:
                ready.put(item, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def read() -> None:
        try:
            for first, end in _bounds(start, stop, chunk, stream.block):
                batches = _gather(stream, key, first, batch_axis)
                if not hand((first, end, _place(batches, mesh, batch_axis, stream.processes))):
                    return
            hand(None)
        except BaseException as error:  # whatever it was, the thread that trains must see it
            hand(error)

    def taken() -> Iterator[Block]:
        while (item := ready.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item

    reader = threading.Thread(target=read, name="jdp stream", daemon=True)
    reader.start()
    try:
        yield taken()
    finally:
        left.set()
        reader.join()


def chunk_end(start: int, stop: int, chunk: int) -> int:
    """Where the chunk that update `start` belongs to ends."""
    return min((start // chunk + 1) * chunk, stop)


def _bounds(start: int, stop: int, chunk: int, block: int) -> Iterator[tuple[int, int]]:
    while start < stop:
        end = min(start + block, chunk_end(start, stop, chunk))
        yield start, end
        start = end


@lru_cache(maxsize=16)
def _locate_program(draw: Draw, batch_size: int, seeds: int | None, count: int) -> Any:
    def locate(key: Array, tables: PyTree) -> PyTree:
        if seeds is None:
            return draw.locate(key, tables, batch_size)
        return jax.vmap(lambda k: draw.locate(k, tables, batch_size))(jax.random.split(key, seeds))

    def located(key: Array, first: Array, tables: PyTree) -> PyTree:
        steps = first + jnp.arange(count, dtype=jnp.int32)
        return jax.vmap(lambda step: locate(step_keys(key, step)["draw"], tables))(steps)

    return jax.jit(located)


def host_device() -> Any:
    """The CPU as JAX sees it: an accelerator would answer only after the updates it has been given."""
    try:
        return jax.local_devices(backend="cpu")[0]
    except RuntimeError:  # JAX_PLATFORMS leaves it out
        return None


def _gather(stream: Stream, key: Array, first: int, batch_axis: int) -> PyTree:
    """The batches of `block` updates from `first` on, `[K, ...]`, or this process's part of them."""
    with jax.default_device(host_device()):
        key = jax.random.wrap_key_data(
            jnp.asarray(np.asarray(jax.random.key_data(key))), impl=jax.random.key_impl(key)
        )
        program = _locate_program(stream.draw, stream.batch_size, stream.seeds, stream.block)
        located = jax.device_get(program(key, np.int32(first), stream.draw.tables(stream.rows)))
    check_files(stream.rows)
    axis = batch_axis + 1

    def mine(x: np.ndarray) -> np.ndarray:
        size = x.shape[axis] // stream.processes
        return np.take(x, range(stream.process * size, (stream.process + 1) * size), axis=axis)

    if stream.processes > 1:
        located = jax.tree.map(mine, located)
    return stream.draw.take(stream.rows, located)


def _place(batches: PyTree, mesh: Mesh | None, batch_axis: int, processes: int) -> PyTree:
    if mesh is None:
        return jax.device_put(batches)
    sharding = NamedSharding(mesh, PartitionSpec(*(None,) * (batch_axis + 1), "data"))
    if processes == 1:
        return jax.device_put(batches, sharding)

    def whole(x: np.ndarray) -> Array:
        shape = list(x.shape)
        shape[batch_axis + 1] *= processes
        return jax.make_array_from_process_local_data(sharding, np.asarray(x), tuple(shape))

    return jax.tree.map(whole, batches)
