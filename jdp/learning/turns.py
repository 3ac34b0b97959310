"""Levels that learn in turns: while one does, the others stand still (HiMAC, arXiv 2603.00977)."""

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array

from jdp.types import Params, PyTree


class TurnsState(NamedTuple):
    """How many updates there were, and the optimisers' states by level."""

    count: Array  # [] int32
    levels: Mapping[str, PyTree]


def whose(count: Array, levels: int, every: int) -> Array:
    """`[]` int32, the level whose turn it is in update `count`: `every` updates each, from the first on."""
    return (count // every) % levels


def in_turns(
    optimisers: Mapping[str, optax.GradientTransformation], every: int, always: tuple[str, ...] = ()
) -> optax.GradientTransformation:
    """Of parameters `{level: ...}` only one level moves, `every` updates long, and then the next.

    The levels take their turns in the order of `optimisers`, but those named in `always`, such as critics,
    which move in every update; with `every` 0 all do. While a level stands its optimiser does, too: moments
    do not fade. So a level learns against others that do not change meanwhile.
    """
    names, takers = tuple(optimisers), [name for name in optimisers if name not in always]

    def init(params: Params) -> TurnsState:
        return TurnsState(
            jnp.zeros((), jnp.int32), {name: optimisers[name].init(params[name]) for name in names}
        )

    def update(
        gradient: Params, state: TurnsState, params: Params | None = None
    ) -> tuple[Params, TurnsState]:
        moves, levels = {}, {}
        for name in names:
            own = None if params is None else params[name]
            before, moving = state.levels[name], jnp.ones((), bool)
            move, after = optimisers[name].update(gradient[name], before, own)
            if every and name in takers:
                moving = whose(state.count, len(takers), every) == takers.index(name)
            moves[name], levels[name] = jax.tree.map(
                lambda new, old, moving=moving: jnp.where(moving, new, old),
                (move, after),
                (jax.tree.map(jnp.zeros_like, move), before),
            )
        return moves, TurnsState(state.count + 1, levels)

    return optax.GradientTransformation(init, update)  # type: ignore[arg-type]
