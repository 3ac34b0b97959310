"""AdaptDiffuser (Liang et al. 2023, arXiv 2302.01877): learn from one's own plans that pass a test.

Beside a planner it is a self-improving method, with settings of its rounds: a longer file. The test itself is
`jdp.planners.selection`.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from jdp.data.episodes import Episodes
from jdp.data.segments import SegmentRows
from jdp.errors import UserError, check_settings
from jdp.learning.averaged import Averaged
from jdp.learning.fitting import falling_rates
from jdp.learning.guides import context_of, history_of, no_past, observe
from jdp.learning.inverse import InverseConfig, begin_inverse, inverse, learn_near
from jdp.learning.scale import Scale, clip_action
from jdp.networks import NetworkConfig
from jdp.planners import diffuser, presets
from jdp.planners.assembly import Parts, ReturnsConfig, method
from jdp.planners.diffuser import DiffuserPlannerConfig, DiffuserPlannerState
from jdp.planners.following import Planned, played, pursued
from jdp.planners.selection import Measures, measures, select
from jdp.planners.trajectory import Previous, nothing
from jdp.registry import Preset, Task, register
from jdp.types import Bound, Context, Guide, Method, Metrics, Segments, Spec, named_keys


@dataclass(frozen=True)
class AdaptDiffuserConfig:
    """Settings of AdaptDiffuser: those of Diffuser, of the test that plans must pass, and of the rounds."""

    diffuser: DiffuserPlannerConfig = field(default_factory=DiffuserPlannerConfig)
    inverse: InverseConfig = field(default_factory=InverseConfig)
    rounds: int = 2
    """How often plans are made, kept and learned from."""
    plans: int = 10_000
    """Plans made in a round, before the test."""
    finetune_share: float = 0.25
    """Gradient steps of a round, as a share of those of the first training."""
    imagined_share: float = 0.5
    """Share of kept plans in the batches of a round; the rest is data."""
    value_quantile: float = 0.8
    """Tasks with rewards: the critic must value a plan above this quantile of its values of real segments."""
    error_quantile: float = 0.5
    """Share of the plans that count as consistent: those whose actions differ least from the inverse model's.
    Not compared with data: on deterministic tasks no drawn plan is as exact."""
    quantile: float = 0.99
    """Of the longest step and the largest action of real segments, which plans must not exceed by far."""
    slack: float = 1.2
    """By how much they may: drawn plans are not as exact as data."""
    reference: int = 256
    """Real segments that plans are compared with."""
    lookahead: int = 8
    """On tasks with goals planned states are tracked by the inverse model, so many steps ahead."""

    def __post_init__(self) -> None:
        if self.diffuser.stride != 1:
            raise UserError(
                f"AdaptDiffuser learns from whole plans: choose diffuser.stride 1, not {self.diffuser.stride}"
            )
        shares = ("finetune_share", "imagined_share", "value_quantile", "error_quantile", "quantile")
        check_settings("AdaptDiffuserConfig", **{name: (getattr(self, name), 0, 1) for name in shares})

    @property
    def replan_every(self) -> int:
        """Steps that a plan is followed."""
        return self.diffuser.replan_every

    @property
    def returns(self) -> ReturnsConfig:
        """The returns to go that Diffuser's critic learns."""
        return self.diffuser.returns

    def steps(self, updates: int) -> tuple[int, int]:
        """`(of a round, in all)`, gradient steps where the first training takes `updates`."""
        each = round(self.finetune_share * updates)
        return each, updates + self.rounds * each


class AdaptDiffuserState(NamedTuple):
    """What AdaptDiffuser learned, and the real segments that its plans are compared with."""

    planner: DiffuserPlannerState
    inverse: Averaged
    observation: Array  # [R, L, O]
    action: Array  # [R, L, A]

    @property
    def scale(self) -> Scale:
        """Diffuser's."""
        return self.planner.scale


@dataclass(frozen=True, kw_only=True)
class AdaptParts(Parts[AdaptDiffuserConfig]):
    """`level` is Diffuser's; `inverse` judges plans, and tracks them in mazes."""

    diffuser: diffuser.DiffuserParts
    reach: int  # steps ahead of the inverse model


