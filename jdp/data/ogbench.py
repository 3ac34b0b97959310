"""Reader of npz files: OGBench's datasets (arXiv 2410.20092) and dictionaries of the D4RL layout."""

import json
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from jdp.data import checks
from jdp.data.actions import Asked, unit_box
from jdp.data.d4rl import folder_of, sha256
from jdp.data.episodes import Episodes, Origin, make_episodes
from jdp.data.relabel import NEEDED, relabelled
from jdp.errors import UserError
from jdp.tasks.families import goal_entries, is_ogbench_data, is_single_task, ogbench_rows
from jdp.types import Spec

URL = "https://rail.eecs.berkeley.edu/datasets/ogbench"
_KEYS = ("observations", "actions", "terminals")
_MORE = ("rewards", "next_observations", "masks", "valids", "timeouts")
FACTS = "recipe"  # the key that a file made here by OGBench's recipe has, and OGBench's own have not
_NOTICE = "OGBench's data hold no rewards: they are 0 here, and goals are drawn in hindsight"
_SINGLE = (
    "rewards and ends are those of {task}, as OGBench relabels: of the state in which an action is taken"
)


def dataset_dir() -> Path:
    """`$OGBENCH_DATA_DIR` or `~/.ogbench/data`, where ogbench puts its files."""
    return folder_of("OGBENCH_DATA_DIR", ".ogbench/data")


def load_ogbench(name: str, asked: Asked = Asked()) -> Episodes:  # noqa: B008 (frozen)
    """The OGBench dataset `name` on disk, "pointmaze-large-navigate-v0"; with "-val" its validation part.

    Single tasks, "cube-single-play-singletask-task2-v0", have the rows of "cube-single-play-v0" and rewards.

    Raises:
        UserError: saying where to put the file if it is not there, and for a file that cannot be used.
    """
    if not is_ogbench_data(name):
        raise UserError(f"OGBench has no dataset {name!r}: it is called like pointmaze-large-navigate-v0")
    file = f"{ogbench_rows(name)}.npz"
    path = dataset_dir() / file
    if not path.is_file():
        raise UserError(
            f"no file {path}: fetch {URL}/{file} and put it there, or set $OGBENCH_DATA_DIR (source 'recipe' "
            "makes sets of point mazes, cubes, scene and puzzle-3x3 again)"
        )
    return load_npz(path, f"{name} (OGBench)", "ogbench", "CC BY 4.0 (OGBench)", asked, name)


def load_npz(
    path: Path,
    name: str,
    kind: str,
    licence: str,
    asked: Asked = Asked(),  # noqa: B008 (frozen)
    task: str | None = None,
) -> Episodes:
    """The npz file at `path`, whose keys say which of these it is.

    - OGBench's files hold neither rewards nor next observations. `terminals` mark the last observation of
      each episode, which is only a successor: what stands beside it as an action was never taken.
    - OGBench's loader adds `next_observations`, or `valids` (0 on that last observation), and in tasks with
      rewards `rewards` and `masks` (0 where the task ended). `terminals` go on to mark ends of episodes.
    - D4RL's dictionaries hold `rewards` without `masks`: `terminals` are ends of the task, `timeouts` others.

    The task is what `asked` says, else the dataset `task`, else that of the recipe that made the file, else
    the file's name. Where it is one of OGBench's single tasks, rows without rewards are relabelled for it.

    Raises:
        UserError: for a file that cannot be used, or a package that is missing.
    """
    where, found = str(path), read(path)
    facts = facts_of(found)
    task = (task or str(facts.get("dataset", path.stem))).removesuffix("-val")
    env_id = asked.env_id or (task if is_ogbench_data(task) else None)
    notices = ["" if "rewards" in found else _NOTICE]
    if env_id is not None and is_single_task(env_id) and "rewards" not in found:
        found |= relabelled(env_id, found, where)
        notices = [_SINGLE.format(task=env_id)]
    if kind != "recipe" and facts:
        notices.append(f"made by OGBench's recipe, seed {facts.get('seed')}: not OGBench's own file")
    flags = {
        k: checks.flag_column(found[k], k, where)
        for k in ("terminals", "masks", "valids", "timeouts")
        if k in found
    }
    columns = {
        k: checks.float_rows(found[k], k, where)
        for k in ("observations", "actions", "next_observations")
        if k in found
    }
    if "rewards" in found:
        columns["rewards"] = checks.float_column(found["rewards"], "rewards", where)
    checks.same_length(columns | flags, where)
    width = columns["observations"].shape[1]
    if "next_observations" in columns and columns["next_observations"].shape[1] != width:
        raise UserError(f"{where}: 'next_observations' and 'observations' differ in their channels")
    limit = asked.limit(None, env_id)
    spec = Spec(width, columns["actions"].shape[1], env_id, limit, goal=goal_entries(env_id, width))
    actions, spec, notice = unit_box(columns["actions"], spec, where, asked.actions)
    rows = _rows(columns | {"actions": actions}, flags, where)
    origin = Origin(name, kind, where, sha256(path), path.stat().st_size, licence)
    return make_episodes(*rows, spec=spec, origin=origin.noting(*notices, notice))


Rows = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray | None, np.ndarray, np.ndarray | None]


def _rows(columns: dict[str, np.ndarray], flags: dict[str, np.ndarray], where: str) -> Rows:
    """The first six arguments of `make_episodes`."""
    observations, actions, ends = columns["observations"], columns["actions"], flags["terminals"]
    rewards = columns.get("rewards", np.zeros(len(ends), np.float32))
    following, of_task = columns.get("next_observations"), "rewards" in columns and "masks" not in flags
    if of_task:  # D4RL's dictionary
        return observations, actions, rewards, following, ends, flags.get("timeouts")
    over = ~flags["masks"] if "masks" in flags else np.zeros(len(ends), bool)
    if following is not None:
        return observations, actions, rewards, following, over, ends & ~over
    ends = ~flags["valids"] if "valids" in flags else ends.copy()
    ends[-1] = True
    if ends.all():
        raise UserError(f"{where}: no episode has a step: 'terminals' marks every row")
    taken = np.flatnonzero(~ends)
    return (
        observations[taken],
        actions[taken],
        rewards[taken],
        observations[taken + 1],
        over[taken],
        ends[taken + 1] & ~over[taken],
    )


def facts_of(arrays: Mapping[str, np.ndarray]) -> dict[str, str | int | float]:
    """What a file that a recipe made says of its making; {} of OGBench's own."""
    return json.loads(str(arrays[FACTS])) if FACTS in arrays else {}


def read(path: Path) -> dict[str, np.ndarray]:
    """The arrays of an npz file that are used where it has them; nothing pickled is ever loaded.

    Raises:
        UserError: if the file does not open, or has no observations, actions or terminals.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            missing = [key for key in _KEYS if key not in file]
            if missing:
                raise UserError(
                    f"{path}: no key {', '.join(map(repr, missing))}; OGBench's layout needs "
                    f"{', '.join(_KEYS)}, the file has {', '.join(file) or 'none'}"
                )
            return {key: file[key] for key in (*_KEYS, *_MORE, *NEEDED, FACTS) if key in file}
    except (OSError, ValueError, EOFError, AttributeError, TypeError, zipfile.BadZipFile) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(f"{path} does not open as npz arrays ({reason}); is the copy complete?") from error
