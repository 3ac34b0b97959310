"""OGBench's datasets of its point mazes and of four manipulation scenes, made again.

After OGBench (Park et al. 2025, arXiv:2410.20092) and its repository (github.com/seohongpark/ogbench: the
generation scripts and their commands). Simulators and scripted oracles are those of the package `ogbench`
(extra `ogbench`); what moves in them is in `ogbench_mazes.py` and `ogbench_play.py`. Every episode has a
seed of its own. The validation part, "-val", is a tenth as many episodes that follow those of training.
"""

import re
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from jdp.data import ogbench
from jdp.data.recipes import blocks
from jdp.data.recipes.ogbench_mazes import NOISE, opened_maze
from jdp.data.recipes.ogbench_play import PLAN_NOISE, SMOOTHING, STACKED, opened_play
from jdp.data.recipes.recipe import Facts, Order, Recipe, Store

LICENCE = "MIT: rows made by jdp (the recipe is OGBench's, whose own files are CC BY 4.0)"
_MAZES, _KINDS, _SCENES = ("medium", "large", "giant", "teleport"), ("navigate", "stitch"), tuple(STACKED)
NAMES = tuple(f"pointmaze-{maze}-{kind}-v0" for maze in _MAZES for kind in _KINDS) + tuple(
    f"{scene}-play-v0" for scene in _SCENES
)


def recipe(name: str) -> Recipe | None:
    """The recipe of a full name, "pointmaze-giant-stitch-v0" or "scene-play-v0-val"; None for others."""
    part = "-val" if name.endswith("-val") else ""
    training = name.removesuffix("-val")
    if training not in NAMES:
        return None
    if maze := re.fullmatch(r"pointmaze-(\w+)-(\w+)-v0", training):
        episodes, steps = _size(maze[1], maze[2])
        opened, facts = partial(opened_maze, maze[1], maze[2], steps), _maze_facts(maze[2])
    else:
        scene, (episodes, steps) = training.removesuffix("-play-v0"), (1000, 1001)
        opened, facts = partial(opened_play, scene, steps), _play_facts(scene)
    facts = {"recipe": "ogbench 1", **facts, "episode": steps}  # goes up where the same seed gives other rows
    rows = (episodes // 10 if part else episodes) * steps
    write = partial(_write, name, opened, steps)
    return Recipe(name, "OGBench", rows, facts, write, _STORE, LICENCE, steps, part)


def _size(maze: str, kind: str) -> tuple[int, int]:
    """Episodes of training, and their rows."""
    if kind == "stitch":
        return 5000, 201
    return (500, 2001) if maze == "giant" else (1000, 1001)


def _maze_facts(kind: str) -> Facts:
    goals = "vertices, the next one at success" if kind == "navigate" else "4 cells away, one an episode"
    return {"controller": "direction of the oracle's subgoal", "noise": NOISE, "goals": goals}


def _play_facts(scene: str) -> Facts:
    low, high = STACKED[scene]
    stacked = low if low == high else f"U({low}, {high})"
    return {"controller": "plan oracles", "noise": PLAN_NOISE, "smoothing": SMOOTHING, "stacked": stacked}


def _write(name: str, opened: blocks.Opened, steps: int, path: Path, order: Order) -> None:
    plan = blocks.Plan(opened, order.seed, order.first // steps, order.rows // steps, steps)
    facts = {
        "dataset": name,
        **order.facts,
        **{package: _version(package) for package in ("ogbench", "mujoco", "numpy")},
    }
    blocks.write(path, plan, facts, processes=order.processes, progress=order.progress)


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "none"


def _told(path: Path) -> tuple[str | None, int]:
    arrays = ogbench.read(path)
    return str(ogbench.facts_of(arrays).get("digest")), len(arrays["terminals"])


_STORE = Store(ogbench.dataset_dir, "OGBENCH_DATA_DIR", ".npz", _told)
