"""NoMaD (Sridhar et al. 2023, arXiv 2310.07896): one policy that goes to a goal, and explores without one."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from jdp.data import SegmentRows
from jdp.data.checks import check_fits
from jdp.errors import check_settings
from jdp.learning import averaged
from jdp.learning.fitting import falling_rates
from jdp.learning.observations import observation_affine
from jdp.networks.goal_masked import goal_masked
from jdp.policies import actions, chunks
from jdp.policies.chunks import ChunkConfig, CloneState
from jdp.policies.presets import presets_of
from jdp.policies.relabelled import imitated, mean_of
from jdp.registry import Preset, Task, register
from jdp.types import Bound, Denoiser, Guide, Method, Metrics, Network, Params, Segments, Spec, named_keys


@dataclass(frozen=True)
class NoMaDConfig(ChunkConfig):
    """Settings of NoMaD."""

    history: int = 2
    """Observations that the policy sees: the last ones."""
    chunk: int = 8
    """Actions that are predicted, from the present one on."""
    execute: int = 4
    """Actions that are executed before the next prediction."""
    learning_rate: float = 1e-4
    """Of Adam at the first step."""
    sampling_steps: int = 10
    """Steps of the sampler."""
    attention_blocks: int = 2
    """Of the transformer that sees observations and goal."""
    goal_mask: float = 0.5
    """Share of training rows whose goal is hidden."""
    distance_weight: float = 1e-4
    """Of the squared error of the steps to the goal; 1 less it is that of the denoising loss."""
    explore: bool = False
    """Play without the goal."""

    def __post_init__(self) -> None:
        super().__post_init__()
        shares = {"goal_mask": (self.goal_mask, 0, 1), "distance_weight": (self.distance_weight, 0, 1)}
        check_settings("NoMaDConfig", **shares)

    def encoder(self) -> Network:
        """Of observations `[B, H, O]`, goals `[B, G]` and which are shown `[B]`."""
        return goal_masked(self.features, self.attention_blocks, self.precision)


HEAD = nn.Dense(1)  # steps to the goal, of what the encoder says


def _init(key: Array, rows: SegmentRows, *, config: NoMaDConfig, spec: Spec) -> CloneState:
    check_fits(rows.observation, rows.action, spec, "policy")
    keys, one = named_keys(key, "encoder", "denoiser", "distance"), jnp.zeros((1, config.features))
    seen = jnp.zeros((1, config.history, spec.observation_dim)), jnp.zeros((1, len(spec.goal)))
    x = jnp.zeros((1, config.chunk * spec.action_dim))
    params = {
        "encoder": config.encoder().init(keys["encoder"], *seen, jnp.ones(1, bool)),
        "denoiser": config.network().init(keys["denoiser"], x, jnp.zeros(1), one),
        "distance": HEAD.init(keys["distance"], one),
    }
    return CloneState(averaged.begin(config.optimiser(), params), observation_affine(rows.observation))


def encoded(params: Params, seen: Array, present: Array, config: NoMaDConfig, spec: Spec) -> Array:
    """`[B, features]` of the condition `seen` `[B, H O + G]`, whose goal is shown where `present` `[B]`."""
    count = config.history * spec.observation_dim
    observations = seen[:, :count].reshape(-1, config.history, spec.observation_dim)
    return config.encoder().apply(params["encoder"], observations, seen[:, count:], present)


def _update(
    key: Array, state: CloneState, batch: Segments, *, config: NoMaDConfig, spec: Spec
) -> tuple[CloneState, Metrics]:
    keys = named_keys(key, "level", "noise", "mask")
    seen, chunk = chunks.example(batch, state.standardise, config, spec)
    present = jax.random.bernoulli(keys["mask"], 1 - config.goal_mask, chunk.shape[:1])
    ahead, sigma = imitated(batch, spec), actions.levels(keys["level"], chunk.shape[0], config)

    def loss(params: Params) -> Array:
        context = encoded(params, seen, present, config, spec)
        # Without its goal a row may be imitated wherever that lay.
        own = actions.imitation_loss(
            keys["noise"], params["denoiser"], context, chunk, sigma, ahead | ~present, config
        )
        if not spec.goal:
            return own
        wrong = jnp.square(_head(params, context) - batch.distance.astype(jnp.float32))
        weight = config.distance_weight
        return (1 - weight) * own + weight * mean_of(wrong[:, None], ahead & present)

    return chunks.imitate(state, loss, config)


def _head(params: Params, context: Array) -> Array:
    return HEAD.apply(params["distance"], context)[:, 0]  # pyright: ignore


def distance(
    state: CloneState, observations: Array, goal: Array, *, config: NoMaDConfig, spec: Spec
) -> Array:
    """`[B]`, steps from the last of the observations `[B, H, O]` to the goals `[B, G]`, as it was learned."""
    seen = chunks.condition(state.standardise, observations, goal, spec)
    shown = jnp.ones(seen.shape[0], bool)
    return _head(state.actor.ema, encoded(state.actor.ema, seen, shown, config, spec))


def denoiser(params: Params, seen: Array, *, config: NoMaDConfig, spec: Spec) -> Denoiser:
    """Of chunks, given a condition `[B, C]`, whose goal is hidden where it explores."""
    context = encoded(params, seen, jnp.full(seen.shape[0], not config.explore), config, spec)
    return actions.denoiser(params["denoiser"], context, config)


def presets(task: Task) -> Mapping[str, Preset]:
    """The same settings for all datasets."""
    return presets_of(NoMaDConfig(), task)


@register(
    "policy",
    "nomad",
    NoMaDConfig,
    presets,
    title="NoMaD",
    paper="arXiv 2310.07896",
    idea="hides the goal from attention in half of training: one network goes to goals, and explores",
    departures="observations of two steps in the place of six pictures, EDM in that of 10 steps of DDPM",
    fit=falling_rates,
)
@lru_cache
def nomad(config: NoMaDConfig, spec: Spec, *, guide: Guide | None = None) -> Method:
    """NoMaD; equal arguments give the same one. Its `behaviour` explores: it is `policy` without the goal."""

    own = Bound(denoiser, (("config", config), ("spec", spec)))
    method = chunks.chunk_method(_init, _update, own, config, spec, guide)
    if config.explore:
        return method
    return method._replace(behaviour=nomad(replace(config, explore=True), spec, guide=guide).policy)
