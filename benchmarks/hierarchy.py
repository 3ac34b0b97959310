"""Two levels that learn together, by the advantages that they learn from; printed as JSON.

    python benchmarks/hierarchy.py [--seeds 10] [--updates 600] [--smoke]

The task is `jdp.tasks.doors`: a row of rooms, in each of which a high level names a door and a low level
walks there. Both are tables, so success is computed and not sampled. Each method learns by plain policy
gradients (Adam) from the same number of episodes an update, few, at the best of three rates, found on other
seeds; the area under its curve is told of every rate.
"""

import argparse
import json
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from common import machine, rounded
from jax import Array

from jdp.evaluation.statistics import difference, interval
from jdp.finetune.advantages import TwoLevels, Values, hierarchical
from jdp.learning.optimiser import Trained, begin, step
from jdp.learning.ppo import Advantages, advantages
from jdp.learning.relative import group
from jdp.learning.turns import in_turns, whose
from jdp.tasks.doors import Doors, Tables, Walk, exact_values, first_logits, play, success
from jdp.types import named_keys

RATES = (0.03, 0.06, 0.1)
TUNING = 5  # seeds that choose the rate, and are not reported
SKILL = 2.0  # of the low level at first
EVERY = 5  # updates of a turn
CRITIC_RATE = 0.3  # of the way to the mean of an entry's targets


class State(NamedTuple):
    """What is learned."""

    trained: Trained  # of {"high", "low"}, logits
    critic: Tables  # values
    plan: Array  # [rooms], of HiMAC the best of the last turn
    count: Array  # updates


class Seen(NamedTuple):
    """Advantages, and where the levels decided."""

    found: TwoLevels
    high: Array  # [T, N] bool
    low: Array  # [T, N] bool


def begun(doors: Doors) -> Tables:
    """The logits before the first update."""
    return first_logits(doors, SKILL)


def tables(trained: Trained) -> Tables:
    return Tables(trained.params["high"], trained.params["low"])


def values(walk: Walk, critic: Tables) -> tuple[Values, Values]:
    """What the critic says of every row to both levels."""
    through = walk.reward > 0
    high = Values(critic.high[walk.room], jnp.where(through, critic.high[walk.room + 1], 0.0))
    at = walk.room, walk.named
    low = Values(critic.low[(*at, walk.step, walk.place)], critic.low[(*at, walk.step + 1, walk.following)])
    return high, low


def two_levels(walk: Walk, critic: Tables, trace: float) -> TwoLevels:
    """Hierarchical advantages; nothing is discounted."""
    return hierarchical(
        walk.reward,
        *values(walk, critic),
        switch=walk.switch,
        terminal=walk.terminal,
        ended=walk.terminal,
        discount=1.0,
        high_trace=trace,
        low_trace=trace,
    )


def flat(walk: Walk, critic: Tables, trace: float) -> TwoLevels:
    """One advantage a step, of both levels where both decided."""
    high, low = values(walk, critic)
    first, closes = walk.switch[:-1], walk.switch[1:]
    found = advantages(
        walk.reward,
        jnp.where(first, high.here, low.here),
        jnp.where(closes, high.there, low.there),
        walk.terminal,
        walk.terminal,
        discount=1.0,
        trace=trace,
    )
    return TwoLevels(found, Advantages(found.advantage, found.target))


def learned(critic: Tables, walk: Walk, found: TwoLevels, shared: bool) -> Tables:
    """Entries move to the means of their targets; `shared`: a flat critic is the high level's at a start."""
    first = walk.alive & walk.switch[:-1]
    own = walk.alive & ~walk.switch[:-1] if shared else walk.alive
    at = walk.room, walk.named, walk.step, walk.place
    return Tables(
        moved(critic.high, (walk.room,), found.high.target, first),
        moved(critic.low, at, found.low.target, own),
    )


def moved(table: Array, at: tuple[Array, ...], target: Array, where: Array) -> Array:
    count = jnp.zeros_like(table).at[at].add(where.astype(table.dtype))
    total = jnp.zeros_like(table).at[at].add(jnp.where(where, target, 0.0))
    return jnp.where(count > 0, table + CRITIC_RATE * (total / jnp.maximum(count, 1) - table), table)


