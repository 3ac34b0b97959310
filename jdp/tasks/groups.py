"""Named groups of an observation's entries: what a policy sees first, often, or not at all."""

import re
from collections.abc import Sequence

from jdp.errors import UserError
from jdp.tasks import mazes
from jdp.tasks.scenes import SCENES
from jdp.types import Spec

Groups = tuple[tuple[str, tuple[int, ...]], ...]
# Of MuJoCo's bodies: how many positions there are, and how many velocities after them.
_BODIES = {"Hopper": (5, 6), "HalfCheetah": (8, 9), "Walker2d": (8, 9), "Swimmer": (3, 5), "Ant": (13, 14)}


def groups_of(spec: Spec) -> Groups:
    """The groups of `spec`, or those that its task is known to have; one of everything for other tasks.

    Scenes name their own. Mazes and MuJoCo's bodies have "position" and "velocity"; what follows is "rest".
    """
    if spec.groups:
        return spec.groups
    name, width = spec.env_id or "", spec.observation_dim
    if name in SCENES and width == SCENES[name].task.spec.observation_dim:
        return SCENES[name].task.spec.groups
    sizes = _BODIES.get(name.partition("-")[0])
    if name.startswith("jdp/DoubleIntegrator") or (width == 4 and mazes.maze_of(name) is not None):
        sizes = (2, 2)
    if sizes is None or sum(sizes) > width:
        return (("observation", tuple(range(width))),)
    found, begin = [], 0
    for part, size in zip(("position", "velocity", "rest"), (*sizes, width - sum(sizes)), strict=True):
        found.append((part, tuple(range(begin, begin + size))))
        begin += size
    return tuple((part, entries) for part, entries in found if entries)


def is_body(spec: Spec) -> bool:
    """Whether the task moves one of MuJoCo's bodies, whose torso's height or first angle stands first."""
    return (spec.env_id or "").partition("-")[0] in _BODIES


def group(spec: Spec, name: str) -> tuple[int, ...]:
    """The entries of the group `name`.

    Raises:
        UserError: if there is no such group, with those that there are.
    """
    known = dict(groups_of(spec))
    if name not in known:
        raise UserError(
            f"{spec.env_id or 'the observation'} has no group {name!r}, but {', '.join(known)}: choose "
            "one of these, or name the groups (--groups position:0-1 velocity:2-3)"
        )
    return known[name]


def parse(told: Sequence[str], observation_dim: int) -> Groups:
    """Groups of a command line, `("position:0-1", "velocity:2,3")`, of observations of that width.

    Raises:
        UserError: for what cannot be read, names given twice, and entries that are not there.
    """
    found: dict[str, tuple[int, ...]] = {}
    for text in told:
        name, _, entries = text.partition(":")
        if not re.fullmatch(r"\w+:\d+(-\d+)?(,\d+(-\d+)?)*", text) or name in found:
            raise UserError(f"--groups {text}: write each group once, as position:0-1 or position:0,1,5-7")
        bounds = [[int(end) for end in part.split("-")] for part in entries.split(",")]
        if any(ends[0] > ends[-1] for ends in bounds):
            raise UserError(f"--groups {text}: write entries from low to high")
        found[name] = tuple(entry for ends in bounds for entry in range(ends[0], ends[-1] + 1))
        if max(found[name]) >= observation_dim:
            raise UserError(f"--groups {text}: the observation has the entries 0 to {observation_dim - 1}")
    return tuple(found.items())
