"""Policy gradients on denoising chains: what DDPO, LOOP, Flow-GRPO and their kin share.

Every step of a chain is an action, drawn from a Gaussian around what the denoiser says. With rewards of the
last state, and the divergence from the model as it was both in what follows a step and as a gradient of its
own, the gradient is that of `E[r] - beta KL`; its optimum is the tilt `p exp(r / beta)` where a chain keeps
no memory of its start (`eta` 1).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jdp.alignment import advantages
from jdp.alignment.learner import (
    NOTHING,
    AlignConfig,
    Aligned,
    Collect,
    Memory,
    aligned,
    check_baseline,
    each,
    in_groups,
)
from jdp.alignment.models import Model
from jdp.diffusion import chains
from jdp.diffusion.transitions import Step, ddim
from jdp.distributions import Distribution
from jdp.errors import UserError, check_choices, check_settings
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
    log_prob: Literal["sum", "mean"] = "sum"
    """"sum" over the entries of a sample, its density, or "mean", as in the code of image models."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choices(self)
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
    last_step: bool = True
    """Whether the step to level 0 is learned from."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_baseline(self)
        check_settings(type(self).__name__, clip=(self.clip, 0, 1e9))


class Rows(NamedTuple):
    """Denoising steps, `[R, ...]`, or whole chains of them, `[B, n, ...]`."""

    moves: Moves
    log_prob: Array
    advantage: Array
    weight: Array  # what each counts: of mean 1
    apart: Array  # log ratio of the probability to that of the model as it was


Advantage = Callable[[Array], Array]  # of rewards [P, K]
Surrogate = Callable[..., tuple[Array, Metrics]]
# surrogate(log_prob, rows, config) -> (scalar, metrics with "approximate_kl"): log_prob is of the rows' shape


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


def judged(
    params: Params,
    found: Moves,
    reward: Array,
    *,
    reference: Params,
    config: ChainConfig,
    model: Model,
    advantage: Advantage,
    step: Step = ddim,
) -> tuple[Rows, Array]:
    """The moves `[n, B, ...]` of chains, drawn by `params` and rewarded with `[B]`, as rows `[n * B, ...]`.

    And the divergence of each from what `reference` would do, `[n, B]`.
    """
    every = flat(found)
    ours, theirs = (drawn(p, every, config, model, step) for p in (params, reference))
    ahead = divergence(ours, theirs, config, model).reshape(found.step.shape)
    future = config.kl_weight * advantages.to_go(ahead) if config.kl_to_go else jnp.zeros_like(ahead)
    worth = jax.vmap(lambda r: advantage(in_groups(r, config)).reshape(-1))(reward[None] - future)
    return rows_of(every, ours, theirs, worth.reshape(-1), config, model), ahead


def rows_of(
    every: Moves,
    ours: Distribution,
    theirs: Distribution,
    advantage: Array,
    config: DrawnConfig,
    model: Model,
) -> Rows:
    """Moves `[R, ...]` that were drawn from `ours`, where the model as it was draws from `theirs`."""
    log_prob, other = (density(x, every.following, config, model) for x in (ours, theirs))
    return Rows(every, log_prob, advantage, jnp.ones_like(log_prob), log_prob - other)


def judged_chains(
    states: Array,
    condition: Array,
    state: Aligned,
    config: ChainConfig,
    model: Model,
    advantage: Advantage,
    step: Step = ddim,
) -> tuple[Rows, Metrics]:
    """The moves of chains `[n + 1, P * K, *event]`, of K samples at each condition, `[n * P * K, ...]`."""
    found, reward = moves(states, condition), state.judge(states[-1], condition)
    if not config.last_step:
        found = jax.tree.map(lambda x: x[:-1], found)
    own = {"reference": state.reference, "config": config, "model": model, "step": step}
    rows, ahead = judged(state.trained.params, found, reward, advantage=advantage, **own)
    return rows, {"reward": jnp.mean(reward), "kl": jnp.mean(jnp.sum(ahead, axis=0))}


def whole(rows: Rows, count: int) -> Rows:
    """Moves `[n * B, ...]` of `count` = B chains as chains `[B, n, ...]`, of which minibatches are made."""
    steps = len(rows.log_prob) // count
    return jax.tree.map(lambda x: jnp.swapaxes(x.reshape(steps, count, *x.shape[1:]), 0, 1), rows)


def counted(mask: Array) -> Array:
    """Weights of mean 1 (0 where nothing is left) of the rows where `mask` is set."""
    share = mask.astype(jnp.float32)
    return share / jnp.maximum(jnp.mean(share), 1 / share.size)


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
    condition = each(batch, config)
    states = sample(key, state.trained.params, condition, config, model, step)
    return judged_chains(states, condition, state, config, model, advantage, step)


def clipped(log_prob: Array, rows: Rows, config: ChainConfig) -> tuple[Array, Metrics]:
    """PPO's surrogate, of every step alone."""
    return clipped_surrogate(log_prob, rows.log_prob, rows.weight * rows.advantage, config.clip)


def loss(
    params: Params,
    rows: Rows,
    *,
    reference: Params,
    config: ChainConfig,
    model: Model,
    step: Step = ddim,
    surrogate: Surrogate = clipped,
) -> tuple[Array, Metrics]:
    """The surrogate, and the divergence of the steps themselves; rows have any leading axes."""
    lead = rows.log_prob.shape
    taken = flat(rows.moves, len(lead))
    ours = drawn(params, taken, config, model, step)
    log_prob = density(ours, taken.following, config, model).reshape(lead)
    total, metrics = surrogate(log_prob, rows, config)
    if config.kl_weight:
        theirs = drawn(reference, taken, config, model, step)
        apart = rows.weight * divergence(ours, theirs, config, model).reshape(lead)
        total = total + config.kl_weight * jnp.mean(apart)
    return total, {"loss": total, **metrics}


def collect_whole(
    key: Array,
    state: Aligned,
    batch: Array,
    *,
    config: ChainConfig,
    model: Model,
    advantage: Advantage,
    step: Step = ddim,
) -> tuple[Rows, Metrics]:
    """As `collect`, of whole chains `[P * K, n, ...]`."""
    rows, told = collect(key, state, batch, config=config, model=model, advantage=advantage, step=step)
    return whole(rows, len(batch) * config.group), told


def chain_learner(
    config: ChainConfig,
    model: Model,
    advantage: Advantage,
    step: Step = ddim,
    *,
    collect: Collect = collect,
    surrogate: Surrogate = clipped,
    memory: Memory = NOTHING,
) -> Learner:
    """A policy gradient on chains of `step`, which learns from conditions `[P, C]`.

    `collect` has the arguments of this file's; what it and `surrogate` are is hashable.
    """
    gather = Bound(collect, (("advantage", advantage), ("step", step)))
    own = Bound(loss, (("step", step), ("surrogate", surrogate)))
    return aligned(gather, own, config, model, memory)
