"""Gymnasium tasks by name, with one clear line where a name is wrong."""

import re
import warnings
from typing import Any

import gymnasium as gym

from jdp.errors import UserError
from jdp.tasks import families

_MUJOCO = (
    "Ant|HalfCheetah|Hopper|Humanoid|HumanoidStandup|InvertedPendulum|InvertedDoublePendulum|"
    "Pusher|Reacher|Swimmer|Walker2d"
)


def make_env(
    env_id: str | None,
    *,
    max_episode_steps: int | None = None,
    render_mode: str | None = None,
    **settings: Any,
) -> gym.Env:
    """The task `env_id`, for instance "Hopper-v5"; `max_episode_steps` replaces its own time limit.

    Tasks of gymnasium-robotics and OGBench need the extras `robotics`, `kitchen` and `ogbench`. `settings`
    are the task's own. Observations are what the task gives, dicts among them; see `make_goal_env`.

    Raises:
        UserError: if there is no such task, or what it needs is not installed.
    """
    if env_id is None:
        raise UserError("this dataset names no simulator task: give an env_id, for instance 'Hopper-v5'")
    if old := re.fullmatch(rf"({_MUJOCO})-v[0-3]", env_id):
        raise UserError(
            f"{env_id} needs the discontinued mujoco-py: use {old[1]}-v4 (same task and observations, "
            f"fit for D4RL data) or {old[1]}-v5"
        )
    families.register(env_id)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # "v4 is out of date": D4RL data need it
            # Not every task takes a render_mode, so none is passed where none is wanted.
            rendering: dict[str, Any] = {} if render_mode is None else {"render_mode": render_mode}
            name = families.gymnasium_id(env_id)
            return gym.make(name, max_episode_steps=max_episode_steps, **rendering, **settings)
    except (gym.error.Error, ImportError, AssertionError) as error:
        if (why := families.explain(env_id, error)) is not None:
            raise UserError(why) from error
        if isinstance(error, AssertionError):
            raise
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(f"Gymnasium cannot make {env_id!r}: {reason}") from error
