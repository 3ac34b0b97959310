"""Diffusion policy (Chi et al. 2023, arXiv 2303.04137): chunks of actions, with a receding horizon."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from jax import Array

from jdp.diffusion import formulations
from jdp.diffusion.formulations import Formulation
from jdp.diffusion.sampling import FlowSampling, Sampling
from jdp.errors import check_choices
from jdp.learning.fitting import falling_rates
from jdp.policies import actions, chunks
from jdp.policies.chunks import ChunkConfig, CloneState
from jdp.policies.presets import presets_of
from jdp.policies.relabelled import imitated
from jdp.registry import Preset, Task, register
from jdp.types import Bound, Guide, Method, Metrics, Params, Segments, Spec, named_keys


@dataclass(frozen=True)
class DiffusionPolicyConfig(ChunkConfig):
    """Settings of diffusion policy: 16 actions are predicted, 8 executed.

    The paper sees 2 observations, denoises with a convolutional network or a transformer, and samples
    by 100 steps of DDPM; here the last observation, an MLP of the flat chunk, and 10 steps of
    DPM-Solver++(2M), which give exact Gaussians of std 1, .3 and .1 spreads that are 1 %, 4 % and -1 % off.
    """

    chunk: int = 16
    """Actions that are predicted, from the present one on."""
    execute: int = 8
    """Actions that are executed before the next prediction."""
    features: int = 512
    """Width of the denoiser."""
    learning_rate: float = 1e-4
    """Of Adam at the first step."""
    sampling_steps: int = 10
    """Steps of the sampler."""
    formulation: Literal["edm", "flow"] = "edm"
    """What is learned: EDM's denoiser on Karras levels, or a rectified flow, sampled in equal steps of its
    time, which knows none of sigma_min to p_std (its own sampler is euler)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choices(self)

    def trains(self) -> Formulation:
        """What the network predicts, and the levels that it learns at."""
        return formulations.flow() if self.formulation == "flow" else super().trains()

    def sampling(self) -> Sampling:
        """How chunks are sampled."""
        found = super().sampling()
        return FlowSampling(found.sampler, found.steps) if self.formulation == "flow" else found


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
    "instead of 100 of DDPM; on request a rectified flow",
    fit=falling_rates,
)
@lru_cache
def diffusion_policy(config: DiffusionPolicyConfig, spec: Spec, *, guide: Guide | None = None) -> Method:
    """Diffusion policy; equal arguments give the same one.

    Near an episode's end a chunk repeats the last row's action (0 after a terminal): draw its segments
    from `jdp.data.segment_rows(episodes, 2)` to imitate the ends too.
    """
    acting = Bound(actions.denoiser, (("config", config),))
    return chunks.chunk_method(chunks.init, _update, acting, config, spec, guide)
