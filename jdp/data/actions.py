"""What is asked of a dataset's task, and how its actions come in: to [-1, 1], where all methods work."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from jdp.data.checks import ACTION_TOLERANCE, scaled_actions
from jdp.errors import UserError
from jdp.tasks import families
from jdp.types import Spec

Units = Literal["auto", "task", "scaled"]
Box = tuple[tuple[float, ...], tuple[float, ...]]
SATURATED = 0.999  # a channel that reaches this and never leaves [-1, 1] looks scaled


@dataclass(frozen=True)
class Asked:
    """What the user says of a dataset's task; it beats what the source says."""

    env_id: str | None = None
    max_episode_steps: int | None = None
    actions: Units = "auto"

    def limit(self, said: int | None, env_id: str | None) -> int | None:
        """The one time limit: as asked, as the source has `said`, or as is known of the task `env_id`."""
        if self.max_episode_steps is not None:
            return self.max_episode_steps
        known = said or families.episode_limit(env_id)
        if known is not None or env_id is None:
            return known
        from jdp.tasks.environments import registered_limit

        return registered_limit(env_id)


def box_from(metadata: Mapping[str, str]) -> Box | None:
    """The box that a file of jdp's says its actions are in (see `jdp.data.export`); None for other files."""
    try:
        low, high = json.loads(metadata["action_box"])
        return tuple(map(float, low)), tuple(map(float, high))
    except (KeyError, ValueError, TypeError):
        return None


def task_box(spec: Spec) -> tuple[Box | None, str]:
    """The box of the dataset's task where it is not [-1, 1], and why it is not known ("" where it is)."""
    if spec.env_id is None:
        return None, "the dataset names no task: give env_id"
    if spec.env_spec is None and families.has_unit_actions(spec.env_id):
        return None, ""
    from jdp.tasks.environments import action_box

    try:
        return action_box(spec), ""
    except UserError as error:
        return None, str(error)


def unit_box(
    actions: np.ndarray, spec: Spec, where: str, units: Units = "auto", box: Box | None = None
) -> tuple[np.ndarray, Spec, str]:
    """`(actions [N, A] within [-1, 1], spec with the task's box, what to tell the user)`.

    Args:
        units: "task": as the task takes them; "scaled": within [-1, 1] already; "auto": as the task takes
            them, but for data that look scaled, which are refused.
        box: of the task, where the dataset says it; otherwise the task is asked.

    Raises:
        UserError: where an action lies outside the box, or data may be read either way.
    """
    unknown = ""
    if box is None:
        box, unknown = task_box(spec)
    if box is None:
        _within(actions, where, unknown)
        return actions, spec, ""
    spec = replace(spec, action_low=box[0], action_high=box[1])
    named = f"[{_short(box[0])}, {_short(box[1])}] of {spec.env_id or 'the task'}"
    if units == "scaled":
        scaled_actions(actions, where)
        return actions, spec, f"actions are scaled: policies play in the box {named}"
    found = np.abs(actions).max(axis=0)
    wider = max(np.abs(box[0]).max(), np.abs(box[1]).max()) > 1 + ACTION_TOLERANCE
    if units == "auto" and wider and (found >= SATURATED).all() and (found <= 1 + ACTION_TOLERANCE).all():
        raise UserError(
            f"{where}: actions reach 1 and never leave [-1, 1], while the box is {named}: say with --actions "
            "(actions='scaled' or 'task') whether they are scaled or in the units of the task"
        )
    actions = spec.unit_actions(actions)
    if float(np.abs(actions).max()) > 1 + ACTION_TOLERANCE:
        row = int(np.argmax(np.abs(actions).max(axis=1)))
        raise UserError(
            f"{where}: the action of row {row} lies outside the box {named}: clip them as the task does, or "
            "give --actions scaled if they are scaled to [-1, 1] already"
        )
    return actions, spec, f"actions are mapped from the box {named} to [-1, 1], and back where a policy plays"


def _within(actions: np.ndarray, where: str, unknown: str) -> None:
    try:
        scaled_actions(actions, where)
    except UserError as error:
        raise UserError(f"{error} ({unknown})" if unknown else str(error)) from None


def _short(bounds: tuple[float, ...]) -> str:
    same = len(set(bounds)) == 1
    return f"{bounds[0]:g}" if same else "(" + ", ".join(f"{b:g}" for b in bounds) + ")"
