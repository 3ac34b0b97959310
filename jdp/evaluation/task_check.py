"""Whether a dataset's task can be played, asked before anything is trained."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from jdp.data import Episodes
from jdp.data.checks import check_same_task
from jdp.errors import UserError
from jdp.evaluation.goal_tasks import environment_maker, protocol


def check_task(data: Episodes, *, goals: bool = True, place: Mapping[str, Any] | None = None) -> None:
    """Raises `UserError` unless the dataset's task can be made, ends its episodes, and has the data's shapes.

    Args:
        goals: whether the method is told goals; agents are not, and play no tasks with goals but D4RL's
            maze2d, whose one goal the rewards tell.
        place: where episodes in a maze are to begin and lead; it must be free.
    """
    spec, name = data.spec, data.origin.name
    if spec.env_id is None:
        raise UserError(f"{name} names no task to play in: give --env-id, e.g. Hopper-v5")
    if spec.goal and not goals and protocol(spec) is None:
        raise UserError(f"{spec.env_id} has goals, of which agents know nothing: use plan.py or policies.py")
    env = environment_maker(spec)()
    try:
        if env.max_episode_steps is None:
            raise UserError(f"{spec.env_id} has no time limit: give --max-episode-steps")
        env.reset(0, **(place or {}))
    finally:
        env.close()
    task = replace(spec, observation_dim=env.observation_dim, action_dim=env.action_dim)
    check_same_task(name, spec, task, "give the task it was collected in with --env-id")
