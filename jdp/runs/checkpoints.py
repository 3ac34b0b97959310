"""Orbax checkpoints of pytrees: complete or absent, restored into a tree of the same shapes.

Many processes of one run save and restore together; what was saved on some devices and processes is restored
on any others.
"""

import contextlib
import gc
import io
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec, SingleDeviceSharding
from jax.tree_util import Partial

from jdp.devices import distributed
from jdp.devices.mesh import data_mesh, on_one
from jdp.errors import StorageError, UserError
from jdp.types import PyTree


class _Unreadable(UserError):
    """Of a checkpoint that may be damaged."""


def _manager(folder: Path, keep: int | None = None) -> Any:
    """That keeps the newest `keep`; None: that changes nothing of what is there."""
    import orbax.checkpoint as ocp  # slow to import, so only where it is used

    options = ocp.CheckpointManagerOptions(
        max_to_keep=keep,
        create=keep is not None,
        cleanup_tmp_directories=keep is not None,
        # The state is donated to the next chunk, so the write must end before it begins.
        enable_async_checkpointing=False,
    )
    return ocp.CheckpointManager(folder.absolute(), options=options)


def save(folder: Path, step: int, tree: PyTree, *, keep: int = 2) -> None:
    """Writes `tree` as checkpoint `step` of `folder` and keeps the newest `keep`.

    A write that is cut short leaves a temporary folder that later calls ignore and remove.

    Raises:
        StorageError: if it cannot be written, for instance to a full disk; older checkpoints stay.
    """
    import orbax.checkpoint as ocp

    if distributed.is_many():  # of arrays that are whole on each process, the first writes its own
        tree = jax.tree.map(lambda x: np.asarray(x) if getattr(x, "is_fully_addressable", True) else x, tree)
    try:
        with _silent(), _manager(folder, keep) as manager:
            if step not in manager.all_steps():
                manager.save(step, args=ocp.args.StandardSave(_kept(tree)), force=True)
                manager.wait_until_finished()
    except Exception as error:  # a full disk reaches us as one of many exceptions of the writer
        raise StorageError(
            f"cannot write checkpoint {folder / str(step)} ({_reason(error)}): make room and add --resume"
        ) from error


def _is_empty(leaf: Any) -> bool:
    return 0 in getattr(leaf, "shape", ())


def _kept(tree: PyTree) -> PyTree:
    """`tree` without what orbax refuses: arrays that hold nothing (a goal of no numbers), bound functions.

    Of a function (`jdp.types.bind`) its leaves are kept, in their order.
    """

    def plain(node: Any) -> Any:
        return jax.tree.leaves(node) or None if isinstance(node, Partial) else node

    tree = jax.tree.map(plain, tree, is_leaf=lambda node: isinstance(node, Partial))
    return jax.tree.map(lambda leaf: None if _is_empty(leaf) else leaf, tree)


def _whole(found: PyTree, like: PyTree) -> PyTree:
    """`found`, a tree of `_kept(like)`, with the empty arrays of `like`."""
    leaves, structure = jax.tree.flatten(like)
    rest = iter(jax.tree.leaves(found))
    return structure.unflatten(
        jnp.zeros(leaf.shape, leaf.dtype) if _is_empty(leaf) else next(rest) for leaf in leaves
    )


def _reason(error: BaseException) -> str:
    while error.__cause__ is not None:  # what orbax wraps it in names its own objects
        error = error.__cause__
    line = (str(error).splitlines() or [type(error).__name__])[0]
    return line if len(line) <= 120 else f"...{line[-120:]}"  # TensorStore's come to the point at their end


def _silent() -> contextlib.AbstractContextManager:
    """Orbax's threads print tracebacks of what orbax also raises."""
    return contextlib.redirect_stderr(io.StringIO())


def steps(folder: Path) -> list[int]:
    """The complete checkpoints of `folder`, newest first."""
    if not folder.is_dir():
        return []
    return sorted((int(entry.name) for entry in folder.iterdir() if entry.name.isdigit()), reverse=True)


def latest(folder: Path) -> int | None:
    """The newest complete checkpoint of `folder`, or None."""
    return next(iter(steps(folder)), None)