def normal(advantage: Array, where: Array) -> Array:
    """Standardised over the rows `where`; 0 elsewhere."""
    count = jnp.maximum(jnp.sum(where), 1)
    mean = jnp.sum(jnp.where(where, advantage, 0.0)) / count
    apart = jnp.where(where, advantage - mean, 0.0)
    return apart / (jnp.sqrt(jnp.sum(jnp.square(apart)) / count) + 1e-6)


def loss(params: Mapping[str, Array], walk: Walk, high: Array, low: Array) -> Array:
    """Minus the score times the advantages `[T, N]`, which are 0 where a level did not decide."""
    named = jax.nn.log_softmax(params["high"])[walk.room, walk.named]
    gone = jax.nn.log_softmax(params["low"])[walk.named, walk.step, walk.place, walk.move]
    return -jnp.sum(high * named + low * gone) / walk.reward.shape[1]


def descended(state: State, optimiser: optax.GradientTransformation, walk: Walk, *merit: Array) -> Trained:
    gradient = jax.grad(loss)(state.trained.params, walk, *merit)
    return Trained(*step(optimiser, gradient, state.trained.optimiser, state.trained.params))


def with_critic(
    key: Array,
    state: State,
    optimiser: Any,
    doors: Doors,
    episodes: int,
    *,
    judge: Callable[..., TwoLevels],
    shared: bool = False,
) -> tuple[State, Walk]:
    """An update by advantages of a critic."""
    walk = play(key, tables(state.trained), doors, episodes)
    found, first = judge(walk, state.critic), walk.alive & walk.switch[:-1]
    if shared:
        whole = normal(found.low.advantage, walk.alive)
        merit = jnp.where(first, whole, 0.0), whole
    else:
        merit = normal(found.high.advantage, first), normal(found.low.advantage, walk.alive)
    trained = descended(state, optimiser, walk, *merit)
    critic = learned(state.critic, walk, found, shared)
    return State(trained, critic, state.plan, state.count + 1), walk


def himac(key: Array, state: State, optimiser: Any, doors: Doors, episodes: int) -> tuple[State, Walk]:
    """Plans by a greedy executor, then executions of the best plan; groups instead of a critic."""
    keys, logits = named_keys(key, "plan", "walk"), tables(state.trained)
    shape = (doors.rooms, episodes)
    plans = jax.random.categorical(keys["plan"], logits.high[:, None], shape=shape)
    planning = whose(state.count, 2, EVERY) == 0
    named = jnp.where(planning, plans, state.plan[:, None])
    sure = Tables(logits.high, logits.low * jnp.where(planning, 1e3, 1.0))
    walk = play(keys["walk"], sure, doors, episodes, named)
    returns = jnp.sum(jnp.where(walk.alive, walk.reward, 0.0), axis=0)
    merit = jnp.broadcast_to(group(returns)[None], walk.reward.shape)
    high = jnp.where(walk.alive & walk.switch[:-1], merit, 0.0)
    trained = descended(state, optimiser, walk, high, jnp.where(walk.alive, merit, 0.0))
    best = jnp.where(planning, named[:, jnp.argmax(returns)], state.plan)
    return State(trained, state.critic, best, state.count + 1), walk


METHODS: dict[str, tuple[Callable[..., tuple[State, Walk]], bool]] = {
    "HAE, traces .95": (partial(with_critic, judge=partial(two_levels, trace=0.95)), False),
    "HAE, traces 1": (partial(with_critic, judge=partial(two_levels, trace=1.0)), False),
    "HAE, traces .95, in turns": (partial(with_critic, judge=partial(two_levels, trace=0.95)), True),
    "flat GAE, trace .95": (partial(with_critic, judge=partial(flat, trace=0.95), shared=True), False),
    "flat GAE, trace 1": (partial(with_critic, judge=partial(flat, trace=1.0), shared=True), False),
    "HiMAC": (himac, True),
}


