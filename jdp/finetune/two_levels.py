"""Hierarchical Diffuser, improved online: subgoals by the high level, what lies between by the low one.

Both levels denoise, so both are decision processes in DPPO's picture (arXiv 2409.00588), and each has the
merit that hierarchical advantages (HiPER, arXiv 2602.16165) give it. A file of two levels is a longer one.
"""

from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array

from jdp.data.draws import NoDraw
from jdp.errors import UserError, check_choices, check_settings
from jdp.finetune import chain
from jdp.finetune.actor_critic import FineTuneConfig, Improved
from jdp.finetune.advantages import TwoLevels, Values, hierarchical
from jdp.finetune.chain import ChainConfig, Moves
from jdp.learning.acting import OnPolicyConfig
from jdp.learning.optimiser import begin, copied
from jdp.learning.ppo import advantages, clipped_surrogate, epochs, flat, normalised
from jdp.learning.running import no_moments, seen
from jdp.learning.scale import clip_action
from jdp.learning.turns import in_turns
from jdp.planners import Level, plan_schedule
from jdp.planners.hierarchical import HierarchicalConfig, HierarchicalState, levels_of
from jdp.types import (
    Bound,
    Decision,
    Learner,
    Method,
    Metrics,
    Params,
    Plan,
    Policy,
    Rollout,
    Spec,
    named_keys,
    where_rows,
)


@dataclass(frozen=True)
class TwoLevelConfig(FineTuneConfig):
    """Settings of both levels; a step of the loop is a segment between two subgoals."""

    acting: OnPolicyConfig = field(default_factory=lambda: OnPolicyConfig(environments=64, steps=20))
    """A rollout; steps are segments."""
    hold: int = 2
    """Segments that are executed of one drawing of subgoals."""
    credit: Literal["hierarchical", "flat"] = "hierarchical"
    """Whose advantages: each level's own, or those of segments for both."""
    high_trace: float = 0.95
    """Lambda of the high level's advantages; `trace` is the low level's, and that of flat ones."""
    turns: int = 0
    """Updates after which the other level learns (HiMAC); 0: both always do."""
    chain: ChainConfig = field(default_factory=lambda: ChainConfig(levels=5, learned=3))
    """Of either level."""
    clip: float = 0.1
    """How far the ratio of a denoising step may go from 1."""
    denoising_discount: float = 0.99
    """Of the advantage, for each denoising step that still follows."""
    epochs: int = 5
    """Passes over a rollout."""
    minibatches: int = 4
    """Of an epoch."""
    learning_rate: float = 3e-4
    """Of either denoiser's Adam, constant."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choices(self)
        check_settings("TwoLevelConfig", hold=(self.hold, 1, 10_000), turns=(self.turns, 0, 1 << 20))

    def optimiser(self) -> optax.GradientTransformation:
        """Adam for each level, in turns where that is asked for, and for the critics."""
        rates = {"high": self.learning_rate, "low": self.learning_rate, "critic": self.critic_learning_rate}
        every = self.turns * self.epochs * self.minibatches
        both = in_turns({name: optax.adam(rate) for name, rate in rates.items()}, every, ("critic",))
        return optax.chain(optax.clip_by_global_norm(self.grad_norm), both)


class Holding(NamedTuple):
    """What the policy remembers of B environments: the subgoals that it follows."""

    subgoals: Array  # [B, R, O], standardised, the present of when they were drawn first
    done: Array  # [B] int32, segments that were begun of them


class Queue(NamedTuple):
    """The same where single actions are executed."""

    holding: Holding
    action: Array  # [B, jump, A], of the segment
    left: Array  # [B] int32, of them


class Rows(NamedTuple):
    """A denoising step of either level as minibatches see them, `[B, ...]`."""

    high: Moves
    low: Moves
    log_prob: Array  # [B, 2], of high and low
    advantage: Array  # [B, 2]
    decided: Array  # [B] bool, whether the high level did
    seen: Array  # [B, O + G], as the critics are shown it
    target: Array  # [B, 2], standardised


@dataclass(frozen=True)
class Both:
    """What the functions of this file are bound to; hashable."""

    config: TwoLevelConfig
    spec: Spec
    base: HierarchicalConfig

    @property
    def levels(self) -> dict[str, Level]:
        """Of the planner, without guides."""
        high, low = levels_of(self.base, self.spec, None, False)
        return {"high": high, "low": low}

    def sigmas(self, level: Level) -> Array:
        """`[levels + 1]`, those of the level's own drawing, in as many steps as the chain has."""
        own = replace(level.sampling, steps=self.config.chain.levels, warm_steps=0)
        return plan_schedule(own, level.model.formulation)

    def known(self, level: Level, shown: Array) -> tuple[Array, Array]:
        """What a plan is given, of `shown` `[B, O + G]`: the present, and the end, both standardised."""
        dim = self.spec.observation_dim
        return level.known(shown[:, :dim], shown[:, dim:])

    def denoiser(self, params: Params, level: Level, shown: Array):
        """Of plans that hold what is given."""
        return level.held(params, self.known(level, shown))


