"""Long plans of short chunks that overlap and are denoised together (CompDiffuser, arXiv 2503.05153).

A joint plan `[B, N * T, D]` has the rows of N chunks one after the other; the last K rows of a chunk and the
first K of the next are two copies of the same steps, with noise of their own. The network is one of chunks,
`[B, T, 2 D]`: beside every row of a chunk it sees the neighbour's copy of that row where they overlap, and
beside the others zeros at level 0, which say nothing. With one chunk nothing is beside it.
"""

import jax.numpy as jnp
from jax import Array
from jax.tree_util import Partial

from jdp.types import Denoiser, bind, expand


def chunks(x: Array, count: int) -> Array:
    """`[B, N * T, D] -> [B, N, T, D]`."""
    return x.reshape(x.shape[0], count, -1, x.shape[-1])


def overlapping_rows(rows: int, overlap: int, left: Array, right: Array) -> Array:
    """`[..., T]` bool: the rows of a chunk that overlap, of the sides where `left` and `right` `[...]`."""
    row = jnp.arange(rows).reshape((1,) * left.ndim + (rows,))
    return (left[..., None] & (row < overlap)) | (right[..., None] & (row >= rows - overlap))


def _copies(x: Array, overlap: int) -> Array:
    """`[B, N, T, D]`, beside the rows of every chunk its neighbours' copies of them, or 0."""
    none = jnp.zeros_like(x)
    copied = none.at[:, 1:, :overlap].set(x[:, :-1, -overlap:])
    return copied.at[:, :-1, x.shape[2] - overlap :].set(x[:, 1:, :overlap])


def _composed(
    denoiser: Denoiser, noise: Array | None, x: Array, sigma: Array, *, count: int, overlap: int, alone: bool
) -> Array:
    own, level = chunks(x, count), chunks(jnp.broadcast_to(expand(sigma, x), x.shape), count)
    other, beside = _copies(own, overlap), _copies(level, overlap)
    if alone:
        other, beside = jnp.zeros_like(other), jnp.zeros_like(beside)
    seen, shown = own, level
    if noise is not None:
        top, index = jnp.max(jnp.maximum(level, beside), axis=2, keepdims=True), jnp.arange(count)
        there = overlapping_rows(own.shape[2], overlap, index > 0, index < count - 1)[None, ..., None]
        seen, shown = _raised(own, level, jnp.where(level > 0, top, 0.0), chunks(noise[0], count))
        other, beside = _raised(other, beside, jnp.where(there, top, 0.0), chunks(noise[1], count))
    # A finished chunk stays as it is; networks know no level 0.
    shown = jnp.where(jnp.max(shown, axis=2, keepdims=True) > 0, shown, 1.0)
    wide, levels = (jnp.concatenate(pair, axis=-1) for pair in ((seen, other), (shown, beside)))
    flat = (-1, *wide.shape[2:])
    found = denoiser(wide.reshape(flat), levels.reshape(flat))[..., : x.shape[-1]].reshape(own.shape)
    return jnp.where(level > 0, found, own).reshape(x.shape)


def _raised(x: Array, level: Array, top: Array, noise: Array) -> tuple[Array, Array]:
    """`x` at `level` noised up to the level `top`, and that."""
    return x + jnp.sqrt(jnp.square(top) - jnp.square(level)) * noise, top


def composed(
    denoiser: Denoiser, count: int, overlap: int, *, noise: Array | None = None, alone: bool = False
) -> Partial:
    """The denoiser of joint plans of `count` chunks, which see their neighbours' copies of `overlap` rows.

    `denoiser` is of chunks, `[B * N, T, 2 D]` with a level for every entry; it learned with a second copy of
    the overlapping rows beside them, under noise of its own, and without. What lies beyond the neighbours is
    not seen: the posterior mean of a chunk given both neighbours' overlaps stands for that given the whole
    plan, as the paper has it. A noised Markov chain is none, so this is approximate: of an exact AR(1) chain
    of .9 with ends 2 standard deviations apart the mean lags by up to .16 with three chunks, .29 with six.

    Args:
        noise: `[2, B, N * T, D]`, standard normal, for chunks of different levels (`in_turns`): a network
            knows one, so a chunk and its neighbours' copies are shown at the highest of theirs, by noise of
            the chunk's own and of the copies. None: all chunks have one level.
        alone: whether chunks see nothing of each other, what `guidance.classifier_free` departs from.
    """
    return bind(_composed, denoiser, noise, count=count, overlap=overlap, alone=alone)


def _shares(overlap: int) -> Array:
    """`[1, 1, K, 1]`, how much the earlier of two counts: it knows what lies before them."""
    return jnp.linspace(1.0, 0.0, overlap)[None, None, :, None]


def _agreeing(denoiser: Denoiser, x: Array, sigma: Array, *, count: int, overlap: int) -> Array:
    found = chunks(denoiser(x, sigma), count)
    share = _shares(overlap)
    both = share * found[:, :-1, -overlap:] + (1 - share) * found[:, 1:, :overlap]
    found = found.at[:, 1:, :overlap].set(both).at[:, :-1, found.shape[2] - overlap :].set(both)
    return found.reshape(x.shape)


def agreeing(denoiser: Denoiser, count: int, overlap: int) -> Partial:
    """The denoiser of joint plans whose neighbours denoise what they share to one blend of both.

    Not in the paper, whose chunks meet by what they see of each other alone: there only one of the two copies
    of the row that an overlap begins with knows the row before it. With exact denoisers of an AR(1) chain of
    .5, 26 to 50 % of the covariance across these seams is lost; with the blend 6 to 10 %.
    """
    return bind(_agreeing, denoiser, count=count, overlap=overlap)


def merged(x: Array, count: int, overlap: int) -> Array:
    """`[B, N (T - K) + K, D]`, a joint plan with its overlaps blended, linearly, from chunk to chunk."""
    parts, share = chunks(x, count), _shares(overlap)
    rows = parts.shape[2]
    weight = jnp.ones((1, count, rows, 1)).at[:, 1:, :overlap].set(1 - share)
    weight = weight.at[:, :-1, rows - overlap :].set(share)
    at = jnp.arange(count)[:, None] * (rows - overlap) + jnp.arange(rows)[None]
    length = count * (rows - overlap) + overlap
    return jnp.zeros((x.shape[0], length, x.shape[-1]), x.dtype).at[:, at].add(weight * parts)


def disagreement(x: Array, count: int, overlap: int) -> Array:
    """`[B]`, root mean square difference of the two copies of the overlaps; 0 of one chunk."""
    parts = chunks(x, count)
    gap = jnp.square(parts[:, :-1, -overlap:] - parts[:, 1:, :overlap])
    return jnp.sqrt(jnp.sum(gap, axis=(1, 2, 3)) / max(1, gap[0].size))


def in_turns(sigmas: Array, count: int, rows: int) -> Array:
    """`[2 n + N - 1, 1, N * T]`, the levels of chunks that move in turn from the first to the last.

    The paper's autoregressive schedule: at every level each chunk sees the one before it a level further on,
    and the one after it at its own. Chunk k takes its step i at tick `2 i + k`, so those of
    one parity move together, and `2 n + N - 2` calls do what one after the other takes `n N`.
    """
    steps = sigmas.shape[0] - 1
    ticks = jnp.arange(2 * steps + count - 1)[:, None]
    done = jnp.clip((ticks + 1 - jnp.arange(count)[None]) // 2, 0, steps)
    return jnp.repeat(sigmas[done], rows, axis=1)[:, None]