def curve(
    key: Array,
    rate: Array,
    update: Callable[..., Any],
    turns: bool,
    doors: Doors,
    episodes: int,
    updates: int,
) -> tuple[Array, Array]:
    """`([updates] steps taken, [updates] success)` of one seed."""
    level = optax.chain(optax.scale_by_adam(), optax.scale(-1.0))
    own = in_turns({"high": level, "low": level}, EVERY) if turns else level
    optimiser = optax.chain(own, optax.scale(rate))
    zeros = jax.tree.map(jnp.zeros_like, exact_values(begun(doors), doors))
    params = begun(doors)._asdict()
    state = State(begin(optimiser, params), zeros, jnp.zeros(doors.rooms, int), jnp.zeros((), int))

    def one(state: State, key: Array) -> tuple[State, tuple[Array, Array]]:
        state, walk = update(key, state, optimiser, doors, episodes)
        return state, (jnp.sum(walk.alive), success(tables(state.trained), doors))

    steps, found = jax.lax.scan(one, state, jax.random.split(key, updates))[1]
    return jnp.cumsum(steps), found


def curves(
    name: str, seeds: int, rates: Array, doors: Doors, episodes: int, updates: int
) -> tuple[np.ndarray, np.ndarray]:
    """`[rates, seeds, updates]`, both halves of `curve`."""
    update, turns = METHODS[name]
    own = partial(curve, update=update, turns=turns, doors=doors, episodes=episodes, updates=updates)
    keys = jax.vmap(jax.random.key)(jnp.arange(seeds))
    steps, found = jax.jit(jax.vmap(jax.vmap(own, (0, None)), (None, 0)))(keys, rates)
    return np.asarray(steps), np.asarray(found)


def at_steps(steps: np.ndarray, found: np.ndarray, marks: np.ndarray) -> np.ndarray:
    """`[rates, seeds, marks]`, success when so many steps had been taken."""
    flat = [
        np.interp(marks, *row)
        for row in zip(steps.reshape(-1, steps.shape[-1]), found.reshape(-1, found.shape[-1]), strict=True)
    ]
    return np.stack(flat).reshape(*steps.shape[:2], len(marks))


def main() -> None:
    parser = argparse.ArgumentParser(description="advantages of two levels, compared")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--updates", type=int, default=600)
    parser.add_argument("--episodes", type=int, default=4, help="of an update")
    parser.add_argument("--smoke", action="store_true", help="tiny sizes, for the plumbing")
    args = parser.parse_args()
    doors = Doors(rooms=2, reach=1) if args.smoke else Doors(rooms=8, reach=2, slip=0.05)
    updates, marks = args.updates, np.array([2_500, 5_000, 10_000, 20_000])
    if args.smoke:
        updates, marks = 5, np.array([5, 10])
    dense, rows, scores = np.linspace(0, marks[-1], 81)[1:], [], {}
    for name in METHODS:
        sizes = doors, args.episodes, updates
        found = curves(name, args.seeds + TUNING, jnp.array(RATES), *sizes)
        area, marked = at_steps(*found, dense).mean(2), at_steps(*found, marks)[:, TUNING:]
        best = int(np.argmax(area[:, :TUNING].mean(1)))
        scores[name] = area[best, TUNING:]
        told = dict(zip(map(str, marks), (rounded(interval(x)) for x in marked[best].T), strict=True))
        each = {str(rate): rounded(interval(x)) for rate, x in zip(RATES, area[:, TUNING:], strict=True)}
        rows.append({"method": name, "rate": RATES[best], "success_at_steps": told, "mean_by_rate": each})
    first = next(iter(METHODS))
    against = {name: rounded(difference(scores[first], scores[name])) for name in list(scores)[1:]}
    task = {"task": str(doors), "success_at_first": float(success(begun(doors), doors))}
    settings = {"settings": vars(args), **task, "machine": machine()}
    print(json.dumps({"results": rows, f"{first}, less": against, **settings}, indent=1))


if __name__ == "__main__":
    main()