def init(key: Array, data: SegmentRows, *, parts: AdaptParts) -> AdaptDiffuserState:
    """The state before training, with real segments that begin evenly spaced in the dataset."""
    keys, count = named_keys(key, "planner", "inverse"), parts.config.reference
    starts, last = jnp.asarray(data.starts), jnp.asarray(data.last)
    drawn = jnp.arange(count) * starts.shape[0] // count
    at = jnp.minimum(starts[drawn][:, None] + jnp.arange(parts.level.rows)[None], last[drawn][:, None])
    return AdaptDiffuserState(
        diffuser.init(keys["planner"], data, parts=parts.diffuser),
        begin_inverse(keys["inverse"], parts.inverse, parts.spec),
        jnp.asarray(data.observation)[at],
        jnp.asarray(data.action)[at],
    )


def update(
    key: Array, state: AdaptDiffuserState, batch: Segments, *, parts: AdaptParts
) -> tuple[AdaptDiffuserState, Metrics]:
    """One step of Diffuser and of the inverse model."""
    keys = named_keys(key, "planner", "pair", "inverse")
    planner, metrics = diffuser.update(keys["planner"], state.planner, batch, parts=parts.diffuser)
    pair, key = keys["pair"], keys["inverse"]
    learned, more = learn_near(pair, key, parts.inverse, state.inverse, batch, planner.scale, parts.reach)
    return state._replace(planner=planner, inverse=learned), {**metrics, **more}


def plan(
    key: Array, state: AdaptDiffuserState, memory: Previous, context: Context, *, parts: AdaptParts
) -> Planned:
    """Diffuser's plan."""
    return diffuser.plan(key, state.planner, memory, context, parts=parts.diffuser)


def judge(
    key: Array, state: AdaptDiffuserState, observation: Array, action: Array, goal: Array, parts: AdaptParts
) -> tuple[Measures, Array]:
    """Of segments `[B, L, ...]`, and the actions `[B, L - 1, A]` of the inverse model; goals are `[B, G]`."""
    scale, critic, (batch, length, o) = state.scale, parts.level.critic, observation.shape
    s, a, value = scale.observation(observation), scale.action(action), None
    assert parts.inverse is not None
    here, there = (x.reshape(-1, o) for x in (s[:, :-1], s[:, 1:]))
    found = parts.inverse.act(key, state.inverse, here, there, jnp.ones(here.shape[0], jnp.int32))
    found = found.reshape(batch, length - 1, -1)
    if critic is not None:
        x0, none = jnp.concatenate([s, a], axis=-1), jnp.zeros((batch, 0))
        value = critic.value(state.planner.critic, none)(x0, jnp.zeros(batch))
        value = parts.level.value_of(scale, value)
    return measures(value, s, a, found, goal, scale, parts.spec), scale.action.inverse(found)


def imagine(
    key: Array, state: AdaptDiffuserState, observation: Array, goal: Array, *, parts: AdaptParts
) -> tuple[Segments, Array]:
    """Plans whose actions are those of the inverse model, and which pass (`jdp.types.Imagine`)."""
    keys, level, batch = named_keys(key, "plan", "found", "real"), parts.level, observation.shape[0]
    memory = nothing(jnp.zeros((batch, level.rows, level.channels)))
    guide = level.guide
    past = observe(no_past(observation, history_of(guide)), observation)
    context = context_of(state.scale, past, goal, guide)
    made = plan(keys["plan"], state, memory, context, parts=parts).plan
    found, actual = judge(keys["found"], state, made.observation, made.action, goal, parts)
    real, _ = judge(keys["real"], state, state.observation, state.action, goal[:, :0], parts)
    value, zeros = made.value if found.value is None else found.value, jnp.zeros(made.action.shape[:2])
    segments = Segments(
        made.observation,
        jnp.concatenate([clip_action(actual), made.action[:, -1:]], axis=1),
        zeros,
        zeros,
        jnp.broadcast_to(value[:, None], zeros.shape),
        goal,
        jnp.full(batch, level.rows - 1, jnp.int32),
    )
    return segments, select(found, real, parts.config)


