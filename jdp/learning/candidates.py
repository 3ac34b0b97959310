"""Best of N: candidates lie flat, `[B * N, ...]`, the copies of a row side by side.

So they stay on the devices of their row.
"""

import jax
import jax.numpy as jnp
from jax import Array

from jdp.errors import UserError
from jdp.types import PyTree


def check_candidates(count: int) -> None:
    """Raises `UserError` unless there is something to choose from."""
    if count < 1:
        raise UserError(f"candidates is {count}: draw at least one")


def repeated(x: PyTree, count: int) -> PyTree:
    """Every row of the leaves `[B, ...]` `count` times: `[B * count, ...]`."""
    return jax.tree.map(lambda leaf: jnp.repeat(leaf, count, axis=0), x)


def choose(
    x: Array, score: Array, count: int, *, key: Array | None = None, temperature: float = 0.0
) -> tuple[Array, Array]:
    """`(x [B, ...], score [B])`, of every `count` candidates `[B * count, ...]` one by `score` `[B * count]`.

    The best at `temperature` 0, else a draw from `softmax(score / temperature)`, which consumes `key`.
    """
    score = score.reshape(-1, count)
    if temperature > 0:
        if key is None:
            raise ValueError("a choice by chance draws: pass key=")
        chosen = jax.random.categorical(key, score / temperature, axis=-1)
    else:
        chosen = jnp.argmax(score, axis=1)
    rows = jnp.arange(score.shape[0])
    return x.reshape((-1, count, *x.shape[1:]))[rows, chosen], score[rows, chosen]
