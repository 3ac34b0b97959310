"""G2RPO (Zhou et al. 2025, arXiv 2510.01982): noise in a single step, so that the reward is that noise's."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import jax
import jax.numpy as jnp
from jax import Array

from jdp.alignment import advantages
from jdp.alignment.chain import (
    Advantage,
    ChainConfig,
    Rows,
    chain_learner,
    divergence,
    drawn,
    rows_of,
)
from jdp.alignment.learner import Aligned, each, in_groups
from jdp.alignment.models import Model
from jdp.alignment.presets import presets_of
from jdp.diffusion import chains
from jdp.diffusion.transitions import Step, euler_step, flow_sde
from jdp.errors import UserError, check_settings
from jdp.finetune.chain import Moves
from jdp.learning.ppo import flat
from jdp.registry import register
from jdp.types import Denoiser, Learner, Metrics, named_keys


@dataclass(frozen=True)
class G2RPOConfig(ChainConfig):
    """Settings of G2RPO."""

    group: int = 12
    """Branches of each step that branches."""
    eta: float = 0.7 / 2**0.5
    """Scales the noise of a step: the paper's `a` over the root of 2."""
    kl_weight: float = 0.0
    """Beta: of the divergence from the model as it was, in units of advantages."""
    kl_to_go: bool = False
    """Has no meaning here: no step that follows is drawn."""
    branching: int = 8
    """The first steps of a chain, each of which branches."""
    spread: Literal["group", "none"] = "group"
    """Whose standard deviation advantages are divided by; "none" keeps the reward's unit."""
    strides: tuple[int, ...] = (1, 2)
    """Of the levels that are left of a branch, every so many: advantages are summed over them."""

    def __post_init__(self) -> None:
        super().__post_init__()
        name = type(self).__name__
        check_settings(name, branching=(self.branching, 1, 10_000))
        if self.kl_to_go:
            raise UserError(f"{name}.kl_to_go is set: no step that follows is drawn; leave it out")
        if not self.strides or min(self.strides) < 1:
            raise UserError(f"{name}.strides is {self.strides}: give at least one, each 1 or more")


def finished(denoiser: Denoiser, x: Array, begin: Array, sigmas: Array, stride: int) -> Array:
    """`x` `[B, *event]` at level `begin` of `sigmas` `[n + 1]`, by the ODE down every `stride`-th to 0."""
    last = len(sigmas) - 1

    def once(count: Array, x: Array) -> Array:
        place = begin + stride * count
        return euler_step(denoiser, x, sigmas[place], sigmas[jnp.minimum(place + stride, last)])

    return jax.lax.fori_loop(0, (last - begin + stride - 1) // stride, once, x)


def _collect(
    key: Array,
    state: Aligned,
    batch: Array,
    *,
    config: G2RPOConfig,
    model: Model,
    advantage: Advantage,
    step: Step,
) -> tuple[Rows, Metrics]:
    """Branches of one chain of the ODE at each condition: `[branching * P * K, ...]`, single moves."""
    keys, params = named_keys(key, "start", "branch"), state.trained.params
    sigmas, start = model.sampling.sigmas(), model.start(keys["start"], len(batch))
    own = model.denoiser(params, batch)
    anchors = chains.draw(step, own, start, sigmas, None, eta=0.0, trace=True)[: config.branching]
    condition, states = each(batch, config), jnp.repeat(anchors, config.group, axis=1)
    shape = states.shape[:2]  # [branching, P * K]
    steps = jnp.arange(config.branching)
    shown = jnp.broadcast_to(condition[None], (*shape, condition.shape[1]))
    every = flat(Moves(shown, states, states, jnp.broadcast_to(steps[:, None], shape)))
    ours, theirs = (drawn(p, every, config, model, step) for p in (params, state.reference))
    every = every._replace(following=ours.sample(keys["branch"]))

    def worth(stride: int) -> tuple[Array, Array]:
        def end(item: tuple[Array, Array]) -> Array:
            return finished(model.denoiser(params, condition), item[0], item[1] + 1, sigmas, stride)

        x0 = jax.lax.map(end, (every.following.reshape(*shape, *model.event), steps))
        reward = state.judge(x0.reshape(-1, *model.event), every.shown)
        return reward, advantage(in_groups(reward, config)).reshape(-1)

    found = [worth(stride) for stride in config.strides]
    apart = divergence(ours, theirs, config, model)
    total = jnp.sum(jnp.stack([a for _, a in found]), axis=0)
    told = {"reward": jnp.mean(found[0][0]), "kl": jnp.mean(apart)}
    return rows_of(every, ours, theirs, total, config, model), told


@register(
    "alignment",
    "g2rpo",
    G2RPOConfig,
    presets_of(
        G2RPOConfig(learning_rate=2e-3, branching=25, eta=1.0, spread="none", kl_weight=2.0),
        60,
        16,
        run=G2RPOConfig(learning_rate=2e-4, branching=5, eta=1.0, spread="none", kl_weight=0.1),
        paper=G2RPOConfig(),
    ),
    title="G2RPO",
    paper="arXiv 2510.01982",
    idea="noise in one step and the ODE around it; advantages summed over step sizes of what is left",
    departures="steps of the SDE are solved for a fixed denoised sample; densities are sums over the entries "
    "of a sample, and the clip is PPO's; every condition has a start of its own",
)
@lru_cache
def g2rpo(config: G2RPOConfig, model: Model) -> Learner:
    """G2RPO of `model`. Equal arguments give the same learner."""
    if config.branching > model.sampling.steps:
        raise UserError(
            f"G2RPOConfig.branching is {config.branching}, of chains of {model.sampling.steps} steps"
        )
    return chain_learner(config, model, advantages.SPREADS[config.spread], flow_sde, collect=_collect)
