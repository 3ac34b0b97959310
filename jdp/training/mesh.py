"""Data parallelism: one mesh axis "data" over all devices, batches split on it, the rest replicated.

This is what `pmap` did. `pmap` is in maintenance mode; `jit` over a mesh computes the same, and the
gradient of the mean over the whole batch needs no collective in our code.
"""

from typing import Any

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from jdp.errors import UserError


def data_mesh(devices: list[Any] | None = None) -> Mesh | None:
    """A mesh over `devices` (default: all), or None where there is only one: nothing to split."""
    devices = jax.devices() if devices is None else devices
    if len(devices) == 1:
        return None
    return jax.make_mesh((len(devices),), ("data",), axis_types=(AxisType.Auto,), devices=devices)


def replicate(tree: Any, mesh: Mesh | None) -> Any:
    """`tree` on every device of the mesh (on the default device without one)."""
    if mesh is None:
        return jax.device_put(tree)
    return jax.device_put(tree, NamedSharding(mesh, PartitionSpec()))


def split_batch(batch: Any, mesh: Mesh | None, axis: int = 0) -> Any:
    """Inside `jit`: every leaf of `batch` split over the devices along `axis`."""
    if mesh is None:
        return batch
    sharding = NamedSharding(mesh, PartitionSpec(*(None,) * axis, "data"))
    return jax.lax.with_sharding_constraint(batch, sharding)


def check_divisible(batch_size: int, mesh: Mesh | None, option: str) -> None:
    """Raises `UserError` where a batch cannot be split evenly over the devices."""
    count = 1 if mesh is None else mesh.size
    if batch_size % count:
        raise UserError(
            f"{option} {batch_size} does not divide over {count} devices: choose a multiple of {count}"
        )
