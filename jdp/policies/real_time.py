"""Real-time chunking (Black et al. 2025, arXiv 2506.07339): a chunk is drawn while the last is executed."""

import jax.numpy as jnp
import numpy as np
from jax import Array

from jdp.diffusion.guidance import condition, pseudo_inverse
from jdp.diffusion.guidance.prefix import overlap_weights
from jdp.errors import UserError, check_settings
from jdp.policies import actions
from jdp.policies.chunks import Chunks
from jdp.policies.continued import chunks_of, continued
from jdp.types import Bound, Denoiser, Policy


def real_time(
    policy: Policy,
    delay: int,
    execute: int | None = None,
    *,
    overlap: int | None = None,
    beta: float = 5.0,
    solver_steps: int = 0,
) -> Policy:
    """`policy`, whose chunks take `delay` steps to be drawn, and are bound to what is executed meanwhile.

    A chunk is begun every `execute` steps, from what is observed then. Its first `delay` actions are those of
    the last chunk, whatever is drawn for them; from then on its own are executed. So that they go on smoothly
    the first ones are bound to the last chunk's, and those that follow softly (`overlap_weights`).
    An episode's first chunk is waited for. For flows and EDM alike; each call of the network has a backward
    pass too.

    Args:
        policy: of a trained method that draws chunks: `diffusion_policy` or `beso`.
        delay: steps of the task that a chunk takes; the measured time of a decision over that of a step,
            rounded up.
        execute: steps between two chunks; None: as it was trained. At least `delay`, and the chunk must have
            `delay` actions beyond them.
        overlap: actions of a chunk that are bound to the last one, of which there are as many as are not yet
            executed; None: all. `delay`: a hard mask; 0: none, plain asynchronous chunks, whose seams jump.
        beta: the most guidance (`guidance.pseudo_inverse`).
        solver_steps: 0, or of conjugate gradients, by which `guidance.condition` replaces the paper's
            guidance: a weight `w` is then the last chunk seen through noise of variance
            `sigma_data^2 (1 - w) / w`.

    Raises:
        UserError: for other policies, and where no such chunk can be executed.
    """
    parts = chunks_of(policy, "real-time chunking")
    length, execute = parts.config.chunk, parts.config.execute if execute is None else execute
    check_settings("real-time chunking", execute=(execute, 1, length))
    most, left = min(execute, length - execute), length - execute
    if not 0 <= delay <= most:
        raise UserError(
            f"real-time chunking: of chunks of {length} actions {execute} are executed, so a delay lies "
            f"between 0 and {most}, not {delay}: execute another number, or train longer chunks"
        )
    overlap = left if overlap is None else overlap
    limits = {
        "overlap": (overlap, 0, left),
        "beta": (beta, 0, np.inf),
        "solver_steps": (solver_steps, 0, 1000),
    }
    check_settings("real-time chunking", **limits)
    settings = {"beta": beta, "delay": delay, "overlap": overlap, "solver_steps": solver_steps}
    return continued(parts, Bound(_following, tuple(settings.items())), execute)


def _following(
    key: Array,
    denoiser: Denoiser,
    before: Array,
    parts: Chunks,
    *,
    beta: float,
    delay: int,
    overlap: int,
    solver_steps: int,
) -> Array:
    known, dim = before.reshape(before.shape[0], -1), parts.spec.action_dim
    weight = np.repeat(overlap_weights(parts.config.chunk, delay, overlap), dim)[None]
    if weight.any():
        denoiser = actions.clipped(
            _bound(denoiser, known, weight, beta, solver_steps, parts.config.sigma_data)
        )
    chunk = parts.draw(key, denoiser, before.shape[0])
    return jnp.where(jnp.arange(known.shape[1])[None] < delay * dim, known, chunk)


def _bound(
    denoiser: Denoiser, known: Array, weight: np.ndarray, beta: float, solver_steps: int, sigma_data: float
) -> Denoiser:
    if not solver_steps:
        return pseudo_inverse(denoiser, known, jnp.asarray(weight), beta=beta, sigma_data=sigma_data)
    seen = weight > 0
    variance = sigma_data**2 * (1 - weight) / np.where(seen, weight, 1.0)
    mask = jnp.broadcast_to(seen, known.shape)
    return condition(
        denoiser,
        known,
        mask,
        variance=jnp.asarray(variance),
        solver_steps=solver_steps,
        sigma_data=sigma_data,
    )
