"""CFGRL (Frans, Park, Abbeel and Levine 2025, arXiv 2505.23458): guidance is policy improvement."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jdp.data import Hindsight, SegmentDraw, SegmentRows
from jdp.diffusion.guidance.classifier_free import classifier_free_doubled, flagged
from jdp.errors import check_settings
from jdp.learning.critics import TwinCriticConfig
from jdp.learning.fitting import falling_rates_and_scaled_rewards
from jdp.policies import actions, actor_critic, chunks, idql
from jdp.policies.actor_critic import ActorCriticState
from jdp.policies.chunks import ChunkConfig, Chunks
from jdp.policies.idql import ValueConfig
from jdp.policies.presets import presets_of
from jdp.policies.relabelled import imitated, transitions
from jdp.registry import Preset, Task, register
from jdp.types import Bound, Denoiser, Guide, Learner, Method, Metrics, Params, Segments, Spec, named_keys


@dataclass(frozen=True)
class CFGRLConfig(ChunkConfig, ValueConfig):
    """Settings of CFGRL."""

    guidance: float = 1.5
    """Weight w of optimality when it acts: 0 clones the data, 1 clones what is better than average, above 1
    improves further, at the risk of actions that the data hardly have. It is no setting of training."""
    drop: float = 0.1
    """Share of training rows that do not see whether their action was optimal."""
    sampling_steps: int = 10
    """Steps of the sampler."""

    def __post_init__(self) -> None:
        ChunkConfig.__post_init__(self)
        TwinCriticConfig.__post_init__(self)
        self.check_expectile()
        check_settings("CFGRLConfig", drop=(self.drop, 0, 1), guidance=(self.guidance, 0, np.inf))

    def offsets(self) -> tuple[int, ...]:
        """Those of chunks, and the row that the first action leads to."""
        return tuple(range(1 - self.history, max(self.chunk, 2)))


def _init(key: Array, rows: SegmentRows, *, config: CFGRLConfig, spec: Spec) -> ActorCriticState:
    keys = named_keys(key, "judges", "actor")
    actor = chunks.init(keys["actor"], rows, config=config, spec=spec, extra=2).actor
    return idql.init(keys["judges"], rows, config=config, spec=spec)._replace(actor=actor)


def _from_present(batch: Segments, config: CFGRLConfig) -> Segments:
    """The rows from the present one on."""
    first = config.history - 1
    return batch._replace(
        observation=batch.observation[:, first:],
        action=batch.action[:, first:],
        reward=batch.reward[:, first:],
        terminal=batch.terminal[:, first:],
    )


def _update(
    key: Array, state: ActorCriticState, batch: Segments, *, config: CFGRLConfig, spec: Spec
) -> tuple[ActorCriticState, Metrics]:
    """The critics as IQL's; the actor imitates, told or not whether the action's advantage is at least 0."""
    keys = named_keys(key, "level", "noise", "drop")
    step = transitions(_from_present(batch, config), state.standardise, spec, config)
    judged, keep = idql.judge(state, step, config), imitated(batch, spec)
    optimal = jax.lax.stop_gradient(judged.advantage >= 0).astype(jnp.float32)
    seen, chunk = chunks.example(batch, state.standardise, config, spec)
    given = jax.random.bernoulli(keys["drop"], 1 - config.drop, optimal.shape)
    shown = jnp.concatenate([seen, flagged(optimal[:, None], given)], axis=-1)
    sigma = actions.levels(keys["level"], keep.size, config)

    def loss(params: Params, critic: Params) -> tuple[Array, Metrics]:
        del critic
        bc = actions.imitation_loss(keys["noise"], params, shown, chunk, sigma, keep, config)
        return bc, {"bc_loss": bc, "optimal": jnp.mean(optimal)}

    state, metrics = actor_critic.learn(judged.state, step, judged.target, loss, config)
    return state, {**judged.metrics, **metrics}


def denoiser(params: Params, seen: Array, *, config: CFGRLConfig) -> Denoiser:
    """`D_data + guidance (D_optimal - D_data)` of chunks, given conditions `seen` `[B, C]`."""
    optimal, nothing = jnp.ones((seen.shape[0], 2)), jnp.zeros((seen.shape[0], 2))
    both = jnp.concatenate([jnp.concatenate([seen, flag], axis=-1) for flag in (optimal, nothing)])
    return actions.clipped(classifier_free_doubled(actions.denoiser(params, both, config), config.guidance))


def presets(task: Task) -> Mapping[str, Preset]:
    """The same settings for all datasets."""
    return presets_of(CFGRLConfig(), task)


@register(
    "policy",
    "cfgrl",
    CFGRLConfig,
    presets,
    title="CFGRL",
    paper="arXiv 2505.23458",
    idea="clones actions told that they beat the average; the weight of guidance is how much it improves",
    departures="an EDM denoiser in the place of a flow; a chunk has the label of its first action; without a "
    "value, by goals alone, the paper's policy is beso with guidance above 1",
    fit=falling_rates_and_scaled_rewards,
)
@lru_cache
def cfgrl(config: CFGRLConfig, spec: Spec, *, guide: Guide | None = None) -> Method:
    """CFGRL as a policy; equal arguments give the same one.

    It draws from `p(a | s) p(o | s, a)^w`, whose value never falls with `w` (theorem 2): the score of the
    data's policy, and `w` times the difference of what is told that its action is optimal. Of noised
    densities that sum is exact where the two are Gaussians of one variance, as of `guidance.compose`.
    """
    settings = (("config", config), ("spec", spec))
    draw = SegmentDraw(config.offsets(), spec.goal, Hindsight(next=0.2, later=0.5, anywhere=0.3))
    learner = Learner(Bound(_init, settings), Bound(_update, settings), draw)
    own = Bound(denoiser, (("config", config),))
    return Method(learner, Chunks(own, config, spec, guide).policy(chunks.act))
