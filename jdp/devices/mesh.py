"""Data parallelism: one mesh axis "data" over all devices, batches split on it, the rest replicated.

This is what `pmap` did. `pmap` is in maintenance mode; `jit` over a mesh computes the same, and the
gradient of the mean over the whole batch needs no collective in our code.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from jdp.devices.distributed import spread
from jdp.errors import UserError


def data_mesh(devices: list[Any] | None = None) -> Mesh | None:
    """A mesh over `devices` (default: all), or None where there is only one: nothing to split."""
    devices = jax.devices() if devices is None else devices
    if len(devices) == 1:
        return None
    return jax.make_mesh((len(devices),), ("data",), axis_types=(AxisType.Auto,), devices=devices)


def expert_mesh(experts: int, devices: list[Any] | None = None) -> Mesh | None:
    """A mesh ("expert", "data"): devices in as many groups as divide the experts; None of one device.

    With fewer devices than experts each group has several of them, with more their batches are split over
    the devices of a group (`split_experts`).
    """
    devices = jax.devices() if devices is None else devices
    if len(devices) == 1:
        return None
    groups = math.gcd(experts, len(devices))
    shape, types = (groups, len(devices) // groups), (AxisType.Auto, AxisType.Auto)
    return jax.make_mesh(shape, ("expert", "data"), axis_types=types, devices=devices)


def split_experts(tree: Any, mesh: Mesh | None, rows: bool = False) -> Any:
    """Inside `jit`: leaves `[K, ...]` of K experts over a mesh of `expert_mesh`, each on devices of its own.

    Args:
        rows: whether their second axis is one of rows, which is split over the devices of each.
    """
    if mesh is None:
        return tree
    sharding = NamedSharding(mesh, PartitionSpec("expert", *(["data"] if rows else [])))
    return jax.lax.with_sharding_constraint(tree, sharding)


def replicate(tree: Any, mesh: Mesh | None) -> Any:
    """`tree` on every device of the mesh (on the default device without one)."""
    if mesh is None:
        return jax.device_put(tree)
    if mesh.is_multi_process:
        return spread(tree, mesh)
    return jax.device_put(tree, NamedSharding(mesh, PartitionSpec()))


def split_batch(batch: Any, mesh: Mesh | None, axis: int = 0) -> Any:
    """Inside `jit`: every leaf of `batch` split over the devices along `axis`."""
    if mesh is None:
        return batch
    sharding = NamedSharding(mesh, PartitionSpec(*(None,) * axis, "data"))
    return jax.lax.with_sharding_constraint(batch, sharding)


def gathered(tree: Any, mesh: Mesh | None) -> Any:
    """Inside `jit`: every leaf whole on every device, so that any process can read it."""
    if mesh is None:
        return tree
    return jax.lax.with_sharding_constraint(tree, NamedSharding(mesh, PartitionSpec()))


def split_rows(tree: Any, mesh: Mesh | None, rows: int) -> Any:
    """Inside `jit`: leaves `[rows, ...]` split over the devices, all others whole on each of them.

    For what a program hands to its next call (a carry): equal shardings, so it compiles once.
    """

    def place(leaf: Any) -> Any:
        batched = leaf.ndim > 0 and leaf.shape[0] == rows
        return split_batch(leaf, mesh) if batched else gathered(leaf, mesh)

    return jax.tree.map(place, tree)


@contextmanager
def over(mesh: Mesh | None) -> Iterator[None]:
    """Inside `jit`: functions that are traced here may ask for rows to be split (`spread_rows`)."""
    if mesh is None:
        yield
    else:
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
            yield


def spread_rows(x: jax.Array, axis: int = 0) -> jax.Array:
    """`x` split along `axis` over the mesh of `over`, after rows of zeros have filled it up; else `x` itself.

    For work whose rows are not those of the batch, for instance after a shuffle: XLA would compute it whole
    on every device.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty:
        return x
    more = -x.shape[axis] % mesh.size
    x = jnp.pad(x, [(0, more if i == axis else 0) for i in range(x.ndim)])
    return jax.lax.with_sharding_constraint(x, PartitionSpec(*(None,) * axis, "data"))


def multiple(count: int, mesh: Mesh | None) -> int:
    """`count`, or the next number of rows that divides over the devices."""
    return count if mesh is None else -(-count // mesh.size) * mesh.size


def padded(batch: Any, mesh: Mesh | None, axis: int = 0) -> Any:
    """On the host: numpy leaves, whose last row along `axis` is repeated until they divide over the devices.

    Random numbers of the first rows do not change: those of an array are numbered from its beginning.
    """

    def pad(leaf: np.ndarray) -> np.ndarray:
        more = multiple(leaf.shape[axis], mesh) - leaf.shape[axis]
        width = [(0, more if i == axis else 0) for i in range(leaf.ndim)]
        return np.pad(leaf, width, mode="edge") if more else leaf

    return jax.tree.map(pad, batch)


def on_one(tree: Any) -> Any:
    """What is replicated over a mesh, on one device of this process: for work that is not to be split."""

    def take(leaf: Any) -> Any:
        return leaf.addressable_data(0) if isinstance(leaf, jax.Array) and leaf.is_fully_replicated else leaf

    return jax.tree.map(take, tree)


def check_divisible(batch_size: int, mesh: Mesh | None, option: str, accumulate: int = 1) -> None:
    """Raises `UserError` where a batch cannot be split evenly over devices and `accumulate` micro-batches."""
    devices = 1 if mesh is None else mesh.size
    count = devices * accumulate
    if batch_size % count:
        over = f"{devices} devices" if accumulate == 1 else f"{devices} devices x --accumulate {accumulate}"
        raise UserError(f"{option} {batch_size} does not divide over {over}: choose a multiple of {count}")
