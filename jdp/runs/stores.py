"""Where the weights of a run lie: in the checkpoints of its directory, or in one small file.

A file holds what acting and sampling need: parameters, of a model with averaged weights those alone, targets,
normalisers. Optimisers' states are not in it, so training that goes on from a file begins them anew.
"""

import hashlib
import io
from collections.abc import Callable, Mapping
from importlib import resources
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jdp.errors import UserError
from jdp.learning.averaged import Averaged
from jdp.learning.optimiser import Trained
from jdp.runs import checkpoints
from jdp.runs.boxes import read_box, write_box
from jdp.types import Json, PyTree

FORMAT, WHAT = "jdp weights 1", "file of weights made by jdp"
WEIGHTS = "weights.npz"
SUFFIX = ".jdp"
FOLDER = Path(str(resources.files("jdp"))) / "pretrained"


class Store(NamedTuple):
    """Trained weights by phase ("agent", "diffuser 0", ...)."""

    phases: tuple[str, ...]  # in the order of the alphabet
    restore: Callable[[str, PyTree], PyTree]  # (phase, tree of its shapes) -> the phase's tree


def checkpoints_of(path: Path) -> Store:
    """The newest checkpoints of the run directory `path`."""
    folders = sorted((path / "checkpoints").glob("*/"))
    phases = tuple(folder.name for folder in folders if checkpoints.latest(folder) is not None)
    return Store(phases, lambda phase, like: checkpoints.restore(path / "checkpoints" / phase, like))


def names() -> list[str]:
    """The models that come with jdp."""
    return sorted(path.stem for path in FOLDER.glob(f"*{SUFFIX}"))


def find(name: str | Path) -> Path:
    """The file of the model `name`, or that file itself; raises `UserError` where there is none."""
    path = FOLDER / f"{name}{SUFFIX}" if str(name) in names() else Path(name)
    if not path.is_file():
        raise UserError(f"no trained model {name}: give the path of a file, or one of {', '.join(names())}")
    return path


def store_of(run: str | Path) -> Store:
    """The checkpoints of a run directory, or the weights of a file or of a model that comes with jdp."""
    return checkpoints_of(Path(run)) if Path(run).is_dir() else read_weights(find(run))[1]


def write_weights(path: Path, card: Json, phases: Mapping[str, PyTree]) -> Json:
    """Writes what must be kept of the trees in `phases` to the file `path`; its card, with a SHA-256.

    Raises:
        UserError: if `path` is a folder or a device.
        StorageError: if it cannot be written.
    """
    arrays = {
        f"{phase}/{where}": leaf for phase, tree in phases.items() for where, leaf in _named(_kept(tree))
    }
    content = io.BytesIO()
    np.savez(content, allow_pickle=False, **jax.device_get(arrays))
    sha256 = hashlib.sha256(content.getvalue()).hexdigest()
    size = sum(np.size(leaf) for leaf in arrays.values())
    card = {"format": FORMAT, **card, "phases": sorted(phases), "numbers": size, "sha256": sha256}
    write_box(path, card, {WEIGHTS: content.getvalue()})
    return card


def read_weights(path: Path) -> tuple[Json, Store]:
    """`(card, weights)` of a file that `write_weights` wrote.

    Raises:
        UserError: if it is another file, or damaged; and, by `restore`, where other shapes are asked for.
    """
    card, contents = read_box(path, FORMAT, WHAT)
    content = contents.get(WEIGHTS, b"")
    if hashlib.sha256(content).hexdigest() != card["sha256"]:
        raise UserError(f"{path} is damaged: its weights have another SHA-256 than its card says")
    with np.load(io.BytesIO(content), allow_pickle=False) as file:
        arrays = dict(file)

    def restore(phase: str, like: PyTree) -> PyTree:
        kept = _kept(like)
        wanted = {f"{phase}/{where}": leaf for where, leaf in _named(kept)}
        held = {name: leaf.shape for name, leaf in arrays.items() if name.startswith(f"{phase}/")}
        if held != {name: tuple(leaf.shape) for name, leaf in wanted.items()}:
            raise UserError(f"{path} holds weights of another network or version of jdp for {phase!r}")
        leaves = [jnp.asarray(arrays[name]) for name in wanted]
        return _whole(like, jax.tree.unflatten(jax.tree.structure(kept), leaves))

    return card, Store(tuple(card["phases"]), restore)


def _named(tree: PyTree) -> list[tuple[str, PyTree]]:
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return [(jax.tree_util.keystr(where, simple=True, separator="/"), leaf) for where, leaf in leaves]


def _learned(node: object) -> bool:
    return isinstance(node, Trained | Averaged)


def _kept(tree: PyTree) -> PyTree:
    """`tree` without optimisers' states, and of averaged models with the averages alone."""

    def less(node: PyTree) -> PyTree:
        if isinstance(node, Averaged):
            return Averaged(None, node.ema, None, node.step)
        return Trained(node.params, None) if isinstance(node, Trained) else node

    return jax.tree.map(less, tree, is_leaf=_learned)


def _whole(like: PyTree, kept: PyTree) -> PyTree:
    """`kept` with optimisers' states, of the shapes of `like`, that have made no step."""

    def more(node: PyTree, found: PyTree) -> PyTree:
        if isinstance(node, Averaged):
            return Averaged(jax.tree.map(jnp.copy, found.ema), found.ema, _zeros(node.opt_state), found.step)
        return Trained(found.params, _zeros(node.optimiser)) if isinstance(node, Trained) else found

    return jax.tree.map(more, like, kept, is_leaf=_learned)


def _zeros(like: PyTree) -> PyTree:
    return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), like)
