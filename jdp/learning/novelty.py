"""How new something is: its distance to what has been seen, a bonus for those who go elsewhere."""

import jax
import jax.numpy as jnp
from jax import Array


def novelty(x: Array, archive: Array, *, neighbours: int = 5, filled: Array | None = None) -> Array:
    """`[B]`, the mean distance of `x` `[B, D]` to its `neighbours` nearest in `archive` `[M, D]`.

    As in never-give-up's episodic memory and in novelty search (Lehman and Stanley 2011); recommenders that
    seek novelty (arXiv 2306.01476) add such a term to a reward. 0 of what was seen `neighbours` times. Where
    fewer are `filled`, the mean is over those that are; of an empty archive everything is infinitely new.

    Args:
        neighbours: k, at most M.
        filled: `[]` int32, how many of the first rows of the archive hold something; None: all.
    """
    gaps = jnp.linalg.norm(x[:, None] - archive[None], axis=-1)
    if filled is not None:
        gaps = jnp.where(jnp.arange(archive.shape[0])[None] < filled, gaps, jnp.inf)
    nearest = -jax.lax.top_k(-gaps, neighbours)[0]
    known = jnp.isfinite(nearest)
    total = jnp.sum(jnp.where(known, nearest, 0.0), axis=-1)
    count = jnp.sum(known, axis=-1)
    return jnp.where(count > 0, total / jnp.maximum(count, 1).astype(total.dtype), jnp.inf)
