"""Predicates of formulas: places, speeds, single entries, and functions of your own."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array

from jdp.diffusion.guidance.formulas import Formula, Predicate, Signal
from jdp.errors import UserError
from jdp.types import Bound

TINY = 1e-12  # under roots, whose slope at 0 is none


def predicate(function: Callable[..., Array], *numbers: Any) -> Formula:
    """True where `function(observation, action, *numbers)` `[B, T]` is above 0: a margin in your own units.

    The function is shown observations `[B, T, O]` and actions `[B, T, A]`, and must be differentiable. Give
    `numbers` that shall change without a new program.
    """
    return Predicate(function, numbers)


class Region(NamedTuple):
    """A part of the space of some entries of the observation."""

    depth: Callable[..., Array]  # (those entries [B, T, n], *numbers) -> [B, T], below 0 outside
    numbers: tuple[Any, ...]
    entries: tuple[int, ...]


def inside(region: Region) -> Formula:
    """True within `region`; the margin is the way to its border."""
    settings = (("depth", region.depth), ("entries", region.entries))
    return Predicate(Bound(_depth, settings), region.numbers)


def outside(region: Region) -> Formula:
    """True outside of `region`; the margin is the way to its border."""
    return ~inside(region)


def disc(centre: Any, radius: Any, entries: tuple[int, ...] = (0, 1)) -> Region:
    """What is within `radius` of `centre`; a ball where there are more `entries`."""
    return Region(_in_disc, (_point(centre, entries), radius), entries)


def box(low: Any, high: Any, entries: tuple[int, ...] = (0, 1)) -> Region:
    """What lies between the corners `low` and `high`."""
    return Region(_in_box, (_point(low, entries), _point(high, entries)), entries)


def half_plane(normal: Any, offset: Any, entries: tuple[int, ...] = (0, 1)) -> Region:
    """Where `normal . x <= offset`."""
    return Region(_in_half_plane, (_point(normal, entries), offset), entries)


def below(signal: Signal, limit: Any) -> Formula:
    """True where a signal (`speed()`, `entry(i)`, `effort()`, a function of yours) is below `limit`."""
    return Predicate(Bound(_below, (("of", signal),)), (limit,))


def above(signal: Signal, limit: Any) -> Formula:
    """True where a signal is above `limit`."""
    return ~below(signal, limit)


def speed(entries: tuple[int, ...] = (2, 3)) -> Signal:
    """The length of the velocity, which these entries of the observation are."""
    return Bound(_length, (("entries", entries),))


def entry(i: int) -> Signal:
    """One entry of the observation."""
    return Bound(_entry, (("i", i),))


def effort() -> Signal:
    """The length of the action."""
    return Bound(_effort, ())


def _point(numbers: Any, entries: tuple[int, ...]) -> Any:
    found = numbers if hasattr(numbers, "shape") else tuple(numbers)
    if len(found) != len(entries):
        raise UserError(f"a place of {len(found)} numbers, and the entries {entries}: give one for each")
    return found


def _chosen(observation: Array, entries: tuple[int, ...]) -> Array:
    width = observation.shape[-1]
    if not all(0 <= i < width for i in entries):
        told = ", ".join(map(str, entries))
        raise UserError(
            f"the rule names entry {told} of observations, which have the entries 0 to {width - 1}"
        )
    return observation[..., jnp.array(entries)]


def _row(numbers: Any, like: Array) -> Array:
    return jnp.asarray(numbers, jnp.asarray(like).dtype)[None, None]


def _norm(x: Array) -> Array:
    return jnp.sqrt(jnp.sum(jnp.square(x), axis=-1) + TINY)


def _depth(
    observation: Array, action: Array, *numbers: Any, depth: Callable[..., Array], entries: tuple[int, ...]
) -> Array:
    del action
    return depth(_chosen(observation, entries), *numbers)


def _in_disc(x: Array, centre: Any, radius: Any) -> Array:
    return radius - _norm(x - _row(centre, x))


def _in_box(x: Array, low: Any, high: Any) -> Array:
    beyond = jnp.maximum(_row(low, x) - x, x - _row(high, x))  # below 0 within
    return -jnp.where(jnp.max(beyond, axis=-1) > 0, _norm(jnp.maximum(beyond, 0.0)), jnp.max(beyond, axis=-1))


def _in_half_plane(x: Array, normal: Any, offset: Any) -> Array:
    normal = _row(normal, x)
    return (offset - jnp.sum(normal * x, axis=-1)) / _norm(normal)


def _below(observation: Array, action: Array, limit: Any, *, of: Signal) -> Array:
    return limit - of(observation, action)


def _length(observation: Array, action: Array, *, entries: tuple[int, ...]) -> Array:
    del action
    return _norm(_chosen(observation, entries))


def _entry(observation: Array, action: Array, *, i: int) -> Array:
    del action
    return _chosen(observation, (i,))[..., 0]


def _effort(observation: Array, action: Array) -> Array:
    del observation
    return _norm(action)
