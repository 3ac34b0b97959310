"""Which file a name stands for, and what it says about its task."""

import re
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal, get_args

from jdp.data import d4rl, maze2d, names, recipes
from jdp.data.actions import Asked, Units, box_from, unit_box
from jdp.data.download import Progress, download
from jdp.data.episodes import Episodes, Origin, make_episodes
from jdp.data.mapped import copy_d4rl
from jdp.data.recipes import Making
from jdp.errors import UserError
from jdp.tasks.families import goal_entries, is_ogbench_data, ogbench_rows
from jdp.tasks.mazes import POINT_ENV_IDS
from jdp.tasks.scenes import SCENES
from jdp.types import Spec

Source = Literal["auto", "d4rl", "recipe", "minari", "ogbench", "file", "bundled"]

_BUNDLED_NOTICE = (
    "{name} is the small set bundled with jdp, not D4RL data: D4RL-style rollouts of {policy}; "
    "never compare its scores with published D4RL numbers"
)


def load(
    name: str,
    *,
    source: Source = "auto",
    env_id: str | None = None,
    max_episode_steps: int | None = None,
    actions: Units = "auto",
    progress: Progress | None = None,
    making: Making = Making(),  # noqa: B008 (immutable)
    mapped: Path | None = None,
) -> Episodes:
    """The dataset `name`: of D4RL, Minari, OGBench or a scene ("jdp/Cue-v0"), a bundled set, or a file.

    A D4RL name without a version means the newest. It is looked up on disk (`$D4RL_DATASET_DIR`, else
    `~/.d4rl/datasets`), then downloaded. Where that fails, `maze2d-*-v1` is made again by D4RL's recipe (see
    `jdp.data.recipes`), `hopper-medium` and `walker2d-medium` fall back on the bundled sets, and
    `origin` then says so. An OGBench name is looked up on disk (`$OGBENCH_DATA_DIR`, else `~/.ogbench/data`);
    `source="recipe"` makes some of them again, which takes minutes to hours. Those of scenes take seconds.

    Files are of the D4RL layout (HDF5) or of OGBench's (npz). D4RL's maze2d arrives in the coordinates of
    PointMaze (see `jdp.data.maze2d`).

    Args:
        source: forces one way instead of the order above.
        env_id: Gymnasium task for evaluation; beats what the source says. "maze2d-large-v1" says that a
            file is one of D4RL's maze2d.
        max_episode_steps: time limit of the task; beats what the source or Gymnasium says.
        actions: whether a file's actions are in the units of the "task", whose box need not be [-1, 1], or
            "scaled" to [-1, 1] already; "auto": of the task, and refused where they look scaled. Of
            `Episodes` they always lie within [-1, 1], and `spec` has the task's box.
        progress: called with (bytes done, bytes in all or None) during a download.
        making: seed, number of rows, progress and processes of a recipe.
        mapped: a folder, where the arrays of an HDF5 file are copied to, piece by piece, as files that are
            read where they are touched; else all of them are read into memory.

    Raises:
        UserError: for an unknown name, a failed download, or a file that cannot be used.
    """
    name = name.rstrip("/") or name
    asked = Asked(env_id, max_episode_steps, actions)
    if max_episode_steps is not None and max_episode_steps < 1:
        raise UserError(f"max_episode_steps is {max_episode_steps}: it must be at least 1")
    match _resolve(name, source):
        case "file":
            return _load_file(at_home(name), asked, mapped)
        case "minari":
            from jdp.data.minari import load_minari

            return load_minari(name, asked)
        case "ogbench":
            from jdp.data.ogbench import load_ogbench

            return load_ogbench(name, asked)
        case "bundled":
            return _load_bundled(name, asked, mapped)
        case "recipe":
            return _load_recipe(name, asked, mapped, making)
        case _:
            made = partial(_load_recipe, name, asked, mapped, making)
            return _load_d4rl(name, asked, progress, mapped, made if source == "auto" else None)


def at_home(name: str | Path) -> Path:
    """A path with the ~ expanded that no shell expands behind `=` or in quotes.

    Raises:
        UserError: if this user has no home folder.
    """
    try:
        return Path(name).expanduser()
    except RuntimeError as error:
        raise UserError(f"{name}: this user has no home folder, write the path in full") from error


def _resolve(name: str, source: str) -> str:
    if source not in get_args(Source):
        raise UserError(f"unknown source {source!r}: choose one of {', '.join(get_args(Source))}")
    if source != "auto":
        return source
    path = at_home(name)
    if path.is_file():
        return "file"
    if names.full_d4rl_name(name) is not None:
        return "d4rl"
    if name in names.BUNDLED:
        return "bundled"
    if is_ogbench_data(name):
        return "ogbench"
    if name in SCENES:
        return "recipe"
    written = name.startswith(("/", ".", "~")) or path.suffix in (".hdf5", ".h5", ".npz")
    if not written and "/" in name and re.search(r"-v\d+$", name):
        return "minari"  # also where a folder has that name: an id that exists wins
    if written or path.is_dir():
        return "file"  # whose reader says what is wrong with it
    if "/" in name:
        return "minari"
    raise names.to_collect(name) or names.unknown(name)


