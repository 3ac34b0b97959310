"""B2-DiffuRL (Hu et al. 2025, arXiv 2503.11240): the last steps first, and branches of a shared prefix.

For rewards that are rarely earned: samples that share their first steps are compared, so it is what the last
steps did that is told; more of them learn as training goes on.
"""

from dataclasses import dataclass
from functools import lru_cache

import jax
import jax.numpy as jnp
from jax import Array

from jdp.alignment import advantages
from jdp.alignment.chain import Advantage, ChainConfig, Rows, chain_learner, counted, judged_chains
from jdp.alignment.learner import Aligned, Memory, each
from jdp.alignment.models import Model
from jdp.alignment.presets import presets_of
from jdp.diffusion.transitions import Step
from jdp.errors import check_settings
from jdp.registry import register
from jdp.types import Denoiser, Learner, Metrics, Params, named_keys


@dataclass(frozen=True)
class B2DiffuRLConfig(ChainConfig):
    """Settings of B2-DiffuRL."""

    group: int = 5
    """Branches of each prefix."""
    clip: float = 0.1
    """How far the ratio of probabilities may go from 1."""
    kl_weight: float = 0.0
    """Beta: of the divergence from the model as it was, in units of advantages."""
    kl_to_go: bool = False
    """Whether a step answers for the divergence of later ones too; without it the gradient is biased."""
    begin_share: float = 0.7
    """Share of a chain's steps, its last ones, that learns at first."""
    widening: int = 100
    """Updates until all steps learn."""
    best: float = 0.5
    """A branch's best sample is learned from if it lies as many standard deviations above the mean."""
    worst: float = -0.5
    """Its worst one if it lies below that; of a single success in five, the others lie at -0.5 exactly."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_settings(
            type(self).__name__,
            begin_share=(self.begin_share, 0, 1),
            widening=(self.widening, 1, 1_000_000_000),
        )


def split(updates: Array, config: B2DiffuRLConfig, model: Model) -> Array:
    """`[]` int32, the step from which chains branch and learn, after so many updates: it falls to 0."""
    steps = model.sampling.steps
    first = min(max(int(config.begin_share * steps), 1), steps)
    grown = updates * (steps - first) // config.widening
    return steps - jnp.minimum(first + grown, steps)


def _walk(
    key: Array,
    denoiser: Denoiser,
    states: Array,
    begin: Array | int,
    end: Array | int,
    *,
    config: B2DiffuRLConfig,
    model: Model,
    step: Step,
) -> Array:
    """States `[n + 1, B, *event]` with those after `begin` up to `end` drawn; the key is consumed."""
    sigmas = model.sampling.sigmas()
    keys = jax.random.split(key, len(sigmas) - 1)

    def once(i: Array, states: Array) -> Array:
        found, _ = step(
            denoiser, (), states[i], sigmas[i], sigmas[i + 1], eta=config.eta, std_floor=config.std_floor
        )
        return states.at[i + 1].set(found.sample(keys[i]))

    return jax.lax.fori_loop(begin, end, once, states)


def branches(
    key: Array, params: Params, batch: Array, first: Array, config: B2DiffuRLConfig, model: Model, step: Step
) -> Array:
    """`[n + 1, P * K, *event]`, chains that share all states up to `first` at each condition `[P, C]`."""
    keys = named_keys(key, "start", "prefix", "branch")
    start = model.start(keys["start"], len(batch))
    steps, settings = model.sampling.steps, {"config": config, "model": model, "step": step}
    states = jnp.broadcast_to(start[None], (steps + 1, *start.shape))
    trunk = _walk(keys["prefix"], model.denoiser(params, batch), states, 0, first, **settings)
    own = model.denoiser(params, each(batch, config))
    return _walk(keys["branch"], own, jnp.repeat(trunk, config.group, axis=1), first, steps, **settings)


def _collect(
    key: Array,
    state: Aligned,
    batch: Array,
    *,
    config: B2DiffuRLConfig,
    model: Model,
    advantage: Advantage,
    step: Step,
) -> tuple[Rows, Metrics]:
    """Branches; of each the best and the worst count, and of these the steps after the split."""
    first = split(state.memory, config, model)
    states = branches(key, state.trained.params, batch, first, config, model, step)
    rows, told = judged_chains(states, each(batch, config), state, config, model, advantage, step)
    score = rows.advantage.reshape(-1, len(batch), config.group)
    kept = jax.vmap(lambda x: advantages.extremes(x, config.best, config.worst))(score).reshape(-1)
    share = jnp.mean(kept.astype(jnp.float32))
    return rows._replace(weight=counted(kept & (rows.moves.step >= first))), {**told, "kept": share}


def _begin(params: Params, *, config: B2DiffuRLConfig, model: Model) -> Array:
    del params, config, model
    return jnp.zeros((), jnp.int32)


def _after(updates: Array, params: Params, *, config: B2DiffuRLConfig, model: Model) -> Array:
    del params, config, model
    return updates + 1


@register(
    "alignment",
    "b2_diffurl",
    B2DiffuRLConfig,
    presets_of(
        B2DiffuRLConfig(learning_rate=3e-3, kl_weight=1.0),
        60,
        16,
        run=B2DiffuRLConfig(learning_rate=3e-4, kl_weight=1.0),
        paper=B2DiffuRLConfig(),
    ),
    title="B2-DiffuRL",
    paper="arXiv 2503.11240",
    idea="branches of a shared prefix are compared, and the last steps learn before the first",
    departures="scores are standardised by the branch, not by past scores of a prompt, so their mean over a "
    "branch is 0",
)
@lru_cache
def b2_diffurl(config: B2DiffuRLConfig, model: Model) -> Learner:
    """B2-DiffuRL of `model`. Equal arguments give the same learner."""
    return chain_learner(config, model, advantages.group, collect=_collect, memory=Memory(_begin, _after))
