"""Diffusion policy (Chi et al. 2023, arXiv 2303.04137): chunks of actions, with a receding horizon."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

from jax import Array

from jdp.data.normalise import Affine, identity
from jdp.diffusion import formulations
from jdp.diffusion.formulations import Formulation, Space
from jdp.diffusion.paths import differences, integrated, waypoint_loss
from jdp.diffusion.sampling import FlowSampling, Sampling
from jdp.errors import check_choices, check_settings
from jdp.learning.fitting import falling_rates
from jdp.learning.scale import StepScale, clip_action
from jdp.networks.conditional_mlp import conditioned
from jdp.policies import actions, chunks
from jdp.policies.chunks import CloneState, LongChunkConfig
from jdp.policies.presets import presets_of
from jdp.policies.relabelled import imitated
from jdp.registry import Preset, Task, register
from jdp.types import (
    Bound,
    Coordinates,
    Denoiser,
    Guide,
    Method,
    Metrics,
    Params,
    PyTree,
    Segments,
    Spec,
    named_keys,
)


@dataclass(frozen=True)
class DiffusionPolicyConfig(LongChunkConfig):
    """Settings of diffusion policy: 16 actions are predicted, 8 executed.

    The paper sees 2 observations, denoises with a convolutional network or a transformer, and samples
    by 100 steps of DDPM; here the last observation, an MLP of the flat chunk, and 10 steps of
    DPM-Solver++(2M), which give exact Gaussians of std 1, .3 and .1 spreads that are 1 %, 4 % and -1 % off.
    """

    formulation: Literal["edm", "flow", "vp_x0", "vp_eps", "vp_v"] = "edm"
    """What is learned: EDM's denoiser or a network that predicts x0, eps or v, on Karras levels; or a
    rectified flow, sampled in equal steps of its time, which knows none of sigma_min to p_std (its own
    sampler is euler)."""
    loss_space: Space = "own"
    """Whose error the loss is: what the network predicts (own), or x0, eps, v or the score; Hyper Diffusion
    Planner (arXiv 2602.22801) predicts and judges x0."""
    representation: Literal["actions", "steps"] = "actions"
    """What is diffused: actions, or the steps from one to the next, of actions that say where to go.
    `sigma_data` is then the standard deviation of steps."""
    waypoint_weight: float = 0.0
    """Of the squared error of where the chunk leads, its entries summed, beside their own (.05 in that
    paper): of actions that are steps themselves, such as velocities, or of the representation by steps."""
    waypoint_window: int = 10
    """Entries through which the gradient of that error passes: those of its own window of so many."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choices(self)
        name, weight, window = type(self).__name__, self.waypoint_weight, self.waypoint_window
        check_settings(name, waypoint_weight=(weight, 0, 1e6), waypoint_window=(window, 1, 1 << 20))

    def trains(self) -> Formulation:
        """What the network predicts, the levels that it learns at, and what the loss sees."""
        found = super().trains()
        if self.formulation != "edm":
            found = formulations.formulation(self.formulation)
        found = found.in_space(self.loss_space)
        if not self.waypoint_weight:
            return found
        return replace(found, beside=waypoint_loss(self.chunk, self.waypoint_weight, self.waypoint_window))

    def encode(self, chunk: Array) -> Array:
        """Of actions `[B, T, A]` what is diffused."""
        return differences(chunk) if self.representation == "steps" else chunk

    def decode(self, x0: Array) -> Array:
        """The inverse, within the box."""
        return clip_action(integrated(x0)) if self.representation == "steps" else x0

    def units(self, standardise: Affine, spec: Spec) -> Coordinates:
        """Guides see actions, whatever is diffused."""
        if self.representation == "actions":
            return super().units(standardise, spec)
        return StepScale(standardise, identity(spec.action_dim), self.sigma_data)

    def sampling(self) -> Sampling:
        """How chunks are sampled."""
        found = super().sampling()
        return FlowSampling(found.sampler, found.steps) if self.formulation == "flow" else found


def of_steps(params: Params, seen: PyTree, *, config: DiffusionPolicyConfig) -> Denoiser:
    """The denoiser of steps `[B, chunk * A]` given conditions `seen`; actions stay in the box."""
    own = config.trains().denoiser(conditioned(config.network().apply), (params, seen))
    return actions.clipped_path(own, config.chunk)


def _update(
    key: Array, state: CloneState, batch: Segments, *, config: DiffusionPolicyConfig, spec: Spec
) -> tuple[CloneState, Metrics]:
    keys = named_keys(key, "level", "noise")
    seen, chunk = chunks.example(batch, state.standardise, config, spec)
    sigma, keep = actions.levels(keys["level"], chunk.shape[0], config), imitated(batch, spec)

    def loss(params: Params) -> Array:
        return actions.imitation_loss(keys["noise"], params, seen, chunk, sigma, keep, config)

    return chunks.imitate(state, loss, config)


def presets(task: Task) -> Mapping[str, Preset]:
    """The same settings for all datasets."""
    return presets_of(DiffusionPolicyConfig(), task)


@register(
    "policy",
    "diffusion_policy",
    DiffusionPolicyConfig,
    presets,
    title="Diffusion policy",
    paper="arXiv 2303.04137",
    idea="clones chunks of 16 actions, executes 8",
    departures="one observation instead of two, an MLP of the flat chunk, 10 steps of DPM-Solver++(2M) "
    "instead of 100 of DDPM; on request a rectified flow, or Hyper Diffusion Planner's steps and waypoints",
    fit=falling_rates,
)
@lru_cache
def diffusion_policy(config: DiffusionPolicyConfig, spec: Spec, *, guide: Guide | None = None) -> Method:
    """Diffusion policy; equal arguments give the same one.

    Near an episode's end a chunk repeats the last row's action (0 after a terminal): draw its segments
    from `jdp.data.segment_rows(episodes, 2)` to imitate the ends too.
    """
    denoiser = actions.denoiser if config.representation == "actions" else of_steps
    acting = Bound(denoiser, (("config", config),))
    return chunks.chunk_method(chunks.init, _update, acting, config, spec, guide)
