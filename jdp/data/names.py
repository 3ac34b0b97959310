"""What a dataset's name means: D4RL's reference table and the tasks to evaluate on."""

import difflib
import json
import re
from functools import cache
from pathlib import Path
from typing import NamedTuple

from jdp.errors import UserError
from jdp.tasks.mazes import MAZES

BUNDLED_DIR = Path(__file__).parent / "bundled"
BUNDLED = {  # name -> what rolled it out; more in the file beside it
    "hopper-medium": "one SAC policy in Hopper-v5",
    "walker2d-medium": "one TRPO policy in Walker2d-v5",
    "pointmaze-umaze": "a noisy waypoint controller in PointMaze_UMaze-v3",
    "pointmaze-large": "a noisy waypoint controller in PointMaze_Large-v3",
}

_LOCOMOTION = {"hopper": "Hopper", "halfcheetah": "HalfCheetah", "walker2d": "Walker2d", "ant": "Ant"}
_MINARI_EXAMPLES = tuple(
    f"mujoco/{task}/{quality}-v0" for task in _LOCOMOTION for quality in ("simple", "medium", "expert")
)
_OGBENCH_EXAMPLES = tuple(
    f"{body}maze-{maze}-{kind}-v0"
    for body in ("point", "ant")
    for maze in ("medium", "large", "giant", "teleport")
    for kind in ("navigate", "stitch")
) + tuple(
    f"{scene}-play{task}-v0"
    for scene in ("cube-single", "cube-double", "scene", "puzzle-3x3")
    for task in ("", "-singletask", "-singletask-task1")
)


class Reference(NamedTuple):
    """One row of D4RL's table (d4rl/infos.py)."""

    url: str
    score_range: tuple[float, float]  # the returns that mean 0 and 100
    max_episode_steps: int


@cache
def reference_table() -> dict[str, Reference]:
    """D4RL's datasets by full name, "hopper-medium-v2"."""
    table = json.loads((BUNDLED_DIR / "reference_scores.json").read_text())
    return {
        name: Reference(row["url"], (row["ref_min"], row["ref_max"]), row["max_episode_steps"])
        for name, row in table.items()
    }


def full_d4rl_name(name: str) -> str | None:
    """`name` with the newest version where it has none; None if D4RL has no such dataset."""
    table = reference_table()
    if name in table:
        return name
    versions = [n for n in table if re.fullmatch(re.escape(name) + r"-v\d+", n)]
    return max(versions, key=lambda n: int(n.rpartition("-v")[2])) if versions else None


def d4rl_env_id(name: str) -> str | None:
    """The Gymnasium task of a D4RL locomotion name; None for the other families.

    D4RL's `-v2` tasks ran on mujoco_py, which Gymnasium no longer offers; `-v4` has the same
    observations and rewards on the present MuJoCo.
    """
    # The first word must match as a whole: "ant" is a prefix of "antmaze".
    task = _LOCOMOTION.get(name.partition("-")[0])
    return None if task is None else f"{task}-v4"


def locomotion_reference(env_id: str | None, limit: int | None = None) -> Reference | None:
    """D4RL's reference of a Gymnasium locomotion task of any version ("Hopper-v5"), else None.

    None too where the time limit is another than D4RL's: its returns are of other episodes.
    """
    for word, task in _LOCOMOTION.items():
        if env_id is not None and re.fullmatch(rf"{task}-v\d+", env_id):
            reference = reference_table()[f"{word}-medium-v2"]
            return reference if limit in (None, reference.max_episode_steps) else None
    return None


def scale_notice(name: str, env_id: str | None) -> str:
    """What to know of a set that is scored on D4RL's scale and may not be D4RL's data."""
    return (
        f"scores on {name} use the returns that D4RL calls 0 and 100 for the task of {env_id}; they are "
        "comparable with published D4RL numbers only if these are D4RL's data"
    )


def to_collect(name: str) -> UserError | None:
    """The error for a PointMaze set that is not bundled, saying how to collect it; None for other names."""
    maze = name.removeprefix("pointmaze-")
    if name == maze or maze not in MAZES:
        return None
    return UserError(
        f"{name} is not bundled; collect it, then give the file: "
        f"python experiments/collect_pointmaze.py --maze {maze} --out {name}.hdf5"
    )


def unknown(name: str) -> UserError:
    """The error for a name that is neither a dataset nor a file, with the nearest names."""
    table = reference_table()
    short = {n.rpartition("-v")[0] for n in table}
    known = [*BUNDLED, *sorted(short), *table, *_MINARI_EXAMPLES, *_OGBENCH_EXAMPLES]
    near = list(dict.fromkeys(difflib.get_close_matches(name, known, n=4, cutoff=0.5)))
    hint = f"did you mean {', '.join(near)}?" if near else "try hopper-medium"
    return UserError(
        f"unknown dataset {name!r}: no D4RL name, no Minari id, no file here; {hint} "
        "(or give the path of an HDF5 file)"
    )
