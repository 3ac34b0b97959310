"""Policy gradients on denoising chains: what DDPO, LOOP, Flow-GRPO and their kin share.

Every step of a chain is an action, drawn from a Gaussian around what the denoiser says. With rewards of the last
state, and the divergence from the model as it was both in what follows a step and as a gradient of its own, the
gradient is that of `E[r] - beta KL`; its optimum is the tilt `p exp(r / beta)` where a chain keeps no memory of
its start (`eta` 1).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jdp.alignment import advantages
from jdp.alignment.learner import AlignConfig, Aligned, aligned, each, in_groups
from jdp.alignment.models import Model
from jdp.diffusion import chains
from jdp.diffusion.transitions import Step, ddim
from jdp.errors import check_settings
from jdp.finetune.actor_critic import flat
from jdp.finetune.chain import Moves, moves
from jdp.learning.ppo import clipped_surrogate
from jdp.types import Bound, Learner, Metrics, Normal, Params, named_keys


@dataclass(frozen=True)
class ChainConfig(AlignConfig):
    """Settings of a policy gradient on chains."""

    eta: float = 1.0
    """Scales the noise of a step: 1 keeps no memory of the start, 0 none is drawn."""
    std_floor: float = 0.05
    """Least standard deviation of a step, in drawing and in densities."""
    clip: float = 0.2
    """How far the ratio of probabilities may go from 1."""
    log_prob: str = "sum"
    """"sum" over the entries of a sample, its density, or "mean", as in the code of models of pictures."""
    kl_to_go: bool = True
    """Whether what a step leads to counts the divergence of later steps: without it the gradient is biased."""

    def __post_init__(self) -> None:
        super().__post_init__()
        name = type(self).__name__
        check_settings(name, eta=(self.eta, 1e-6, 10), std_floor=(self.std_floor, 1e-6, 10))


class Rows(NamedTuple):
    """Denoising steps, `[R, ...]`."""

    moves: Moves
    log_prob: Array
    advantage: Array


Advantage = Callable[[Array], Array]  # of rewards [P, K]


def drawn(params: Params, rows: Moves, config: ChainConfig, model: Model, step: Step = ddim) -> Normal:
    """`[R, *event]`, the Gaussians that `params` draw these moves from."""
    sigmas, denoiser = model.sampling.sigmas(), model.denoiser(params, rows.shown)
    now, following = sigmas[rows.step], sigmas[rows.step + 1]
    return step(denoiser, (), rows.state, now, following, eta=config.eta, std_floor=config.std_floor)[0]


def reduced(terms: Array, config: ChainConfig, model: Model) -> Array:
    """Log densities or divergences as `config.log_prob` says."""
    return terms / math.prod(model.event) if config.log_prob == "mean" else terms


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
    keys, condition = named_keys(key, "start", "chain"), each(batch, config)
    params, sigmas = state.trained.params, model.sampling.sigmas()
    options = {"eta": config.eta, "std_floor": config.std_floor, "memory": (), "trace": True}
    start = model.start(keys["start"], len(condition))
    states = chains.sample(
        step, model.denoiser(params, condition), start, sigmas, key=keys["chain"], **options
    )
    reward = state.judge(states[-1], condition)
    found = moves(states, condition)  # [n, B, ...]
    every = jax.tree.map(lambda x: flat(x, found.step.shape), found)
    ours, theirs = (drawn(p, every, config, model, step) for p in (params, state.reference))
    axes = {"event_axes": model.event_axes}
    old = reduced(ours.log_prob(every.following, **axes), config, model)
    apart = reduced(ours.kl(theirs, **axes), config, model).reshape(found.step.shape)
    future = config.kl_weight * advantages.to_go(apart) if config.kl_to_go else jnp.zeros_like(apart)
    judged = jax.vmap(lambda r: advantage(in_groups(r, config)).reshape(-1))(reward[None] - future)
    told = {"reward": jnp.mean(reward), "kl": jnp.mean(jnp.sum(apart, axis=0))}
    return Rows(every, old, judged.reshape(-1)), told


def chain_learner(config: ChainConfig, model: Model, advantage: Advantage, step: Step = ddim) -> Learner:
    """A policy gradient on chains of `step`, which learns from conditions `[P, C]`."""
    own = ("step", step)
    return aligned(Bound(collect, (("advantage", advantage), own)), Bound(loss, (own,)), config, model)


def loss(
    params: Params, rows: Rows, *, reference: Params, config: ChainConfig, model: Model, step: Step = ddim
) -> tuple[Array, Metrics]:
    """The clipped surrogate and the divergence of the steps themselves."""
    ours = drawn(params, rows.moves, config, model, step)
    axes = {"event_axes": model.event_axes}
    log_prob = reduced(ours.log_prob(rows.moves.following, **axes), config, model)
    total, metrics = clipped_surrogate(log_prob, rows.log_prob, rows.advantage, config.clip)
    if config.kl_weight:
        theirs = drawn(reference, rows.moves, config, model, step)
        apart = reduced(ours.kl(theirs, **axes), config, model)
        total = total + config.kl_weight * jnp.mean(apart)
    return total, {"loss": total, **metrics}
