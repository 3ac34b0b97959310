"""Policy gradients on denoising chains: what DDPO, LOOP, Flow-GRPO and their kin share.

Every step of a chain is an action, drawn from a Gaussian around what the denoiser says. With rewards of the
last state, and the divergence from the model as it was both in what follows a step and as a gradient of its
own, the gradient is that of `E[r] - beta KL`; its optimum is the tilt `p exp(r / beta)` where a chain keeps
no memory of its start (`eta` 1).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jdp.alignment import advantages
from jdp.alignment.learner import AlignConfig, Aligned, aligned, check_baseline, each, in_groups
from jdp.alignment.models import Model
from jdp.diffusion import chains
from jdp.diffusion.transitions import Step, ddim
from jdp.distributions import Distribution
from jdp.errors import UserError, check_settings
from jdp.finetune.chain import Moves, moves
from jdp.learning.ppo import clipped_surrogate, flat
from jdp.types import Bound, Denoiser, Learner, Metrics, Params, named_keys


@dataclass(frozen=True)
class DrawnConfig(AlignConfig):
    """Settings of what learns from its own chains."""

    eta: float = 1.0
    """Scales the noise of a step: 1 keeps no memory of the start, 0 none is drawn."""
    std_floor: float = 0.05
    """Least standard deviation of a step, in drawing and in densities."""
    log_prob: str = "sum"
    """"sum" over the entries of a sample, its density, or "mean", as in the code of image models."""

    def __post_init__(self) -> None:
        super().__post_init__()
        name = type(self).__name__
        if not self.eta:
            raise UserError(
                f"{name}.eta is 0: the steps of a deterministic sampler have no densities; choose one above "
                "0 (1 keeps no memory of the start)"
            )
        check_settings(name, eta=(self.eta, 1e-6, 10), std_floor=(self.std_floor, 1e-6, 10))


@dataclass(frozen=True)
class ChainConfig(DrawnConfig):
    """Settings of a policy gradient on chains."""

    clip: float = 0.2
    """How far the ratio of probabilities may go from 1."""
    kl_to_go: bool = True
    """Whether a step answers for the divergence of later ones too; without it the gradient is biased."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_baseline(self)


class Rows(NamedTuple):
    """Denoising steps, `[R, ...]`."""

    moves: Moves
    log_prob: Array
    advantage: Array


Advantage = Callable[[Array], Array]  # of rewards [P, K]


def drawn(params: Params, rows: Moves, config: DrawnConfig, model: Model, step: Step = ddim) -> Distribution:
    """`[R, *event]`, the Gaussians that `params` draw these moves from."""
    return drawn_by(model.denoiser(params, rows.shown), rows, config, model, step)


def drawn_by(
    denoiser: Denoiser, rows: Moves, config: DrawnConfig, model: Model, step: Step = ddim
) -> Distribution:
    """As `drawn`, by any denoiser of their conditions."""
    sigmas = model.sampling.sigmas()
    now, following = sigmas[rows.step], sigmas[rows.step + 1]
    return step(denoiser, (), rows.state, now, following, eta=config.eta, std_floor=config.std_floor)[0]


def density(found: Distribution, following: Array, config: DrawnConfig, model: Model) -> Array:
    """`[R]`, log densities of `following` `[R, *event]`, as `config.log_prob` says."""
    terms = found.log_prob(following, event_axes=model.event_axes, mask=model.mask)
    return _reduced(terms, config, model)


def divergence(found: Distribution, other: Distribution, config: DrawnConfig, model: Model) -> Array:
    """`[R]`, `KL(found || other)` of every move, reduced as densities are."""
    return _reduced(found.kl(other, event_axes=model.event_axes, mask=model.mask), config, model)


def _reduced(terms: Array, config: DrawnConfig, model: Model) -> Array:
    return terms / model.size if config.log_prob == "mean" else terms


def sample(
    key: Array, params: Params, condition: Array, config: DrawnConfig, model: Model, step: Step = ddim
) -> Array:
    """`[n + 1, B, *event]`, chains at conditions `[B, C]`, both ends included; the key is consumed."""
    keys, denoiser = named_keys(key, "start", "chain"), model.denoiser(params, condition)
    return chains.sample(
        step,
        denoiser,
        model.start(keys["start"], len(condition)),
        model.sampling.sigmas(),
        key=keys["chain"],
        eta=config.eta,
        std_floor=config.std_floor,
        memory=(),
        trace=True,
    )


def collect(
    key: Array,
    state: Aligned,
    batch: Array,
    *,
    config: ChainConfig,
    model: Model,
    advantage: Advantage,
    step: Step = ddim,
) -> tuple[Rows, Metrics]:
    """Chains of K samples at each condition of `batch` `[P, C]`, judged."""
    condition, params = each(batch, config), state.trained.params
    states = sample(key, params, condition, config, model, step)
    reward, found = state.judge(states[-1], condition), moves(states, condition)  # moves are [n, B, ...]
    every = flat(found)
    ours, theirs = (drawn(p, every, config, model, step) for p in (params, state.reference))
    apart = divergence(ours, theirs, config, model).reshape(found.step.shape)
    future = config.kl_weight * advantages.to_go(apart) if config.kl_to_go else jnp.zeros_like(apart)
    judged = jax.vmap(lambda r: advantage(in_groups(r, config)).reshape(-1))(reward[None] - future)
    told = {"reward": jnp.mean(reward), "kl": jnp.mean(jnp.sum(apart, axis=0))}
    return Rows(every, density(ours, every.following, config, model), judged.reshape(-1)), told


def loss(
    params: Params, rows: Rows, *, reference: Params, config: ChainConfig, model: Model, step: Step = ddim
) -> tuple[Array, Metrics]:
    """The clipped surrogate, and the divergence of the steps themselves."""
    ours = drawn(params, rows.moves, config, model, step)
    log_prob = density(ours, rows.moves.following, config, model)
    total, metrics = clipped_surrogate(log_prob, rows.log_prob, rows.advantage, config.clip)
    if config.kl_weight:
        theirs = drawn(reference, rows.moves, config, model, step)
        total = total + config.kl_weight * jnp.mean(divergence(ours, theirs, config, model))
    return total, {"loss": total, **metrics}


def chain_learner(config: ChainConfig, model: Model, advantage: Advantage, step: Step = ddim) -> Learner:
    """A policy gradient on chains of `step`, which learns from conditions `[P, C]`."""
    own = ("step", step)
    return aligned(Bound(collect, (("advantage", advantage), own)), Bound(loss, (own,)), config, model)
