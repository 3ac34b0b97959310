"""Orbax checkpoints of pytrees: complete or absent, restored into a tree of the same shapes."""

import contextlib
import io
from pathlib import Path
from typing import Any

import jax

from jdp.errors import StorageError, UserError
from jdp.types import PyTree


def _manager(folder: Path, keep: int) -> Any:
    import orbax.checkpoint as ocp  # slow to import, so only where it is used

    options = ocp.CheckpointManagerOptions(
        max_to_keep=keep,
        create=True,
        cleanup_tmp_directories=True,
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

    try:
        # The writer's threads print tracebacks of what it also raises.
        with contextlib.redirect_stderr(io.StringIO()), _manager(folder, keep) as manager:
            if step not in manager.all_steps():
                manager.save(step, args=ocp.args.StandardSave(tree), force=True)
                manager.wait_until_finished()
    except Exception as error:  # a full disk reaches us as one of many exceptions of the writer
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise StorageError(
            f"cannot write checkpoint {folder / str(step)} ({reason[:200]}): make room and add --resume"
        ) from error


def latest(folder: Path) -> int | None:
    """The newest complete checkpoint of `folder`, or None."""
    if not folder.is_dir():
        return None
    steps = [int(entry.name) for entry in folder.iterdir() if entry.name.isdigit()]
    return max(steps, default=None)


def restore(folder: Path, like: PyTree, step: int | None = None) -> PyTree:
    """The checkpoint `step` (default: the newest) of `folder`, placed as `like` is.

    Raises:
        UserError: if there is none, or it is of other shapes than `like` (another network, another
            number of seeds), or it cannot be read.
    """
    import orbax.checkpoint as ocp

    step = latest(folder) if step is None else step
    if step is None:
        raise UserError(f"{folder} holds no checkpoint: name a run that has saved one")
    try:
        found = _shapes(folder / str(step))
    except Exception as error:
        raise UserError(f"checkpoint {folder / str(step)} cannot be read ({error}): delete it") from error
    wanted = sorted(str(tuple(leaf.shape)) for leaf in jax.tree.leaves(like))
    if found is not None and found != wanted:
        raise UserError(
            f"checkpoint {folder / str(step)} is of another network or configuration (other arrays or "
            "other shapes): give the flags it was made with"
        )
    abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
    try:
        with _manager(folder, keep=2) as manager:
            return manager.restore(step, args=ocp.args.StandardRestore(abstract))
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"checkpoint {folder / str(step)} cannot be read ({reason}): delete it") from error


def _shapes(checkpoint: Path) -> list[str] | None:
    """The sorted shapes of the arrays of a checkpoint."""
    import orbax.checkpoint as ocp

    metadata = ocp.StandardCheckpointer().metadata((checkpoint / "default").absolute()).item_metadata
    leaves = jax.tree.leaves(metadata, is_leaf=lambda leaf: hasattr(leaf, "shape"))
    shapes = [getattr(leaf, "shape", None) for leaf in leaves]
    return None if None in shapes else sorted(str(tuple(s)) for s in shapes if s is not None)
