"""BESO (Reuss et al. 2023, arXiv 2304.02532): goal-conditioned imitation in three denoising steps."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jdp.data import SegmentRows
from jdp.data.normalise import Affine
from jdp.diffusion.guidance.classifier_free import classifier_free_doubled, flagged
from jdp.errors import check_settings
from jdp.learning.fitting import falling_rates
from jdp.policies import actions, chunks
from jdp.policies.chunks import ChunkConfig, CloneState
from jdp.policies.presets import presets_of
from jdp.policies.relabelled import imitated
from jdp.registry import Preset, Task, register
from jdp.types import Bound, Denoiser, Guide, Method, Metrics, Params, Segments, Spec, named_keys


@dataclass(frozen=True)
class BESOConfig(ChunkConfig):
    """Settings of BESO, with a residual MLP of the last observation in the place of its transformer.

    Three Euler (DDIM) steps from 1 to .005 are quick and coarse: of exact Gaussians of std 1, .3 and .1 the
    spread is 44 %, 42 % and 46 % too narrow, and two modes of weights .7 and .3 get .64 and .36.
    """

    learning_rate: float = 1e-4
    """Of Adam at the first step."""
    steps: int = 40_000
    """Updates over which the learning rate falls to 0 by a cosine."""
    sampler: str = "euler"
    """One of `jdp.diffusion.samplers.SAMPLERS`."""
    sampling_steps: int = 3
    """Steps of the sampler."""
    sigma_min: float = 0.005
    """Last positive level of sampling, and the lowest of training."""
    sigma_max: float = 1.0
    """First level of sampling, and the highest of training."""
    rho: float = 5.0
    """Curvature of the Karras schedule."""
    level_scale: float = 0.5
    """Scale of the log-logistic distribution of training levels; its median is `sigma_data`."""
    goal_drop: float = 0.1
    """Share of training rows that do not see their goal."""
    guidance: float = 1.5
    """Weight of the goal in classifier-free guidance: 0 ignores it, 1 is conditional sampling."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_settings("BESOConfig", goal_drop=(self.goal_drop, 0, 1))


def log_logistic(key: Array, count: int, config: BESOConfig) -> Array:
    """`[count]` levels: ln sigma is logistic about `ln sigma_data`, cut to the range; the key is consumed."""
    middle, scale = math.log(config.sigma_data), config.level_scale

    def cdf(sigma: float) -> float:
        return 1 / (1 + math.exp((middle - math.log(sigma)) / scale))

    low, high = cdf(config.sigma_min), cdf(config.sigma_max)
    u = low + (high - low) * jax.random.uniform(key, (count,))
    return jnp.exp(middle + scale * jax.scipy.special.logit(u))


def shown(seen: Array, present: Array, spec: Spec) -> Array:
    """`[B, C + 1]`: the condition `seen`, its goal 0 where not `present` `[B]`, and whether it is there.

    Without goals `seen` itself. (The authors' code has no flag; a goal of 0, the mean, is then as good
    as none.)
    """
    goals = len(spec.goal)
    if not goals:
        return seen
    return jnp.concatenate([seen[:, :-goals], flagged(seen[:, -goals:], present)], axis=-1)


def _init(key: Array, rows: SegmentRows, *, config: BESOConfig, spec: Spec) -> CloneState:
    return chunks.init(key, rows, config=config, spec=spec, extra=1 if spec.goal else 0)


def lesson(
    keys: Mapping[str, Array], standardise: Affine, batch: Segments, config: BESOConfig, spec: Spec
) -> tuple[Array, Array, Array, Array]:
    """What is seen `[B, C + 1]`, the chunk `[B, D]`, whether it is imitated `[B]`, and its level `[B]`.

    Consumes the keys "level" and "drop".
    """
    seen, chunk = chunks.example(batch, standardise, config, spec)
    present = jax.random.bernoulli(keys["drop"], 1 - config.goal_drop, chunk.shape[:1])
    sigma = log_logistic(keys["level"], chunk.shape[0], config)
    return shown(seen, present, spec), chunk, imitated(batch, spec), sigma


def _update(
    key: Array, state: CloneState, batch: Segments, *, config: BESOConfig, spec: Spec
) -> tuple[CloneState, Metrics]:
    keys = named_keys(key, "level", "noise", "drop")
    seen, chunk, keep, sigma = lesson(keys, state.standardise, batch, config, spec)

    def loss(params: Params) -> Array:
        return actions.imitation_loss(keys["noise"], params, seen, chunk, sigma, keep, config)

    return chunks.imitate(state, loss, config)


def denoiser(
    params: Params,
    seen: Array,
    config: BESOConfig,
    spec: Spec,
    own: Callable[[Params, Array, Any], Denoiser] = actions.denoiser,
) -> Denoiser:
    """`D_free + guidance (D_goal - D_free)` of a condition `[B, C]`; without goals the plain denoiser.

    `own(params, shown, config)` is the denoiser given what is `shown`.
    """
    rows = seen.shape[0]
    with_goal = shown(seen, jnp.ones(rows, bool), spec)
    if not spec.goal:
        return own(params, with_goal, config)
    both = jnp.concatenate([with_goal, shown(seen, jnp.zeros(rows, bool), spec)])
    return actions.clipped(classifier_free_doubled(own(params, both, config), config.guidance))


def presets(task: Task) -> Mapping[str, Preset]:
    """The same settings for all datasets."""
    return presets_of(BESOConfig(), task)


@register(
    "policy",
    "beso",
    BESOConfig,
    presets,
    title="BESO",
    paper="arXiv 2304.02532",
    idea="clones actions given the goal, in 3 denoising steps",
    departures="a residual MLP of the last observation instead of a transformer; a flag says that the goal "
    "is left out",
    fit=falling_rates,
)
@lru_cache
def beso(config: BESOConfig, spec: Spec, *, guide: Guide | None = None) -> Method:
    """BESO as a policy; equal arguments give the same one. Without goals it is behaviour cloning."""
    acting = Bound(denoiser, (("config", config), ("spec", spec)))
    return chunks.chunk_method(_init, _update, acting, config, spec, guide)
