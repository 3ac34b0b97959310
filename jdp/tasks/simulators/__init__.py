"""Simulators in JAX, so that rollouts, learning and evaluation run inside one compiled program."""

from functools import lru_cache

from jdp.errors import UserError
from jdp.tasks import maze2d
from jdp.tasks.mazes import POINT_ENV_IDS
from jdp.tasks.scenes import SCENES
from jdp.tasks.simulators import pendulum, swap, tuned
from jdp.tasks.simulators.batch import Outcome, Running, advance, begin, renewed
from jdp.tasks.simulators.chunked import chunked
from jdp.tasks.simulators.double_integrator import ENV_ID, double_integrator_task
from jdp.tasks.simulators.goals import observed_goal
from jdp.tasks.simulators.locomotion import BODIES, locomotion_task
from jdp.tasks.simulators.point_maze import maze2d_task, point_maze_task
from jdp.tasks.simulators.swap import Swap, swap_task
from jdp.tasks.simulators.tuned import tuned_task
from jdp.types import Task

__all__ = [
    "BODIES",
    "Outcome",
    "Running",
    "Swap",
    "advance",
    "begin",
    "chunked",
    "double_integrator_task",
    "locomotion_task",
    "maze2d_task",
    "names",
    "observed_goal",
    "point_maze_task",
    "renewed",
    "simulator",
    "swap_task",
    "tuned_task",
]


def names() -> tuple[str, ...]:
    """The tasks that `simulator` knows; of datasets' names maze2d's."""
    mazes = (f"maze2d-{name}-v1" for name in maze2d.GOALS)
    own = (ENV_ID, swap.ENV_ID, tuned.ENV_ID, *SCENES)
    return (*POINT_ENV_IDS.values(), *mazes, pendulum.SPEC.env_id or "", *own, *BODIES)


@lru_cache
def simulator(env_id: str) -> Task:
    """The task `env_id` as pure functions; equal names give the same task.

    "PointMaze_Large-v3", "maze2d-large-v1" (D4RL's rules), "Pendulum-v1", "jdp/DoubleIntegrator-v0",
    "jdp/Swap-v0" (four agents), "jdp/SwapTuned-v0" (how cautious two agents are that swap places), the scenes
    ("jdp/Cue-v0", `jdp.tasks.scenes`), and "Hopper-v5", "HalfCheetah-v5" and "Walker2d-v5", which need
    `pip install "jdp[mjx]"`.

    Raises:
        UserError: for a task without a JAX version, or where MJX is needed and missing.
    """
    if (found := maze2d.parse(env_id)) is not None:
        return maze2d_task(found.maze)
    if env_id in POINT_ENV_IDS.values():
        return point_maze_task(next(name for name, known in POINT_ENV_IDS.items() if known == env_id))
    if env_id in BODIES:
        return locomotion_task(env_id)
    if env_id in SCENES:
        return SCENES[env_id].task
    if env_id == ENV_ID:
        return double_integrator_task()
    if env_id == swap.ENV_ID:
        return swap_task()
    if env_id == tuned.ENV_ID:
        return tuned_task()
    if env_id == pendulum.SPEC.env_id:
        return pendulum.TASK
    raise UserError(f"{env_id} has no JAX version: choose one of {', '.join(names())}")
