"""Gymnasium tasks by name, or as a dataset describes its own; one clear line where one cannot be made."""

import json
import os
import re
import warnings
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.envs.registration import EnvSpec

from jdp.errors import UserError
from jdp.tasks import families
from jdp.types import Spec

_MUJOCO = (
    "Ant|HalfCheetah|Hopper|Humanoid|HumanoidStandup|InvertedPendulum|InvertedDoublePendulum|"
    "Pusher|Reacher|Swimmer|Walker2d"
)
Task = str | Spec | None  # the id of a task, or what a dataset says of its task


def make_env(
    task: Task,
    *,
    max_episode_steps: int | None = None,
    render_mode: str | None = None,
    **settings: Any,
) -> gym.Env:
    """The task `task`, for instance "Hopper-v5"; `max_episode_steps` replaces its own time limit.

    Of a `Spec` it is the task as the dataset describes it: with its settings and wrappers, its time limit,
    and actions within [-1, 1], which are mapped into the task's own box.

    Tasks of gymnasium-robotics and OGBench need the extras `robotics`, `kitchen` and `ogbench`. `settings`
    are the task's own. Observations are what the task gives, dicts among them; see `make_goal_env`.

    Raises:
        UserError: if there is no such task, or what it needs is not installed.
    """
    spec = task if isinstance(task, Spec) else Spec(0, 0, task)
    if spec.env_id is None:
        raise UserError("this dataset names no simulator task: give an env_id, for instance 'Hopper-v5'")
    limit = spec.max_episode_steps if max_episode_steps is None else max_episode_steps
    # Not every task takes a render_mode, so none is passed where none is wanted.
    rendering: dict[str, Any] = {} if render_mode is None else {"render_mode": render_mode}
    env = _made(spec, max_episode_steps=limit, **rendering, **settings)
    if spec.action_low is None:
        return env
    unit = gym.spaces.Box(-1.0, 1.0, (len(spec.action_low),), np.float32)
    return gym.wrappers.TransformAction(env, spec.task_actions, unit)


def _made(spec: Spec, **arguments: Any) -> gym.Env:
    env_id = str(spec.env_id)
    if old := re.fullmatch(rf"({_MUJOCO})-v[0-3]", env_id):
        raise UserError(
            f"{env_id} needs the discontinued mujoco-py: use {old[1]}-v4 (same task and observations, "
            f"fit for D4RL data) or {old[1]}-v5"
        )
    families.register(env_id)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # "v4 is out of date": D4RL data need it
            known = described(spec)
            return gym.make(families.gymnasium_id(env_id) if known is None else known, **arguments)
    except (gym.error.Error, ImportError, AssertionError, AttributeError, RuntimeError) as error:
        if (why := families.explain(env_id, error)) is not None:
            raise UserError(why) from error
        if (backend := os.environ.get("MUJOCO_GL")) and not isinstance(error, gym.error.Error):
            raise UserError(
                f"{env_id} cannot be made with MUJOCO_GL={backend} ({first_line(error)}): this renderer is "
                "not installed here; unset MUJOCO_GL, or choose egl, osmesa or glfw"
            ) from error
        if not isinstance(error, gym.error.Error | ImportError):
            raise
        raise UserError(f"Gymnasium cannot make {env_id!r}: {first_line(error)}") from error


def first_line(error: Exception) -> str:
    """What an exception says in its first line; its type where it says nothing."""
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__


def described(spec: Spec) -> EnvSpec | None:
    """Gymnasium's description in `spec.env_spec`; None where the id says all."""
    return None if spec.env_spec is None else EnvSpec.from_json(spec.env_spec)


def description(found: EnvSpec) -> str | None:
    """`found` as `Spec.env_spec`: JSON, or None where its id means the same task but for the time limit."""
    try:
        families.register(found.id)
        known = gym.registry.get(found.id)
    except UserError:
        known = None

    def told(spec: EnvSpec) -> dict[str, Any]:
        kwargs = {k: v for k, v in spec.kwargs.items() if k != "render_mode"}
        return json.loads(
            json.dumps(
                {
                    "entry_point": str(spec.entry_point),
                    "kwargs": kwargs,
                    "wrappers": [w.name for w in spec.additional_wrappers],
                },
                default=str,
            )
        )

    if known is not None and told(known) == told(found):
        return None
    clean = EnvSpec.from_json(found.to_json())
    clean.kwargs.pop("render_mode", None)
    if clean.max_episode_steps is not None:  # older versions of Gymnasium wrote 300.0
        clean.max_episode_steps = int(clean.max_episode_steps)
    return clean.to_json()


def settings_of(spec: Spec) -> dict[str, Any]:
    """The settings by which the dataset's task differs from that of its id; {} where it does not."""
    found = described(spec)
    known = gym.registry.get(found.id) if found is not None else None
    usual = {} if known is None else json.loads(json.dumps(known.kwargs, default=str))
    return (
        {}
        if found is None
        else {k: v for k, v in found.kwargs.items() if usual.get(k, v) != v or k not in usual}
    )


def registered_limit(env_id: str | None) -> int | None:
    """The time limit that Gymnasium has for `env_id`; None where it knows no such task, or no limit."""
    if env_id is None:
        return None
    try:
        families.register(env_id)
        limit = gym.spec(families.gymnasium_id(env_id)).max_episode_steps
    except (UserError, gym.error.Error, ImportError):
        return None
    return None if limit is None else int(limit)


def action_box(task: Task) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """`(low [A], high [A])` of the task's actions; None where they are [-1, 1] or have no bounds.

    Raises:
        UserError: if the task cannot be made here.
    """
    env = make_env(task)
    space = env.action_space
    env.close()
    return None if not isinstance(space, gym.spaces.Box) else box_of(space)


def box_of(space: gym.spaces.Box) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """`(low [A], high [A])` of a space of vectors; None where it is [-1, 1] or has no bounds."""
    low, high = np.asarray(space.low, np.float64), np.asarray(space.high, np.float64)
    unit = np.allclose(low, -1.0) and np.allclose(high, 1.0)
    if unit or low.ndim != 1 or not (np.isfinite(low).all() and np.isfinite(high).all()):
        return None
    return tuple(low.tolist()), tuple(high.tolist())
