"""A D4RL-style family of sets, of one agent's training (Fu et al. 2020, arXiv 2004.07219, section 5).

`random` is of uniform actions; `expert` of the best policy; `medium` of a policy at about a third of the
expert's return; `medium-replay` is the replay buffer up to that policy; `medium-expert` is both sets.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from jdp.data.episodes import Episodes
from jdp.errors import UserError
from jdp.types import Spec, Transition

QUALITIES = ("random", "medium-replay", "medium", "expert", "medium-expert")
TASKS = {"Hopper-v5": "hopper", "HalfCheetah-v5": "halfcheetah", "Walker2d-v5": "walker2d"}
MEDIUM = 1 / 3  # of the way from the random policy's return to the expert's


class Snapshot(NamedTuple):
    """A policy of the training, and how it did."""

    update: int
    mean_return: float  # of whole episodes, played as the sets are rolled out


class Chosen(NamedTuple):
    """The policies that a family is rolled out with."""

    medium: Snapshot
    expert: Snapshot


def choose(snapshots: Sequence[Snapshot], random_return: float) -> Chosen:
    """The best snapshot, and of those up to it the nearest to a third of its return; the earlier of equals.

    Returns are measured from `random_return`, as D4RL's scores are, for the cheetah's may be negative.

    Raises:
        UserError: if there is no snapshot of a finite return.
    """
    known = sorted(one for one in snapshots if np.isfinite(one.mean_return))
    if not known:
        raise UserError("no snapshot was evaluated: let the training run on with --resume")
    expert = max(known, key=lambda one: one.mean_return)  # the first of equals
    wanted = random_return + MEDIUM * (expert.mean_return - random_return)
    before = [one for one in known if one.update <= expert.update]
    return Chosen(min(before, key=lambda one: abs(one.mean_return - wanted)), expert)


def joined(*sets: Episodes) -> tuple[Transition, np.ndarray]:
    """The rows of all sets, one set after another: `(transitions [N, ...], timeouts [N])`."""

    def column(name: str) -> np.ndarray:
        return np.concatenate([getattr(one, name) for one in sets])

    rows = Transition(
        observation=column("observations"),  # type: ignore[arg-type]
        action=column("actions"),  # type: ignore[arg-type]
        reward=column("rewards"),  # type: ignore[arg-type]
        next_observation=column("next_observations"),  # type: ignore[arg-type]
        terminal=column("terminals").astype(np.float32),  # type: ignore[arg-type]
    )
    return rows, column("timeouts")


def made_by(quality: str, agent: str, seed: int, medium: int = 0, expert: int = 0) -> str:
    """What a set is of, in the words that stand in its name.

    Args:
        agent: as its authors write it.
        medium, expert: steps of the task after which the policies were taken.
    """
    steps = {
        "random": "",
        "medium": f", {medium:,} steps",
        "expert": f", {expert:,} steps",
        "medium-replay": f", the first {medium:,} steps",
        "medium-expert": f", {medium:,} and {expert:,} steps",
    }[quality]
    return f"uniform actions, seed {seed}" if quality == "random" else f"{agent} of jdp, seed {seed}{steps}"


def check_task(env_id: str) -> str:
    """What D4RL calls the task: "hopper" of "Hopper-v5".

    Raises:
        UserError: if it is none of the tasks that D4RL has such families of.
    """
    if env_id not in TASKS:
        raise UserError(f"{env_id}: D4RL-style families are made of {', '.join(TASKS)}")
    return TASKS[env_id]


def facts_of(quality: str, spec: Spec, told: str) -> dict[str, str]:
    """The metadata of a set's file, of which `jdp.data.load` makes its name; `told` is of `made_by`."""
    return {"dataset": f"{TASKS[str(spec.env_id)]}-{quality}", "d4rl_style": told}
