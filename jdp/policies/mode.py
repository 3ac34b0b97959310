"""MoDE (Reuss et al. 2024, arXiv 2412.12953): goal-conditioned imitation by experts for noise levels."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import jax.numpy as jnp
import optax
from jax import Array

from jdp.data import SegmentRows
from jdp.errors import UserError, check_settings
from jdp.learning import averaged
from jdp.learning.fitting import falling_rates
from jdp.networks import from_module
from jdp.networks.conditional_mlp import conditioned
from jdp.networks.experts import ExpertTransformer, Fused, fuse, fused, load_balance, routes
from jdp.networks.flat import flattened, of_flat
from jdp.networks.layers import dtype_of
from jdp.policies import actions, beso, chunks
from jdp.policies.beso import BESOConfig
from jdp.policies.chunks import CloneState
from jdp.policies.presets import presets_of
from jdp.policies.relabelled import share_of
from jdp.registry import Preset, Task, register
from jdp.types import Bound, Denoiser, Guide, Method, Metrics, Network, Params, Segments, Spec, named_keys


@dataclass(frozen=True)
class MoDEConfig(BESOConfig):
    """Settings of MoDE: BESO's EDM, a transformer of experts, ten DDIM steps.

    The paper sees images and language, and has 12 blocks of 1024 features; here goals are in hindsight.
    """

    chunk: int = 10
    """Actions that are predicted, from the present one on."""
    execute: int = 10
    """Actions that are executed before the next prediction."""
    features: int = 256
    """Width of the tokens."""
    blocks: int = 4
    """Of attention and experts."""
    heads: int = 8
    """Of attention."""
    experts: int = 4
    """In every block."""
    top_k: int = 2
    """Experts that a level uses."""
    balance: float = 0.01
    """Weight of the loss that keeps the experts' loads alike."""
    weight_decay: float = 0.05
    """Of AdamW."""
    sampling_steps: int = 10
    """Steps of the sampler."""
    sigma_min: float = 0.001
    """Last positive level of sampling, and the lowest of training."""
    sigma_max: float = 80.0
    """First level of sampling, and the highest of training."""
    guidance: float = 1.0
    """Weight of the goal in classifier-free guidance: 0 ignores it, 1 is conditional sampling."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_settings("MoDEConfig", experts=(self.experts, 2, 1024), top_k=(self.top_k, 1, self.experts))
        if self.features % self.heads:
            raise UserError(f"MoDEConfig needs features ({self.features}) that its {self.heads} heads divide")

    def module(self) -> ExpertTransformer:
        """Of chunks `[B, chunk, A]`."""
        dtype = dtype_of(self.precision)
        return ExpertTransformer(
            self.features, self.blocks, self.heads, self.experts, self.top_k, dtype=dtype
        )

    def network(self, groups: tuple[int, ...] = (0,)) -> Network:
        """Of flat chunks `[B, chunk * A]`, seeing a condition `[B, C]`."""
        del groups
        return flattened(from_module(self.module()), self.chunk)

    def optimiser(self) -> optax.GradientTransformation:
        """AdamW on the cosine."""
        return optax.adamw(
            optax.cosine_decay_schedule(self.learning_rate, self.steps), weight_decay=self.weight_decay
        )


def _drawn(both: tuple[Params, Array], *seen: Array, module: ExpertTransformer) -> Any:
    """The network with experts that are drawn by a key, as in training."""
    params, key = both
    return module.apply(params, *seen, rngs={"router": key})


def _init(key: Array, rows: SegmentRows, *, config: MoDEConfig, spec: Spec) -> CloneState:
    return chunks.init(key, rows, config=config, spec=spec, extra=1 if spec.goal else 0)


def _update(
    key: Array, state: CloneState, batch: Segments, *, config: MoDEConfig, spec: Spec
) -> tuple[CloneState, Metrics]:
    """BESO's, with drawn experts and the loss of their balance, which needs the levels alone."""
    keys = named_keys(key, "level", "noise", "drop", "router")
    seen, chunk, keep, sigma = beso.lesson(keys, state.standardise, batch, config, spec)
    form, module, weight = config.trains(), config.module(), share_of(keep, chunk.dtype)
    apply = conditioned(of_flat(Bound(_drawn, (("module", module),)), config.chunk))

    def loss(params: Params) -> tuple[Array, Metrics]:
        both = ((params, keys["router"]), seen)
        bc, _ = form.loss(keys["noise"], apply, both, chunk, sigma=sigma, weight=weight)
        used = routes(module, params, form.preconditioning.condition(sigma), keys["router"])
        balance = load_balance(*used)
        return bc + config.balance * balance, {"loss": bc, "load_balance": balance}

    actor, metrics = averaged.descend(config.optimiser(), state.actor, loss, config.ema)
    return state._replace(actor=actor), metrics


def joined(state: CloneState, config: MoDEConfig) -> CloneState:
    """A trained state to act with: the experts of each of the sampler's levels are joined ahead (`fuse`).

    It acts alike with less arithmetic (54 % of the operations, and about half the time, at 128 features), and
    takes `sampling_steps * top_k / experts` times the memory for its experts; it cannot be trained. (To join
    them within every decision costs more than it saves.)

    Raises:
        UserError: for samplers that visit levels of their own.
    """
    if config.sampler.startswith("churned"):
        raise UserError(f"{config.sampler} visits levels of its own, whose experts cannot be joined ahead")
    levels = config.trains().preconditioning.condition(config.sampling().sigmas()[:-1])
    return state._replace(actor=state.actor._replace(ema=fuse(config.module(), state.actor.ema, levels)))


def _own(params: Any, seen: Array, config: MoDEConfig) -> Denoiser:
    """`actions.denoiser`, also of joined experts."""
    if not isinstance(params, Fused):
        return actions.denoiser(params, seen, config)
    apply = conditioned(of_flat(fused(config.module()), config.chunk))
    return actions.clipped(config.trains().denoiser(apply, (params, seen)))


def denoiser(params: Params, seen: Array, config: MoDEConfig, spec: Spec) -> Denoiser:
    """BESO's, given a condition `[B, C]`; with the guidance 1 one call of the network with the goal."""
    if config.guidance == 1:
        return _own(params, beso.shown(seen, jnp.ones(seen.shape[0], bool), spec), config)
    return beso.denoiser(params, seen, config, spec, _own)


def presets(task: Task) -> Mapping[str, Preset]:
    """The same settings for all datasets; the plumbing is seen with one block."""
    return presets_of(MoDEConfig(), task, blocks=1)


@register(
    "policy",
    "mode",
    MoDEConfig,
    presets,
    title="MoDE",
    paper="arXiv 2412.12953",
    idea="clones chunks given the goal by experts that the noise level alone chooses",
    departures="observations and goals are vectors, one token; positions are sinusoids; 4 blocks of 256 "
    "features, without dropout; a block adds to what it was given, not to its norm as the authors' code does",
    fit=falling_rates,
)
@lru_cache
def mode(config: MoDEConfig, spec: Spec, *, guide: Guide | None = None) -> Method:
    """MoDE as a policy; equal arguments give the same one. Without goals it is behaviour cloning."""
    acting = Bound(denoiser, (("config", config), ("spec", spec)))
    return chunks.chunk_method(_init, _update, acting, config, spec, guide)
