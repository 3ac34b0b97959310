"""Reader of OGBench's datasets (arXiv 2410.20092): npz files without rewards, an episode after the other."""

import os
import zipfile
from pathlib import Path

import numpy as np

from jdp.data import checks
from jdp.data.d4rl import sha256
from jdp.data.episodes import Episodes, Origin, make_episodes
from jdp.errors import UserError
from jdp.tasks.families import goal_entries, is_ogbench_data
from jdp.types import Spec

URL = "https://rail.eecs.berkeley.edu/datasets/ogbench"
_KEYS = ("observations", "actions", "terminals")
_NOTICE = "OGBench's data hold no rewards: they are 0 here, and goals are drawn in hindsight"


def dataset_dir() -> Path:
    """`$OGBENCH_DATA_DIR` or `~/.ogbench/data`, where ogbench puts its files."""
    return Path(os.environ.get("OGBENCH_DATA_DIR") or Path.home() / ".ogbench" / "data")


def load_ogbench(name: str, *, env_id: str | None = None) -> Episodes:
    """The OGBench dataset `name` on disk, "pointmaze-large-navigate-v0"; with "-val" its validation part.

    Raises:
        UserError: saying where to put the file if it is not there, and for a file that cannot be used.
    """
    path = dataset_dir() / f"{name}.npz"
    if not path.is_file():
        raise UserError(f"no file {path}: fetch {URL}/{name}.npz and put it there, or set $OGBENCH_DATA_DIR")
    return load_npz(path, f"{name} (OGBench)", "ogbench", "CC BY 4.0 (OGBench)", env_id)


def load_npz(path: Path, name: str, kind: str, licence: str, env_id: str | None) -> Episodes:
    """The OGBench-layout file at `path`. Its `terminals` mark the last observation of each episode.

    That observation is only a successor: what stands beside it as an action was never taken. The task
    is `env_id`, or what the file's name says.
    """
    where = str(path)
    columns = _read(path)
    observations = checks.float_rows(columns["observations"], "observations", where)
    actions = checks.float_rows(columns["actions"], "actions", where)
    ends = checks.flag_column(columns["terminals"], "terminals", where)
    checks.same_length({"observations": observations, "actions": actions, "terminals": ends}, where)
    checks.scaled_actions(actions, where)
    ends[-1] = True
    taken = ~ends
    if not taken.any():
        raise UserError(f"{where}: no episode has a step: 'terminals' marks every row")
    count, width = int(taken.sum()), observations.shape[1]
    task = path.stem.removesuffix("-val")
    env_id = env_id or (task if is_ogbench_data(task) else None)
    return make_episodes(
        observations[taken],
        actions[taken],
        np.zeros(count, np.float32),
        observations[np.flatnonzero(taken) + 1],
        np.zeros(count, bool),
        ends[np.flatnonzero(taken) + 1],
        spec=Spec(width, actions.shape[1], env_id, goal=goal_entries(env_id, width)),
        origin=Origin(name, kind, where, sha256(path), path.stat().st_size, licence, _NOTICE),
    )


def _read(path: Path) -> dict[str, np.ndarray]:
    """The arrays of `_KEYS`; nothing pickled is ever loaded."""
    try:
        with np.load(path, allow_pickle=False) as file:
            missing = [key for key in _KEYS if key not in file]
            if missing:
                raise UserError(
                    f"{path}: no key {', '.join(map(repr, missing))}; OGBench's layout needs "
                    f"{', '.join(_KEYS)}, the file has {', '.join(file) or 'none'}"
                )
            return {key: file[key] for key in _KEYS}
    except (OSError, ValueError, EOFError, AttributeError, TypeError, zipfile.BadZipFile) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(f"{path} does not open as npz arrays ({reason}); is the copy complete?") from error
