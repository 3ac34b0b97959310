"""A denoising chain as a decision process: which of its steps learn, how they are drawn, and their densities.

In DPPO's picture (Ren et al. 2024, arXiv 2409.00588) every denoising step is an action, drawn from a Gaussian
around what the denoiser says; the last one is what the environment sees.
"""

from dataclasses import dataclass, replace
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jdp.diffusion import chains
from jdp.diffusion.transitions import ddim
from jdp.errors import UserError, check_settings
from jdp.finetune import base as bases
from jdp.policies import actions
from jdp.policies.chunks import ChunkConfig
from jdp.policies.diffusion_policy import DiffusionPolicyConfig
from jdp.types import Denoiser, Normal, Params, Spec, named_keys


@dataclass(frozen=True)
class ChainConfig:
    """The chain that draws a chunk of actions while it is learned from."""

    levels: int = 10
    """Denoising steps."""
    learned: int = 5
    """The last of them, which learn; those before keep the base policy's weights."""
    eta: float = 1.0
    """Scales the noise of a step: 0 none, 1 that of DDPM."""
    std_floor: float = 0.1
    """Least standard deviation of a learned step: in drawing and in densities, so that every move has one."""

    def __post_init__(self) -> None:
        check_settings(
            type(self).__name__,
            levels=(self.levels, 2, 1000),
            learned=(self.learned, 1, self.levels),
            eta=(self.eta, 0, 10),
            std_floor=(self.std_floor, 1e-6, 10),
        )


def check_base(base: object) -> DiffusionPolicyConfig:
    """The settings of a base policy.

    Raises:
        UserError: if it is another method than `diffusion_policy`, or one that sees more than the present or
            diffuses something else than actions.
    """
    if type(base) is not DiffusionPolicyConfig:  # those that build on it act otherwise
        raise UserError(f"only diffusion_policy is fine-tuned by its chain, not {type(base).__name__}")
    bases.check_present(base)
    bases.check_actions(base)
    return base


def levels(config: ChainConfig, base: ChunkConfig) -> Array:
    """`[levels + 1]`, the schedule of the base policy with as many steps as `config` says."""
    return replace(base.sampling(), steps=config.levels).sigmas()


def counted(base: ChunkConfig, spec: Spec) -> Array:
    """`[1, chunk * A]` bool, the entries of a chunk that are executed: no other one is rewarded."""
    return (jnp.arange(base.chunk * spec.action_dim) < base.execute * spec.action_dim)[None]


def sample(
    key: Array,
    frozen: Params,
    params: Params,
    shown: Array,
    config: ChainConfig,
    base: ChunkConfig,
    spec: Spec,
) -> Array:
    """The learned steps `[K + 1, B, D]` of a chain at conditions `[B, C]`, first and last state included.

    The steps before them are drawn by `frozen` and have no floor, as in the base policy; these by `params`.
    The key is consumed.
    """
    shape, (before, after) = (len(shown), base.chunk * spec.action_dim), (frozen, params)
    both = actions.denoiser(before, shown, base), actions.denoiser(after, shown, base)
    return drawn(key, *both, shape, levels(config, base), config)


def drawn(
    key: Array,
    frozen: Denoiser,
    learned: Denoiser,
    shape: tuple[int, ...],
    sigmas: Array,
    config: ChainConfig,
) -> Array:
    """The learned steps `[K + 1, *shape]` of a chain down all `sigmas` `[levels + 1]`, as `sample` says."""
    keys, first = named_keys(key, "start", "frozen", "learned"), config.levels - config.learned
    x = sigmas[0] * jax.random.normal(keys["start"], shape)
    if first:
        x = chains.sample(ddim, frozen, x, sigmas[: first + 1], key=keys["frozen"], eta=config.eta, memory=())
    options = {"eta": config.eta, "std_floor": config.std_floor, "memory": (), "trace": True}
    return chains.sample(ddim, learned, x, sigmas[first:], key=keys["learned"], **options)


class Moves(NamedTuple):
    """Single denoising steps `[B]` of chains: what is learned from, one row a step."""

    shown: Array  # [B, C]
    state: Array  # [B, D]
    following: Array  # [B, D]
    step: Array  # [B] int32, 0 for the first learned one


def moves(states: Array, shown: Array) -> Moves:
    """All moves of chains `[K + 1, B, D]` at conditions `[B, C]`, as `[K, B, ...]`."""
    count, rows = len(states) - 1, len(shown)
    step = jnp.broadcast_to(jnp.arange(count)[:, None], (count, rows))
    return Moves(jnp.broadcast_to(shown[None], (count, *shown.shape)), states[:-1], states[1:], step)


def step_of(params: Params, rows: Moves, config: ChainConfig, base: ChunkConfig) -> Normal:
    """`[B, D]`, the Gaussians that `params` draw these moves from."""
    return step_by(actions.denoiser(params, rows.shown, base), rows, levels(config, base), config)


def step_by(own: Denoiser, rows: Moves, sigmas: Array, config: ChainConfig) -> Normal:
    """As `step_of`, by the denoiser `own` of these rows, whose chains went down all `sigmas`."""
    sigmas = sigmas[config.levels - config.learned :]
    now, following = sigmas[rows.step], sigmas[rows.step + 1]
    return ddim(own, (), rows.state, now, following, eta=config.eta, std_floor=config.std_floor)[0]


def log_prob(params: Params, rows: Moves, config: ChainConfig, base: ChunkConfig, spec: Spec) -> Array:
    """`[B]`, of every move the log density of the entries that are executed: the one it was drawn by."""
    drawn = step_of(params, rows, config, base)
    return drawn.log_prob(rows.following, mask=counted(base, spec))


def divergence(
    frozen: Params, params: Params, rows: Moves, config: ChainConfig, base: ChunkConfig, spec: Spec
) -> Array:
    """`[B]`, `KL(frozen || params)` of every move, over the entries that are executed."""
    theirs, ours = (step_of(weights, rows, config, base) for weights in (frozen, params))
    return theirs.kl(ours, mask=counted(base, spec))
