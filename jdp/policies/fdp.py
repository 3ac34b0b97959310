"""Factorized Diffusion Policies (Patil et al. 2025, arXiv 2509.16830): what is seen first, and the rest."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jdp.data import SegmentRows
from jdp.data.checks import check_fits
from jdp.errors import check_settings
from jdp.learning.averaged import Averaged
from jdp.learning.fitting import falling_rates
from jdp.learning.observations import observation_affine
from jdp.networks.factorized import factorized_mlp
from jdp.policies import actions, chunks
from jdp.policies.chunks import CloneState
from jdp.policies.diffusion_policy import DiffusionPolicyConfig, of_steps
from jdp.policies.presets import presets_of
from jdp.policies.relabelled import imitated
from jdp.registry import Preset, Task, register
from jdp.tasks import groups
from jdp.types import Bound, Denoiser, Guide, Method, Metrics, Network, Params, Segments, Spec, named_keys


@dataclass(frozen=True)
class FDPConfig(DiffusionPolicyConfig):
    """Settings of Factorized Diffusion Policies: a diffusion policy, and a residual network as large.

    The base learns p(a | o1), of the first group of the observation's entries, and is frozen; the residual
    sees all and learns what is left of the score, `grad_a log p(o2 | a, o1)`.
    """

    first: str = "position"
    """The group of the observation's entries that the base sees, beside the goal."""
    base_share: float = 0.5
    """Share of the updates (`steps`) that train the base; the others train the residual."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_settings("FDPConfig", base_share=(self.base_share, 0, 1))

    @property
    def base_updates(self) -> int:
        """Updates after which the base is frozen."""
        return round(self.base_share * self.steps)

    def of(self, part: str) -> "FDPConfig":
        """Of "base" or "residual", whose learning rate falls over its own updates."""
        steps = self.base_updates if part == "base" else self.steps - self.base_updates
        return replace(self, steps=max(steps, 1))

    def network(self, groups: tuple[int, ...] = (0,)) -> Network:
        """Of flat chunks `[B, chunk * A]`, seeing conditions `(first [B, C1], seen [B, C])`."""
        return factorized_mlp(self.features, self.blocks, groups, self.precision)


def shown(seen: Array, config: FDPConfig, spec: Spec) -> tuple[Array, Array]:
    """Of conditions `[B, H O + G]` what the base sees: the first group of each observation, and the goal.

    With them the conditions themselves. Raises `UserError` if the observation has no such group.
    """
    dim, own = spec.observation_dim, np.array(groups.group(spec, config.first))
    observed = (dim * np.arange(config.history)[:, None] + own[None]).reshape(-1)
    goal = config.history * dim + np.arange(len(spec.goal))
    return seen[:, np.concatenate([observed, goal])], seen


def _init(key: Array, rows: SegmentRows, *, config: FDPConfig, spec: Spec) -> CloneState:
    check_fits(rows.observation, rows.action, spec, "policy")
    x = jnp.zeros((1, config.chunk * spec.action_dim))
    seen = jnp.zeros((1, config.history * spec.observation_dim + len(spec.goal)))
    params: Any = config.network().init(key, x, jnp.zeros(1), shown(seen, config, spec))
    optimisers = {part: config.of(part).optimiser().init(own) for part, own in params.items()}
    actor = Averaged(params, jax.tree.map(jnp.copy, params), optimisers, jnp.zeros((), jnp.int32))
    return CloneState(actor, observation_affine(rows.observation))


def _taught(
    part: str, state: CloneState, loss: Callable[[Params], Array], config: FDPConfig
) -> tuple[CloneState, Metrics]:
    """`state` after a step of its `part` down `loss(weights of that part)`; the other part keeps its bits."""
    whole, begun = state.actor, 0 if part == "base" else config.base_updates
    weights, average, optimiser = (x[part] for x in whole[:3])
    own = Averaged(weights, average, optimiser, jnp.maximum(whole.step - begun, 0))
    (own, _), metrics = chunks.imitate(state._replace(actor=own), loss, config.of(part))
    weights, average, optimiser = ({**x, part: new} for x, new in zip(whole[:3], own[:3], strict=True))
    return state._replace(actor=Averaged(weights, average, optimiser, whole.step + 1)), metrics


def _update(
    key: Array, state: CloneState, batch: Segments, *, config: FDPConfig, spec: Spec
) -> tuple[CloneState, Metrics]:
    """A step of the base, or of the residual of what the base plays with: its averaged weights.

    (Seeds that are trained at once compute both, and take one.)
    """
    keys = named_keys(key, "level", "noise")
    seen, chunk = chunks.example(batch, state.standardise, config, spec)
    both, sigma = shown(seen, config, spec), actions.levels(keys["level"], chunk.shape[0], config)

    def loss(params: Params) -> Array:
        keep = imitated(batch, spec)
        return actions.imitation_loss(keys["noise"], params, both, chunk, sigma, keep, config)

    def base(state: CloneState) -> tuple[CloneState, Metrics]:
        return _taught("base", state, lambda own: loss({"base": own}), config)

    def residual(state: CloneState) -> tuple[CloneState, Metrics]:
        frozen = state.actor.ema["base"]
        return _taught("residual", state, lambda own: loss({"base": frozen, "residual": own}), config)

    return jax.lax.cond(state.actor.step < config.base_updates, base, residual, state)


def denoiser(params: Params, seen: Array, *, config: FDPConfig, spec: Spec) -> Denoiser:
    """Of chunks, given conditions `[B, H O + G]`; parameters without a "residual" are those of the base."""
    own = actions.denoiser if config.representation == "actions" else of_steps
    return own(params, shown(seen, config, spec), config=config)


def presets(task: Task) -> Mapping[str, Preset]:
    """The same settings for all datasets."""
    return presets_of(FDPConfig(), task)


@register(
    "policy",
    "fdp",
    FDPConfig,
    presets,
    title="Factorized Diffusion Policies",
    paper="arXiv 2509.16830",
    idea="clones chunks from one group of the observation; a residual that sees all corrects block by block",
    departures="those of diffusion_policy; the base is shown the goal too, and has half of the updates; the "
    "residual corrects its averaged weights, which play",
    fit=falling_rates,
)
@lru_cache
def fdp(config: FDPConfig, spec: Spec, *, guide: Guide | None = None) -> Method:
    """FDP as a policy; equal arguments give the same one. One learner trains the base, then the residual.

    Raises:
        UserError: if the observation has no group `config.first`.
    """
    groups.group(spec, config.first)  # refuses what is not there before anything is trained
    own = Bound(denoiser, (("config", config), ("spec", spec)))
    return chunks.chunk_method(_init, _update, own, config, spec, guide)
