"""The denoising chains of both levels of a planner as decisions: how they are drawn, and their densities.

Subgoals are drawn now and then, and each segment towards the next of them from where the last one has led.
"""

from dataclasses import dataclass, replace
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jdp.errors import UserError
from jdp.finetune import chain
from jdp.finetune.actor_critic import Improved
from jdp.finetune.chain import ChainConfig, Moves
from jdp.learning.scale import clip_action
from jdp.planners import Level, plan_schedule
from jdp.planners.hierarchical import HierarchicalConfig, levels_of
from jdp.types import Decision, Denoiser, Params, Plan, Spec, named_keys, where_rows


class Holding(NamedTuple):
    """What the policy remembers of B environments: the subgoals that it follows."""

    subgoals: Array  # [B, R, O], standardised, the present of when they were drawn first
    done: Array  # [B] int32, segments that were begun of them


class Queue(NamedTuple):
    """The same where single actions are executed."""

    holding: Holding
    action: Array  # [B, jump, A], of the segment
    left: Array  # [B] int32, of them


@dataclass(frozen=True)
class Both:
    """What the functions of this file are bound to; hashable."""

    chain: ChainConfig  # of either level
    hold: int  # segments that are executed of one drawing of subgoals
    spec: Spec  # of single actions
    base: HierarchicalConfig

    @property
    def levels(self) -> dict[str, Level]:
        """Of the planner, without guides."""
        high, low = levels_of(self.base, self.spec, None, False)
        return {"high": high, "low": low}

    def sigmas(self, level: Level) -> Array:
        """`[levels + 1]`, those of the level's own drawing, in as many steps as the chain has."""
        own = replace(level.sampling, steps=self.chain.levels, warm_steps=0)
        return plan_schedule(own, level.model.formulation)

    def known(self, level: Level, shown: Array) -> tuple[Array, Array]:
        """What a plan is given, of `shown` `[B, O + G]`: the present, and the end, both standardised."""
        dim = self.spec.observation_dim
        return level.known(shown[:, :dim], shown[:, dim:])

    def executed(self, name: str) -> Array:
        """`[T, O + E]` bool: subgoals that are aimed at before new ones, and actions of a segment."""
        level = self.levels[name]
        row, entry = jnp.arange(level.rows)[:, None], jnp.arange(level.channels)[None]
        if name == "high":
            return (row >= 1) & (row <= self.hold) & ~level.mask()
        return (row < self.base.jump) & (entry >= self.spec.observation_dim)

    def denoiser(self, params: Params, level: Level, shown: Array) -> Denoiser:
        """Of plans that hold what is given."""
        return level.held(params, self.known(level, shown))


def check_base(base: object, spec: Spec, hold: int) -> HierarchicalConfig:
    """The settings of a base planner.

    Raises:
        UserError: if it is none whose levels can be fine-tuned.
    """
    if type(base) is not HierarchicalConfig:
        raise UserError(
            f"only the planner hierarchical has two levels to improve, not what {type(base).__name__} is of: "
            "give a run of plan.py --planner hierarchical"
        )
    if not spec.goal:
        raise UserError("tasks without goals: two levels are improved on tasks whose plans end at a goal")
    if hold > (most := base.horizon // base.jump - 1):
        raise UserError(f"hold is {hold}, but a plan has {most} segments: choose at most {most}")
    return base


def log_prob(params: Params, name: str, rows: Moves, both: Both) -> Array:
    """`[B]`, mean log density of the entries of these moves that are executed: no other one is rewarded."""
    level, mask = both.levels[name], both.executed(name)[None]
    own = both.denoiser(params, level, rows.shown)
    found = chain.step_by(own, rows, both.sigmas(level), both.chain)
    return found.log_prob(rows.following, event_axes=(-2, -1), mask=mask) / jnp.sum(mask).astype(jnp.float32)


def segment(
    key: Array, state: Improved, carry: Holding, observation: Array, goal: Array, *, both: Both, floor: float
) -> tuple[Holding, Decision]:
    """The next segment `[B, jump * A]`, after new subgoals where they are due; the key is consumed.

    Args:
        floor: the least standard deviation of a learned denoising step.
    """
    keys, spec, levels = named_keys(key, "high", "low"), both.spec, both.levels
    config = replace(both.chain, std_floor=floor)
    here, aim = state.base.scale.observation(observation), state.base.scale.goal(goal, spec)

    def drawn(name: str, shown: Array) -> tuple[Array, Array]:
        level, own = levels[name], (getattr(state.base, name).ema, state.trained.params[name])
        frozen, learned = (both.denoiser(weights, level, shown) for weights in own)
        shape = (len(shown), level.rows, level.channels)
        found = chain.drawn(keys[name], frozen, learned, shape, both.sigmas(level), config)
        known, mask = both.known(level, shown)
        return found, jnp.where(mask, known, found[-1])

    due = carry.done >= both.hold
    shape = (config.learned + 1, len(here), levels["high"].rows, spec.observation_dim)

    def anew() -> tuple[Array, Array]:
        return drawn("high", jnp.concatenate([here, aim], axis=-1))

    chains, plans = jax.lax.cond(jnp.any(due), anew, lambda: (jnp.zeros(shape), jnp.zeros(shape[1:])))
    carry = where_rows(due, Holding(plans, jnp.zeros_like(carry.done)), carry)
    target = carry.subgoals[jnp.arange(len(here)), carry.done + 1]
    below, between = drawn("low", jnp.concatenate([here, target], axis=-1))
    action = clip_action(state.base.scale.action.inverse(between[:, :-1, spec.observation_dim :]))
    aimed = state.base.scale.observation.inverse(target)[:, None]
    none = jnp.zeros((len(here), 0, 1))
    plan = Plan(none, none, jnp.zeros(len(here)), aimed)
    flat_chains = [x.reshape(*x.shape[:2], -1) for x in (chains, below)]
    decision = Decision(action.reshape(len(here), -1), due, plan, chain=jnp.concatenate(flat_chains, axis=-1))
    return carry._replace(done=carry.done + 1), decision


def holding(observation: Array, *, both: Both) -> Holding:
    """Before the first segment of B environments."""
    shape = (len(observation), both.base.horizon // both.base.jump, observation.shape[1])
    return Holding(jnp.zeros(shape), jnp.full(len(observation), both.hold, jnp.int32))  # due at once


def queue(observation: Array, *, both: Both) -> Queue:
    """Before the first action of B environments."""
    action = jnp.zeros((len(observation), both.base.jump, both.spec.action_dim))
    return Queue(holding(observation, both=both), action, jnp.zeros(len(observation), jnp.int32))


def act(
    key: Array, state: Improved, carry: Queue, observation: Array, goal: Array, *, both: Both
) -> tuple[Queue, Decision]:
    """One action `[B, A]` as it is scored: of the same chains, whose last steps have no floor of noise."""
    due = carry.left == 0

    def anew() -> Queue:
        held, decision = segment(key, state, carry.holding, observation, goal, both=both, floor=1e-6)
        action = decision.action.reshape(carry.action.shape)
        return where_rows(due, Queue(held, action, jnp.full_like(carry.left, both.base.jump)), carry)

    carry = jax.lax.cond(jnp.any(due), anew, lambda: carry)
    action = carry.action[jnp.arange(len(due)), both.base.jump - carry.left]
    return carry._replace(left=carry.left - 1), Decision(action, due)
