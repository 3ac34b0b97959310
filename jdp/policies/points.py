"""Which entries of what is seen and done are points, and how they are seen from one of them."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, NamedTuple

import jax.numpy as jnp
from jax import Array

from jdp.data.normalise import Affine
from jdp.errors import UserError, check_choices, check_settings
from jdp.learning.observations import observation_affine
from jdp.networks.rope_nd import Scene
from jdp.policies import chunks
from jdp.policies.chunks import ChunkConfig
from jdp.tasks.groups import group
from jdp.types import Spec


@dataclass(frozen=True)
class PointConfig(ChunkConfig):
    """A diffusion of chunks of actions among points."""

    points: tuple[str, ...] = ("position",)
    """Groups of the observation that are points, one or several each; the first of all is the reference. What
    else is seen, such as velocities, stays where the scene moves. Goals that prescribe a point are points."""
    dimension: int = 2
    """Coordinates of a point."""
    actions: Literal["relative", "absolute"] = "relative"
    """relative: actions, such as forces and steps, stay where the scene moves; absolute: they say places in
    the frame of the points, in the units of the task, and move with it."""
    rest: tuple[int, ...] = ()
    """Entries of an action that are no positions, such as rotations: their noise has another schedule."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choices(self)
        check_settings(type(self).__name__, dimension=(self.dimension, 1, 3))
        if not self.points:
            raise UserError(f"{type(self).__name__}.points is empty: name groups of the observation")

    @property
    def place(self) -> tuple[int, ...]:
        """Entries of an action that say where it lies."""
        free = [entry for entry in range(self.dimension + len(self.rest)) if entry not in self.rest]
        return tuple(free[: self.dimension]) if self.actions == "absolute" else ()


class Layout(NamedTuple):
    """Entries of `chunks.condition` that are points, the reference first, and those that are none."""

    points: tuple[tuple[int, ...], ...]
    features: tuple[int, ...]


def _points(config: PointConfig, spec: Spec) -> list[tuple[int, ...]]:
    found, n = [], config.dimension
    for name in config.points:
        entries = group(spec, name)
        if len(entries) % n:
            raise UserError(
                f"the group {name!r} has {len(entries)} entries: points have {n} (--settings.dimension), so "
                "choose other groups (--settings.points; --groups names them)"
            )
        found += [entries[i : i + n] for i in range(0, len(entries), n)]
    return found


def _check_actions(config: PointConfig, spec: Spec) -> None:
    free = spec.action_dim - len(config.rest)
    if not 0 < free == len(set(range(spec.action_dim)) - set(config.rest)):
        raise UserError(
            f"rest is {config.rest}: name each once of some of the entries 0 to {spec.action_dim - 1}"
        )
    if config.place and free != config.dimension:
        raise UserError(
            f"absolute actions say a place by {config.dimension} entries, and here are {free}: name the "
            "others (--settings.rest), or choose actions relative"
        )


@lru_cache
def layout(config: PointConfig, spec: Spec) -> Layout:
    """What of `[B, H O + G]` are points.

    Raises:
        UserError: for groups that are no points, goals that are half of one, and actions that are no places.
    """
    _check_actions(config, spec)
    points, dim = _points(config, spec), spec.observation_dim
    now, width = (config.history - 1) * dim, config.history * dim + len(spec.goal)
    found = [tuple(begin + entry for entry in p) for begin in range(now, -1, -dim) for p in points]
    for p in points:
        told = tuple(now + dim + spec.goal.index(entry) for entry in p if entry in spec.goal)
        if 0 < len(told) < len(p):
            raise UserError(f"the goal prescribes a part of the point {p}: choose points that it knows whole")
        found += [told] if told else []
    taken = {entry for p in found for entry in p}
    return Layout(tuple(found), tuple(entry for entry in range(width) if entry not in taken))


def standardiser(observations: Array, config: PointConfig, spec: Spec) -> Affine:
    """Of observations `[..., O]`: points have one scale for all their entries, and are not shifted."""
    own = observation_affine(observations)
    entries = jnp.array([entry for p in _points(config, spec) for entry in p])
    scale = jnp.sqrt(jnp.mean(jnp.square(own.std[entries])))
    return Affine(own.mean.at[entries].set(0.0), own.std.at[entries].set(scale))


class Seen(NamedTuple):
    """What the denoiser of B chunks is shown."""

    scene: Scene  # seen from the reference, in standard deviations of the points
    centre: Array  # [B, chunk * A], the reference as actions say it; 0 of entries that are no places


def seen(standardise: Affine, observations: Array, goal: Array, config: PointConfig, spec: Spec) -> Seen:
    """Of observations `[B, H, O]` and goals `[B, G]` in the units of the task."""
    told, where = chunks.condition(standardise, observations, goal, spec), layout(config, spec)
    points = told[:, jnp.array(where.points)]  # [B, N, n]
    reference, place = points[:, 0], list(config.place)
    centre, reach = jnp.zeros((told.shape[0], spec.action_dim)), jnp.zeros_like(reference)
    if place:
        scale = standardise.std[jnp.array(where.points[0]) % spec.observation_dim][None]
        centre = spec.unit_actions(centre.at[:, place].set(scale * reference))
        centre = jnp.zeros_like(centre).at[:, place].set(centre[:, place])
        # Networks see actions in units of sigma_data, where noise is low.
        ends = spec.task_actions(config.sigma_data * jnp.eye(2, 1).repeat(spec.action_dim, 1))
        reach = jnp.broadcast_to((ends[:1] - ends[1:])[:, place] / scale, reference.shape)
    scene = Scene(points - points[:, :1], told[:, jnp.array(where.features, jnp.int32)], reach)
    return Seen(scene, jnp.tile(centre, (1, config.chunk)))
