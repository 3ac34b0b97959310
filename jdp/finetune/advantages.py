"""Whose merit it was: advantages of two levels, of steps with a history, and of budgets.

A high level decides now and then (a subgoal, a plan, a budget), a low level at every step. All are pure
functions of arrays; advantages of flat policies are `jdp.learning.ppo.advantages`.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jdp.learning.ppo import Advantages, accumulated, advantages
from jdp.learning.relative import group


class Values(NamedTuple):
    """What a critic says along a rollout."""

    here: Array  # [T, ...], of the states that were acted on
    there: Array  # [T, ...], of the states reached, before any reset


class TwoLevels(NamedTuple):
    """Advantages of both levels and what their critics are to learn."""

    high: Advantages  # [T, ...], of decisions of the high level: where it made none 0, and its own value
    low: Advantages  # [T, ...]


def hierarchical(
    reward: Array,
    high: Values,
    low: Values,
    *,
    switch: Array,
    terminal: Array,
    ended: Array,
    discount: float,
    high_trace: float,
    low_trace: float,
) -> TwoLevels:
    """Hierarchical advantage estimation (HiPER, arXiv 2602.16165), in two reverse scans.

    The steps between two decisions of the high level are a segment. Within one the low level's advantages are
    generalised ones, and at its end stands the high level's value: what comes after it is the merit of the
    next decision, and no noise of later segments reaches it. For the high level a segment is one step of a
    semi-Markov process, of reward `sum_i discount^i r_i` and duration `d`:

        A_k = R_k + discount^d V(b_{k+1}) - V(b_k) + discount^d trace A_{k+1}

    With a decision at every step the high level's are the generalised advantages of its values. With one
    segment an episode and a trace of 1 they are the return less the value, and the low level's are
    generalised advantages. With exact values the low level's of trace 1 are those of a flat policy, averaged
    over what comes after the segment: so their variance is never larger.

    Args:
        reward: `[T, ...]`.
        high: of states in which a decision is due.
        low: of states under the decision that holds.
        switch: `[T + 1, ...]` bool, where the high level decided, and whether it does in the row that follows
            the rollout. A segment that the rollout cuts is bootstrapped by `low`.
        terminal: `[T, ...]` bool, after which nothing comes.
        ended: `[T, ...]` bool, whether an episode is over after the step; that ends a segment too.
        discount: of a step.
        high_trace: lambda of segments.
        low_trace: lambda of steps within one.
    """
    closes = switch[1:] | ended
    after = jnp.where(closes, high.there, low.there)
    below = advantages(reward, low.here, after, terminal, closes, discount=discount, trace=low_trace)
    cut = ~closes & (jnp.arange(len(reward)) == len(reward) - 1).reshape(-1, *[1] * (reward.ndim - 1))
    following = jnp.concatenate([high.here[1:], jnp.zeros_like(high.here[:1])])  # nothing after the last
    trace = jnp.where(ended, 0.0, high_trace)
    terms = reward + discount * jnp.where((closes | cut) & ~terminal, after, 0.0)
    terms = terms - jnp.where(closes, discount * trace * following, 0.0)
    found = accumulated(terms, jnp.where(closes, discount * trace, discount))
    above = jnp.where(switch[:-1], found - high.here, 0.0)
    return TwoLevels(Advantages(above, above + high.here), below)


def macro_micro(returns: Array) -> tuple[Array, Array]:
    """`([..., G], [..., G, E])`, of G plans each executed E times, of `returns` `[..., G, E]`.

    A plan beside the other plans by its mean return, and an execution beside the others of its plan (HiMAC,
    arXiv 2603.00977). The two are orthogonal: executions of a plan sum to 0. No critic is needed.
    """
    return group(jnp.mean(returns, axis=-1)), group(returns)


def _ranks(first: Array, second: Array) -> Array:
    """`[N]` int32 within [0, N): equal exactly where both `first` and `second` `[N]` are."""
    order = jnp.lexsort((second, first))
    pairs = jnp.stack([first, second])[:, order]
    new = jnp.any(pairs[:, 1:] != pairs[:, :-1], axis=0)
    ranks = jnp.concatenate([jnp.zeros(1, jnp.int32), jnp.cumsum(new.astype(jnp.int32))])
    return jnp.zeros_like(ranks).at[order].set(ranks)


def _within(value: Array, of: Array, floor: float) -> tuple[Array, Array]:
    """`(advantage [N], count [N])` of `value` `[N]` in the groups `of` `[N]`, ranks; 0 of what is alone."""

    def total(x: Array) -> Array:
        return jax.ops.segment_sum(x, of, len(of))[of]

    count = total(jnp.ones_like(value))
    apart = value - total(value) / count
    spread = jnp.sqrt(total(jnp.square(apart)) / count)
    return jnp.where(count > 1, apart / (spread + floor), 0.0), count


def by_history(
    returns: Array,
    state: Array,
    task: Array,
    *,
    depth: int,
    power: float = 1.0,
    floor: float = 1e-6,
    whole: bool = False,
) -> Array:
    """`[T, N]`, advantages of steps in a hierarchy of groups (HGPO, arXiv 2602.22817).

    A step stands beside steps of other episodes (and times) at the same state, at the same last two states,
    and so on to the last `depth`: the more history is shared the less the comparison is biased, and the fewer
    there are to compare with. Groups with more than one member are weighed by `(k + 1)^power` of the `k`
    states they share. Histories are told apart exactly, without hashing; before an episode's first state
    there is nothing, which is shared too.

    Args:
        returns: `[T, N]`, what follows each step, of N episodes from their beginning.
        state: `[T, N]` int32, which state was seen, from 0; others than small integers are made such by
            clusters or a grid.
        task: `[N]` int32: only episodes of one task are compared.
        depth: K, from 0 states on.
        power: of the weights.
        floor: added to standard deviations.
        whole: also compare whole episodes by their first return, with the weight of k = 0: alone, with
            `depth` 0, this is GRPO.
    """
    steps, episodes = returns.shape
    found, weights = jnp.zeros_like(returns), jnp.zeros_like(returns)
    if whole:
        first, count = _within(returns[0], _ranks(task, jnp.zeros_like(task)), floor)
        found, weights = found + first[None], weights + (count > 1)[None].astype(returns.dtype)
    same = jnp.broadcast_to(task[None], (steps, episodes)).reshape(-1)
    for k in range(1, depth + 1):
        before = jnp.concatenate([jnp.full((k - 1, episodes), -1, state.dtype), state])[:steps]
        same = _ranks(same, before.reshape(-1))
        advantage, count = _within(returns.reshape(-1), same, floor)
        weight = (k + 1.0) ** power * (count > 1).astype(returns.dtype).reshape(steps, episodes)
        found, weights = found + weight * advantage.reshape(steps, episodes), weights + weight
    return found / jnp.where(weights > 0, weights, 1.0)


def budget_reward(
    success: Array, used: Array, budget: Array, *, longest: float, scale: float = 1.0, excess: float = 0.0
) -> Array:
    """`[...]`, what a success with `used` of a `budget` is worth (HBPO, arXiv 2507.15844).

    `scale cos(pi budget / (2 longest))` within the budget, `scale cos(pi used / (2 longest)) - excess (used -
    budget)` beyond it, and 0 without success: of two budgets that suffice the smaller one is worth more.
    """
    within = scale * jnp.cos(jnp.pi * budget / (2 * longest))
    beyond = scale * jnp.cos(jnp.pi * used / (2 * longest)) - excess * (used - budget)
    return jnp.where(used > budget, beyond, within) * success


def by_budget(reward: Array, worth: Array, floor: float = 1e-4) -> Array:
    """`[..., K, n]`, of n samples with each of K budgets: `reward` `[..., K, n]`, `worth` `[..., K]`.

    A budget's mean beside what it is `worth` where it suffices, plus the sample beside the others of its
    budget (HBPO, arXiv 2507.15844): `(mean_i - worth_i) + (r_ij - mean_i) / (std_i + floor)`.
    """
    return (jnp.mean(reward, axis=-1) - worth)[..., None] + group(reward, floor)


def with_step_rewards(returns: Array, step_reward: Array) -> Array:
    """`[T, ..., G]`: the group's advantage of `returns` `[..., G]` at every step, plus each step's own
    `step_reward` `[T, ..., G]` (HRPO of MasHost, arXiv 2506.08507)."""
    return group(returns)[None] + step_reward