def _load_d4rl(
    name: str,
    asked: Asked,
    progress: Progress | None,
    mapped: Path | None,
    made: Callable[[str], Episodes] | None,
) -> Episodes:
    """D4RL's own file; where it cannot be had, and `made` is given, what stands in for it."""
    full = names.full_d4rl_name(name)
    if full is None:
        raise names.unknown(name)
    reference = names.reference_table()[full]
    why = ""
    try:
        path = d4rl.local_path(reference.url)
        if not path.is_file():
            why = f"{full} is not on disk, and: "
            download(reference.url, path, check=d4rl.check_layout, progress=progress)
    except UserError as error:
        if made is not None and name in names.BUNDLED:
            return _load_bundled(name, asked, mapped, f"{why}{error}")
        if made is not None and recipes.find(full) is not None:
            return made(f"{why}{error}")
        raise
    notice = ""
    task = asked.env_id or names.d4rl_env_id(full)
    if task == "Ant-v4":
        notice = "D4RL's ant observations hold contact forces: make Ant-v4 with use_contact_forces=True"
    origin = Origin(f"{full} (D4RL)", "d4rl", str(path), "", 0, d4rl.LICENCE, notice)
    return _read(path, origin, full, asked, mapped, names.d4rl_env_id(full), reference)


def _load_recipe(name: str, asked: Asked, mapped: Path | None, making: Making, why: str = "") -> Episodes:
    full = names.full_d4rl_name(name) or name
    if (recipe := recipes.find(ogbench_rows(full))) is None:
        raise UserError(f"no recipe makes {name!r}: there are {', '.join(recipes.NAMES)}")
    path, called = recipes.made(recipe, making), recipe.called(full, making)
    notice = recipe.notice() + (f" (used because {why})" if why else "")
    if path.suffix == ".npz":
        from jdp.data.ogbench import load_npz

        data = load_npz(path, called, "recipe", recipe.licence, asked, full)
        return replace(data, origin=data.origin.noting(notice))
    origin = Origin(called, "recipe", str(path), "", 0, recipe.licence, notice)
    return _read(path, origin, full, asked, mapped)


def _load_bundled(name: str, asked: Asked, mapped: Path | None, why: str = "") -> Episodes:
    if name not in names.BUNDLED:
        raise names.to_collect(name) or UserError(
            f"no bundled dataset {name!r}: jdp brings {', '.join(names.BUNDLED)}"
        )
    path = names.BUNDLED_DIR / f"{name}.hdf5"
    notice = _BUNDLED_NOTICE.format(name=name, policy=names.BUNDLED[name]) + (
        f" (used because {why})" if why else ""
    )
    origin = Origin(f"{name} (bundled, d4rl-style)", "bundled", str(path), "", 0, "MIT", notice)
    return _read(path, origin, name, asked, mapped)


def _load_file(path: Path, asked: Asked, mapped: Path | None) -> Episodes:
    licence = "unknown: a file of yours"
    if path.suffix == ".npz":
        from jdp.data.ogbench import load_npz

        return load_npz(path, f"{path.name} (file)", "file", licence, asked)
    origin = Origin(f"{path.name} (file)", "file", str(path), "", 0, licence)
    return _read(path, origin, path.name, asked, mapped)


def _score_range(
    env_id: str | None, limit: int | None, reference: names.Reference | None
) -> tuple[float, float] | None:
    if env_id in SCENES:
        return SCENES[env_id].task.spec.score_range
    return reference.score_range if reference and limit == reference.max_episode_steps else None


def _read(
    path: Path,
    origin: Origin,
    called: str,
    asked: Asked,
    mapped: Path | None,
    named_env_id: str | None = None,
    reference: names.Reference | None = None,
) -> Episodes:
    digest = d4rl.sha256(path) if path.is_file() else ""
    arrays = d4rl.read(path) if mapped is None else copy_d4rl(path, mapped / digest[:16])
    env_id = asked.env_id
    if (maze := maze2d.recognise(path, arrays, env_id, called)) is not None:
        arrays = maze2d.in_point_maze(path, arrays, maze)
        env_id = env_id if (env_id or "").startswith("PointMaze_") else POINT_ENV_IDS[maze.maze]
        reference = names.reference_table()[maze.dataset]
        origin = origin.noting(maze2d.NOTICE)
    env_id = env_id or arrays.metadata.get("env_id") or named_env_id
    limit = asked.limit(reference.max_episode_steps if reference else None, env_id)
    reference = reference or names.locomotion_reference(env_id, limit)
    if origin.kind == "file" and {"dataset", "d4rl_style"} <= arrays.metadata.keys():  # of jdp.data.family
        told = f"{arrays.metadata['dataset']} (d4rl-style: {arrays.metadata['d4rl_style']})"
        origin = replace(origin, name=told, licence="yours: made by jdp")
    if origin.kind == "file" and reference is not None:
        origin = origin.noting(names.scale_notice(origin.name, env_id))
    width = arrays.observations.shape[1]
    # D4RL's antmaze has no task here: its mazes have another origin.
    antmaze = called.startswith("antmaze-") and width == 29
    spec = Spec(
        observation_dim=width,
        action_dim=arrays.actions.shape[1],
        env_id=env_id,
        max_episode_steps=limit,
        score_range=_score_range(env_id, limit, reference),
        goal=(0, 1) if antmaze else goal_entries(env_id, width),
        env_spec=arrays.metadata.get("env_spec") if asked.env_id is None else None,
    )
    box = box_from(arrays.metadata)
    units = "task" if box is not None and asked.actions == "auto" else asked.actions
    actions, spec, notice = unit_box(arrays.actions, spec, str(path), units, box)
    return make_episodes(
        *arrays._replace(actions=actions)[:6],
        spec=spec,
        origin=replace(origin.noting(notice), sha256=digest, size=path.stat().st_size),
        marked=maze is not None,
    )