def fit(
    config: AdaptDiffuserConfig, episodes: Episodes, updates: int, given: Collection[str] = ()
) -> AdaptDiffuserConfig:
    """Learning rates fall over the training and all rounds after it: a `jdp.learning.fitting.Fit`.

    Their cosines end at 0: without room for the rounds nothing would be learned in them.
    """
    return falling_rates(config, episodes, config.steps(updates)[1], given)


def _presets(task: Task) -> Mapping[str, Preset]:
    inner = diffuser.settings(task)
    if task.horizon is None:
        cpu = AdaptDiffuserConfig(inner, plans=1_000, rounds=1)
        paper = presets.published(cpu)
        paper = replace(paper, diffuser=replace(paper.diffuser, candidates=64))
        return presets.presets_of(task, cpu, paper, smoke=_smoke(cpu))
    small = replace(presets.SMALL, network=NetworkConfig("residual_unet", 32, 4))
    cpu = AdaptDiffuserConfig(replace(inner, stride=1, model=small), plans=500, reference=128, rounds=1)
    # Plans have a row for every step: fewer of them make a batch.
    updates = 1_000 if task.horizon < 256 else 2_000
    return presets.presets_of(task, cpu, smoke=_smoke(cpu), updates=updates, batch_size=16)


def _smoke(cpu: AdaptDiffuserConfig) -> AdaptDiffuserConfig:
    bars = {"value_quantile": 0.0, "error_quantile": 1.0, "quantile": 1.0}
    return replace(presets.tiny(cpu), plans=16, reference=16, rounds=1, **bars)


@register(
    "planner",
    "adapt_diffuser",
    AdaptDiffuserConfig,
    _presets,
    title="AdaptDiffuser",
    paper="arXiv 2302.01877",
    idea="Diffuser that learns from those of its own plans that pass a test",
    departures="tests are relative to real segments; the inverse model judges the plans' states, where the "
    "paper has a simulator",
    fit=fit,
)
@lru_cache(maxsize=64)
def adapt_diffuser(
    config: AdaptDiffuserConfig, spec: Spec, *, guide: Guide | None = None, trace: bool = False
) -> Method:
    """Diffuser, an inverse model of single steps, and `imagine`, which plans and tests the plans.

    `imagine(key, state, observation [B, O], goal [B, G]) -> (segments [B, horizon, ...], keep [B])`: plans
    from given states (and to given goals), their actions replaced by those of the inverse model between
    planned states (the last row keeps its own). Kept are plans whose planned actions agree best with these,
    whose steps are no longer than real ones, whose actions stay within the box, and which the critic
    values highly (`select`); on tasks with goals those that arrive instead. In the segments `value` is the
    critic's estimate in every row (0 with goals), of which Diffuser learns from the first; `reward` and
    `terminal` are unknown and 0; `distance` is that of the last row.

    A round of fine-tuning is `imagine`, `kept`, `jdp.data.rows_of`, and updates on batches mixed from data
    and kept segments; see `fit` on learning rates.

    Args:
        guide: acts on plans in closed loop and on those that are imagined.
        trace: whether decisions hold the chain out of noise.
    """
    inner = diffuser.parts_of(config.diffuser, spec, guide, trace)
    if spec.goal and not 1 <= config.lookahead < inner.level.rows:
        raise UserError(f"lookahead is {config.lookahead}: choose 1 to {inner.level.rows - 1}")
    reach = config.lookahead if spec.goal else 1
    control = inverse(config.inverse, spec.action_dim, reach, spec.goal)
    parts = AdaptParts(config, spec, inner.level, control, diffuser=inner, reach=reach)
    act = Bound(pursued, (("inverse", control), ("rows", reach), ("stride", 1))) if spec.goal else played
    return method(parts, init, update, plan, act=act)._replace(imagine=parts.bound(imagine))