def check_base(base: object, spec: Spec, hold: int) -> HierarchicalConfig:
    """The settings of a base planner.

    Raises:
        UserError: if it is none whose levels can be fine-tuned.
    """
    if type(base) is not HierarchicalConfig:
        raise UserError(f"only the planner hierarchical has two levels to improve, not {type(base).__name__}")
    if not spec.goal:
        raise UserError("tasks without goals: two levels are improved on tasks whose plans end at a goal")
    if hold > (most := base.horizon // base.jump - 1):
        raise UserError(f"hold is {hold}, but a plan has {most} segments: choose at most {most}")
    return base


def log_prob(params: Params, name: str, rows: Moves, both: Both) -> Array:
    """`[B]`, mean log density of the entries of these moves that are not given."""
    level = both.levels[name]
    own = both.denoiser(params, level, rows.shown)
    found = chain.step_by(own, rows, both.sigmas(level), both.config.chain)
    mask = ~level.mask()[None]
    return found.log_prob(rows.following, event_axes=(-2, -1), mask=mask) / jnp.sum(mask).astype(jnp.float32)


def _init(key: Array, data: HierarchicalState, *, both: Both) -> Improved:
    """`data` is the state of the planner, whose averaged weights are improved."""
    dim, net, keys = both.spec.observation_dim, both.config.critic(), named_keys(key, "high", "low")
    shown = jnp.zeros(dim + len(both.spec.goal))
    critics = {
        "high": net.init(keys["high"], shown),
        "low": net.init(keys["low"], jnp.concatenate([shown, jnp.zeros(dim)])),
    }
    params = {"high": copied(data.high.ema), "low": copied(data.low.ema), "critic": critics}
    return Improved(begin(both.config.optimiser(), params), copied(data), no_moments(2))


def _segment(
    key: Array, state: Improved, carry: Holding, observation: Array, goal: Array, *, both: Both, floor: float
) -> tuple[Holding, Decision]:
    """The next segment, after new subgoals where they are due."""
    keys, spec, levels = named_keys(key, "high", "low"), both.spec, both.levels
    config = replace(both.config.chain, std_floor=floor)
    here, aim = state.base.scale.observation(observation), state.base.scale.goal(goal, spec)

    def drawn(name: str, shown: Array) -> tuple[Array, Array]:
        level, own = levels[name], (getattr(state.base, name).ema, state.trained.params[name])
        frozen, learned = (both.denoiser(weights, level, shown) for weights in own)
        shape = (len(shown), level.rows, level.channels)
        found = chain.drawn(keys[name], frozen, learned, shape, both.sigmas(level), config)
        known, mask = both.known(level, shown)
        return found, jnp.where(mask, known, found[-1])

    due = carry.done >= both.config.hold
    shape = (config.learned + 1, len(here), levels["high"].rows, spec.observation_dim)

    def anew() -> tuple[Array, Array]:
        return drawn("high", jnp.concatenate([here, aim], axis=-1))

    chains, plans = jax.lax.cond(jnp.any(due), anew, lambda: (jnp.zeros(shape), jnp.zeros(shape[1:])))
    carry = where_rows(due, Holding(plans, jnp.zeros_like(carry.done)), carry)
    target = carry.subgoals[jnp.arange(len(here)), carry.done + 1]
    below, segment = drawn("low", jnp.concatenate([here, target], axis=-1))
    action = clip_action(state.base.scale.action.inverse(segment[:, :-1, spec.observation_dim :]))
    aimed = state.base.scale.observation.inverse(target)[:, None]
    none = jnp.zeros((len(here), 0, 1))
    plan = Plan(none, none, jnp.zeros(len(here)), aimed)
    flat_chains = [x.reshape(*x.shape[:2], -1) for x in (chains, below)]
    decision = Decision(action.reshape(len(here), -1), due, plan, chain=jnp.concatenate(flat_chains, axis=-1))
    return carry._replace(done=carry.done + 1), decision


def _holding(observation: Array, *, both: Both) -> Holding:
    shape = (len(observation), both.base.horizon // both.base.jump, observation.shape[1])
    return Holding(jnp.zeros(shape), jnp.full(len(observation), both.config.hold, jnp.int32))  # due at once


def _queue(observation: Array, *, both: Both) -> Queue:
    action = jnp.zeros((len(observation), both.base.jump, both.spec.action_dim))
    return Queue(_holding(observation, both=both), action, jnp.zeros(len(observation), jnp.int32))


def _act(
    key: Array, state: Improved, carry: Queue, observation: Array, goal: Array, *, both: Both
) -> tuple[Queue, Decision]:
    """One action as it is scored: of the same chains, whose last steps have no floor of noise."""
    due = carry.left == 0

    def anew() -> Queue:
        holding, decision = _segment(key, state, carry.holding, observation, goal, both=both, floor=1e-6)
        action = decision.action.reshape(carry.action.shape)
        return where_rows(due, Queue(holding, action, jnp.full_like(carry.left, both.base.jump)), carry)

    carry = jax.lax.cond(jnp.any(due), anew, lambda: carry)
    action = carry.action[jnp.arange(len(due)), both.base.jump - carry.left]
    return carry._replace(left=carry.left - 1), Decision(action, due)


def _values(state: Improved, seen: Array, below: Array, both: Both) -> Array:
    """`[..., 2]`, what the critics say of `seen` `[..., O + G]`, and under the subgoals of `below`."""
    net, critics = both.config.critic(), state.trained.params["critic"]
    found = [net.apply(critics[name], x) for name, x in (("high", seen), ("low", below))]
    return state.targets.affine().inverse(jnp.concatenate(found, axis=-1))


def _judged(state: Improved, rollout: Rollout, both: Both) -> tuple[TwoLevels, Array, Array]:
    """Advantages `[T, N]`; what the critics are shown of the states `[T, N, ...]`, and with subgoals."""
    config, scale, spec = both.config, state.base.scale, both.spec
    assert rollout.decision.plan is not None
    subgoal = scale.observation(rollout.decision.plan.subgoal[:, :, 0])

    def shown(observation: Array) -> Array:
        return jnp.concatenate([scale.observation(observation), scale.goal(rollout.goal, spec)], axis=-1)

    here, there = shown(rollout.observation), shown(rollout.next_observation)
    below = jnp.concatenate([here, subgoal], axis=-1)
    now = _values(state, here, below, both)
    after = _values(state, there, jnp.concatenate([there, subgoal], axis=-1), both)
    ends = {"terminal": rollout.terminal, "ended": rollout.ended}
    discount = config.discount**both.base.jump
    if config.credit == "flat":
        rows = rollout.reward, now[..., 0], after[..., 0]
        found = advantages(*rows, **ends, discount=discount, trace=config.trace)
        return TwoLevels(found, found), here, below
    # Within a segment of the high level the next subgoal is that of the next row; where the rollout ends, as
    # if subgoals were drawn anew there.
    following = jnp.concatenate([now[1:, :, 1], after[-1:, :, 0]])
    decided = rollout.decision.decided
    found = hierarchical(
        rollout.reward,
        Values(now[..., 0], after[..., 0]),
        Values(now[..., 1], following),
        switch=jnp.concatenate([decided, jnp.ones_like(decided[:1])]),
        **ends,
        discount=discount,
        high_trace=config.high_trace,
        low_trace=config.trace,
    )
    return found, here, below


def _among(advantage: Array, where: Array) -> Array:
    """Standardised among the rows `where`, 0 elsewhere."""
    share = jnp.mean(where.astype(jnp.float32)) + 1e-8
    mean = jnp.mean(jnp.where(where, advantage, 0.0)) / share
    apart = jnp.where(where, advantage - mean, 0.0)
    return apart / (jnp.sqrt(jnp.mean(jnp.square(apart)) / share) + 1e-8)


def _loss(params: Params, rows: Rows, *, both: Both) -> tuple[Array, Metrics]:
    config, total, metrics = both.config, jnp.zeros(()), {}
    for i, (name, moves) in enumerate({"high": rows.high, "low": rows.low}.items()):
        own = log_prob(params[name], name, moves, both)
        if name == "high":  # where it decided nothing there is nothing to learn
            own = jnp.where(rows.decided, own, rows.log_prob[:, i])
        left = (config.chain.learned - 1 - moves.step).astype(jnp.float32)
        merit = rows.advantage[:, i] * config.denoising_discount**left
        loss, more = clipped_surrogate(own, rows.log_prob[:, i], merit, config.clip)
        total, metrics = total + loss, {**metrics, **{f"{name}_{k}": x for k, x in more.items()}}
    net, subgoal = config.critic(), rows.low.shown[:, both.spec.observation_dim :]
    below = jnp.concatenate([rows.seen, subgoal], axis=-1)
    said = [net.apply(params["critic"][k], x) for k, x in (("high", rows.seen), ("low", below))]
    value_loss = jnp.mean(jnp.square(jnp.concatenate(said, axis=-1) - rows.target))
    kl = jnp.maximum(metrics["high_approximate_kl"], metrics["low_approximate_kl"])
    total = total + config.value_weight * value_loss
    return total, {"loss": total, "value_loss": value_loss, "approximate_kl": kl, **metrics}


def _rows(state: Improved, rollout: Rollout, both: Both) -> tuple[Rows, Improved]:
    """Every denoising step of every decision, `[K T N]`; the state, whose moments have seen the targets."""
    found, here, below = _judged(state, rollout, both)
    assert rollout.decision.chain is not None
    steps, dim = both.config.chain.learned, both.spec.observation_dim
    decided, alike = rollout.decision.decided, rollout.decision.decided | True
    together = both.config.credit == "flat"
    merit = normalised(found.high.advantage) if together else _among(found.high.advantage, decided)
    merit = jnp.stack([jnp.where(decided, merit, 0.0), _among(found.low.advantage, alike)], axis=-1)
    targets = jnp.stack([found.high.target, found.low.target], axis=-1)
    state = state._replace(targets=seen(state.targets, targets))
    drawn = jnp.moveaxis(rollout.decision.chain, 1, 0)  # [T, K + 1, N, D] to [K + 1, T, N, D]
    drawn = drawn.reshape(steps + 1, -1, drawn.shape[-1])
    width = both.levels["high"].rows * dim
    shown = {
        "high": flat(here),
        "low": jnp.concatenate([flat(here)[:, :dim], flat(below)[:, -dim:]], axis=-1),
    }
    parts = {"high": drawn[..., :width], "low": drawn[..., width:]}
    moves = {}
    for name, level in both.levels.items():
        whole = parts[name].reshape(*parts[name].shape[:2], level.rows, level.channels)
        moves[name] = flat(chain.moves(whole, shown[name]))
    old = [log_prob(state.trained.params[name], name, moves[name], both) for name in moves]
    rest = flat((merit, decided, here, state.targets.affine()(targets)))
    each = flat(tuple(jnp.broadcast_to(x[None], (steps, *x.shape)) for x in rest))
    return Rows(moves["high"], moves["low"], jnp.stack(old, axis=-1), *each), state


def _update(key: Array, state: Improved, rollout: Rollout, *, both: Both) -> tuple[Improved, Metrics]:
    rows, state = _rows(state, rollout, both)
    trained, metrics = epochs(key, state.trained, rows, partial(_loss, both=both), both.config)
    return state._replace(trained=trained), metrics


@lru_cache
def two_levels(config: TwoLevelConfig, spec: Spec, *, base: HierarchicalConfig) -> Method:
    """PPO on both levels of a planner of settings `base`; `spec` is the task's, of single actions.

    Its `behaviour` decides segments `[B, jump * A]`, for `jdp.tasks.simulators.chunked`; every `hold` of them
    subgoals are drawn anew, and each segment is drawn from where the last one has led. `policy` acts step by
    step. `init` sees the state of the planner, whose inverse model and critics play no part.
    """
    both = Both(config, spec, check_base(base, spec, config.hold))
    bound = (("both", both),)
    learner = Learner(Bound(_init, bound), Bound(_update, bound), NoDraw())
    explore = Bound(_segment, (*bound, ("floor", config.chain.std_floor)))
    return Method(
        learner,
        Policy(Bound(_queue, bound), Bound(_act, bound)),
        Policy(Bound(_holding, bound), explore),
    )
