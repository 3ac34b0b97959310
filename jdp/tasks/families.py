"""Families of task names: which package brings them, and which entries of an observation are the goal's."""

import contextlib
import importlib
import io
import re
import warnings
from typing import NamedTuple

from jdp.errors import UserError
from jdp.tasks import mazes


class _Family(NamedTuple):
    pattern: re.Pattern[str]
    package: str  # whose import registers the tasks
    extra: str  # of jdp, that installs it


_ROBOTICS = re.compile(r"(PointMaze|AntMaze|FrankaKitchen|Fetch|Hand|AdroitHand)\w*-v\d+")
_OGBENCH = re.compile(
    r"(visual-)?(pointmaze|antmaze|humanoidmaze|antsoccer|cube|scene|puzzle|powderworld)-.*v0"
)
_DATA = "navigate|stitch|explore|play|noisy"  # what OGBench calls its datasets, beside the task
_SINGLE = re.compile(r"-singletask(-task[1-5])?(?=-v0(-val)?$)")
_FAMILIES = (
    _Family(re.compile(r"FrankaKitchen-v\d+"), "gymnasium_robotics", "kitchen"),
    _Family(_ROBOTICS, "gymnasium_robotics", "robotics"),
    _Family(_OGBENCH, "ogbench", "ogbench"),
    _Family(re.compile(r"jdp/\w+-v\d+"), "jdp.tasks.task_env", ""),
)
# MuJoCo's tasks whose actions lie within [-1, 1]; so do those of the other families.
_UNIT_ACTIONS = re.compile(r"(Ant|HalfCheetah|Hopper|Walker2d|Swimmer|Reacher)-v\d+")
# Tasks whose models are full of textures or meshes: 50 ms to 500 ms to make, .1 ms to 3 ms to reset.
_SLOW_TO_MAKE = re.compile(r"(PointMaze_|cube-|scene-|puzzle-).*")
_LIMITS = {"umaze": 300, "open": 300, "medium": 600, "large": 800}  # of PointMaze, as in D4RL's maze2d


def _family(env_id: str) -> _Family | None:
    return next((family for family in _FAMILIES if family.pattern.fullmatch(env_id)), None)


def register(env_id: str) -> None:
    """Makes `env_id` known to Gymnasium, where a package outside it brings the task.

    Raises:
        UserError: naming the extra of jdp to install, where the package is missing.
    """
    family = _family(env_id)
    if family is None:
        return
    try:
        # gymnasium-robotics writes of another task's rewards when it is first imported.
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            importlib.import_module(family.package)
    except ImportError as error:
        package = family.package.replace("_", "-")
        raise UserError(f'{env_id} needs {package}: pip install "jdp[{family.extra}]"') from error


def has_unit_actions(env_id: str) -> bool:
    """Whether the actions of `env_id` are known to lie within [-1, 1], without making the task."""
    return _UNIT_ACTIONS.fullmatch(env_id) is not None or _family(env_id) is not None


def is_slow_to_make(env_id: str) -> bool:
    """Whether making `env_id` takes longer than the steps of many an episode in it."""
    return _SLOW_TO_MAKE.fullmatch(env_id) is not None


def explain(env_id: str, error: Exception) -> str | None:
    """Why `env_id` cannot be made although its package is there, where the reason is known."""
    if isinstance(error, AssertionError) and re.match("FrankaKitchen|Fetch|Hand", env_id):
        return f'{env_id} does not run on this version of mujoco: pip install "jdp[kitchen]"'
    return None


def is_ogbench(env_id: str | None) -> bool:
    """Whether `env_id` has the form of OGBench's names, of tasks or of datasets."""
    return _OGBENCH.fullmatch(env_id or "") is not None


def is_ogbench_data(name: str) -> bool:
    """Whether `name` has the form of an OGBench dataset, "pointmaze-large-navigate-v0", also with "-val", or
    relabelled for one task, "cube-single-play-singletask-task2-v0"."""
    name = ogbench_rows(name).removesuffix("-val")
    return is_ogbench(name) and re.search(rf"-({_DATA})-v0$", name) is not None


def is_single_task(env_id: str | None) -> bool:
    """Whether `env_id` names one of OGBench's single tasks (its default one where no number is given)."""
    return is_ogbench(env_id) and _SINGLE.search(env_id or "") is not None


def ogbench_rows(name: str) -> str:
    """The dataset of OGBench whose rows `name` has: that of single tasks is relabelled, not another one."""
    return _SINGLE.sub("", name)


def gymnasium_id(env_id: str) -> str:
    """What Gymnasium calls `env_id`: OGBench's datasets name the kind of data too."""
    return re.sub(rf"-({_DATA})(?=-)", "", env_id, count=1) if is_ogbench(env_id) else env_id


def goal_entries(env_id: str | None, observation_dim: int) -> tuple[int, ...]:
    """The entries of the flat observation of `env_id` that a goal prescribes; () where there are no goals.

    The position in mazes, the ball's in antsoccer, and everything in OGBench's manipulation tasks; nothing
    in its single tasks, whose rewards tell the goal.
    """
    env_id = env_id or ""
    if is_single_task(env_id):
        return ()
    places = ("AntMaze_", "jdp/DoubleIntegrator-")
    if env_id.startswith(places) or mazes.maze_of(env_id) is not None:
        return (0, 1)
    if not is_ogbench(env_id):
        return ()
    task = env_id.removeprefix("visual-").partition("-")[0]
    if task.endswith("maze"):
        return (0, 1)
    return (15, 16) if task == "antsoccer" else tuple(range(observation_dim))


def episode_limit(env_id: str | None) -> int | None:
    """Steps of an episode of a PointMaze task; None for other tasks, which say it themselves."""
    match = re.match(r"PointMaze_(UMaze|Open|Medium|Large)", env_id or "")
    return _LIMITS[match[1].lower()] if match else None