def restore(folder: Path, like: PyTree, step: int | None = None) -> PyTree:
    """The checkpoint `step` (default: the newest) of `folder`, placed as `like` is.

    Leaves of `like` that say no place (those of `jax.eval_shape`) come to the first device of this process.

    Raises:
        UserError: if there is none, or it is of other shapes than `like` (another network, another
            number of seeds), or it cannot be read.
    """
    import orbax.checkpoint as ocp

    step = latest(folder) if step is None else step
    if step is None:
        raise UserError(f"{folder} holds no checkpoint: name a run that has saved one")
    try:
        with _silent():
            found = _shapes(folder / str(step))
    except Exception as error:
        raise _unreadable(folder, step, error) from error
    wanted = sorted(str(tuple(leaf.shape)) for leaf in jax.tree.leaves(like) if not _is_empty(leaf))
    if wanted and not found:
        raise _unreadable(folder, step, ValueError("it does not say what it holds"))
    if found != wanted:
        raise UserError(
            f"checkpoint {folder / str(step)} is of another network or configuration (other arrays or "
            "other shapes): give the flags it was made with"
        )
    try:
        with _silent(), _manager(folder) as manager:
            tree = manager.restore(step, args=ocp.args.StandardRestore(_placed(_kept(like))))
        tree = _whole(tree, like)
        return on_one(tree) if distributed.is_many() else tree
    except Exception as error:
        raise _unreadable(folder, step, error) from error


def _unreadable(folder: Path, step: int, error: Exception) -> _Unreadable:
    return _Unreadable(f"checkpoint {folder / str(step)} cannot be read ({_reason(error)}): delete it")


def _placed(like: PyTree) -> PyTree:
    """Shapes, types and places to restore to, whatever devices the file speaks of."""
    import orbax.checkpoint as ocp

    mesh = data_mesh() if distributed.is_many() else None
    default = (
        SingleDeviceSharding(jax.local_devices()[0]) if mesh is None else NamedSharding(mesh, PartitionSpec())
    )

    def place(leaf: Any) -> Any:
        if not isinstance(leaf, jax.ShapeDtypeStruct) or leaf.sharding is not None:
            return leaf
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=default)

    return jax.tree.map(place, jax.tree.map(ocp.utils.to_shape_dtype_struct, like))


def restore_newest(folder: Path, like: PyTree) -> tuple[PyTree, int, list[str]]:
    """`(tree, step, reasons)`: the newest checkpoint of `folder` that can be read, placed as `like` is.

    Newer ones, which cannot be read (for the reasons given), are set aside as `<step>.unreadable`.

    Raises:
        UserError: as `restore` does, if no checkpoint can be read.
    """
    failed: dict[int, str] = {}
    for step in steps(folder):
        with _silent():
            tree, reason = _attempt(folder, like, step)
            if reason is not None:
                gc.collect()  # what is left of the attempt complains when it is thrown away: now
        if reason is None:
            distributed.only_main(_set_aside, folder, list(failed))
            return tree, step, [reason.removesuffix(": delete it") for reason in failed.values()]
        failed[step] = reason
    raise UserError(
        next(iter(failed.values()), f"{folder} holds no checkpoint: name a run that has saved one")
    )


def _attempt(folder: Path, like: PyTree, step: int) -> tuple[PyTree, str | None]:
    try:
        return restore(folder, like, step), None
    except _Unreadable as error:
        return None, str(error)


def _set_aside(folder: Path, steps: list[int]) -> None:
    for step in steps:
        (folder / str(step)).rename(folder / f"{step}.unreadable")


def _shapes(checkpoint: Path) -> list[str] | None:
    """The sorted shapes of the arrays of a checkpoint."""
    import orbax.checkpoint as ocp

    metadata = ocp.StandardCheckpointer().metadata((checkpoint / "default").absolute()).item_metadata
    leaves = jax.tree.leaves(metadata, is_leaf=lambda leaf: hasattr(leaf, "shape"))
    shapes = [getattr(leaf, "shape", None) for leaf in leaves]
    return None if None in shapes else sorted(str(tuple(s)) for s in shapes if s is not None)
