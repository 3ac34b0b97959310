"""Policies whose chunks go on from the one before: what warm starts, real time and streams share."""

from collections.abc import Callable
from dataclasses import replace

import jax.numpy as jnp
from jax import Array

from jdp.diffusion.warm import warm_or_cold
from jdp.errors import UserError
from jdp.learning.guides import Past
from jdp.policies import chunks
from jdp.policies.chunks import ChunkCarry, ChunkConfig, Chunks, CloneState
from jdp.types import Bound, Decision, Denoiser, Policy

Following = Callable[[Array, Denoiser, Array, Chunks], Array]
# following(key, denoiser, before [B, chunk, A], parts) -> [B, chunk * A], the next chunk, where `before` is
# what the last one has left; hashable, and the key is consumed
First = Callable[[Array, Denoiser, int, Chunks], Array]
# first(key, denoiser, rows, parts) -> [B, chunk * A], of an episode; hashable, and the key is consumed


def chunks_of(policy: Policy, what: str) -> Chunks:
    """How a trained policy draws its chunks, for a wrapper of it: `what`, as an error names it.

    Raises:
        UserError: if it draws none by a sampler, or not out of noise.
    """
    if isinstance(policy.act, Bound) and policy.act.function is chunks.act:
        parts: Chunks = dict(policy.act.settings)["parts"]
        if not isinstance(parts.config, ChunkConfig):  # jdp.policies.cached
            raise UserError(f"{what} is of the policy without its cache: leave the schedule out")
        if (found := getattr(parts.config, "representation", "actions")) != "actions":
            raise UserError(f"{what} goes on from actions, and this policy diffuses {found}")
        return parts
    raise UserError(
        f"{what} goes on from chunks that a sampler draws out of noise, and this policy draws none: "
        "give a diffusion_policy or beso"
    )


def _out_of_noise(key: Array, denoiser: Denoiser, rows: int, parts: Chunks) -> Array:
    return parts.draw(key, denoiser, rows)


def continued(parts: Chunks, following: Following, execute: int, first: First = _out_of_noise) -> Policy:
    """The policy that draws the chunks of `parts` by `following`, but an episode's first by `first`.

    `execute` actions of a chunk are executed before the next one is drawn.
    """
    later = replace(parts, config=replace(parts.config, execute=execute))
    return later.policy(_act, kept=parts.config.chunk, first=first, following=following)


def rest(queue: Array, execute: int) -> Array:
    """`[B, K, A]`, a chunk as it is seen once `execute` of its K actions are done, which are last in `queue`.

    The last action stands for what follows: the last of those that are left, else of those that were done.
    """
    left = queue.shape[1] - execute
    last = queue[:, left - 1 :][:, :1]
    return jnp.concatenate([queue[:, :left], jnp.repeat(last, execute, axis=1)], axis=1)


def _act(
    key: Array,
    state: CloneState,
    carry: ChunkCarry,
    observation: Array,
    goal: Array,
    *,
    parts: Chunks,
    first: First,
    following: Following,
) -> tuple[ChunkCarry, Decision]:
    def sample(past: Past) -> Array:
        denoiser, before = parts.steered(state, past, goal), rest(carry.queue, parts.config.execute)
        return warm_or_cold(
            past.elapsed > 0,
            lambda: following(key, denoiser, before, parts),
            lambda: first(key, denoiser, observation.shape[0], parts),
        )

    return chunks.step(carry, observation, sample, parts.config.execute)
