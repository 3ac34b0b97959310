"""Wishes that the data hardly hold, by every way to steer: how well each is kept, and what it costs.

    python benchmarks/steering.py --keep results/steering
    python benchmarks/steering.py --smoke

Prints JSON. Two worlds (`steering_worlds.py`): the U-maze of maze2d, and two agents that swap places, which
were recorded each as if it were alone. Of each three wishes: keep out of a place (apart from each other),
be at A before B, be slow near a person (near each other). Planners are trained on all data, an aligned one
(AlignDiff) too, and for composition one more on the segments that keep the wish. A plan is made once an
episode.

Strengths of guidance and weights of composition are those with most episodes that arrive and keep the wish,
of a training seed and starts that are not reported; of equal ones the least. All ways have the same starts
and goals. `kept` is the share of episodes whose exact robustness is at least 0, `both` of those that arrive
too; intervals are Clopper and Pearson's over the episodes of all seeds. Means have Student's t over the
seeds. `lost` is how much lower the score is than without steering: maze2d's normalised one, or minus the
steps to arrive. Times are of one environment, medians and 95th percentiles over rounds of turns of all ways
of a world, each at the first wish that it can say.
"""

import argparse
import json
import pickle
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from common import machine, rounded
from jax import Array
from steering_worlds import Wish, World, maze, swap

import jdp
from jdp import planners
from jdp.diffusion.guidance.logic import robustness
from jdp.evaluation.statistics import interval, success_interval
from jdp.learning.filters import filtered
from jdp.learning.fitting import over_updates
from jdp.learning.guides import cost_guide, logic_guide
from jdp.learning.rules import keeping
from jdp.planners import composed as compositions
from jdp.types import AnyArray, Guide, Policy, PyTree, Task

SEEDS = 5  # of training, that are reported; one more chooses strengths
STRENGTHS = (1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0)
WEIGHTS = (0.5, 1.0, 1.5, 2.0)  # of the planner that learned from what keeps the wish
STARTS = {"tune": 50_000, "report": 60_000}
WAYS = ("nothing", "cost", "logic", "barrier", "logic, barrier", "aligned", "composition")
UNSAID = {
    "barrier": "it forbids, and leads nobody to A",
    "logic, barrier": "there is no barrier of it",
    "aligned": "no attribute says so",
}


class Rolled(NamedTuple):
    """Episodes of N starts."""

    observation: AnyArray  # [N, T + 1, O]; the last one is repeated
    action: AnyArray  # [N, T, A]
    returns: AnyArray  # [N]
    success: AnyArray  # [N] bool, at any step
    length: AnyArray  # [N], steps to the first success, or all
    changed: AnyArray  # [N], share of steps at which a filter changed the action
    plan: AnyArray  # [N, H, O]


Models = dict[str, tuple[PyTree, float]]  # states [SEEDS + 1, ...], share of the data that was learned from
Player = tuple[Policy, PyTree]  # with states [SEEDS + 1, ...]


@partial(jax.jit, static_argnames=("policy", "task", "steps"))
def rolled(
    policy: Policy, task: Task, key: Array, state: PyTree, seen: Array, goal: Array, *, steps: int
) -> Rolled:
    """`policy` in `task` from observations `[N, O]` to goals `[N, G]`."""
    assert task.state_of is not None
    count, none = len(seen), jnp.zeros(len(seen), bool)
    keys = jax.random.split(key, count)  # nothing is random in these tasks

    def step(now: Any, t: Array) -> tuple[Any, Any]:
        sim, seen, carry, ended, reached = now
        carry, decision = policy.act(jax.random.fold_in(key, t), state, carry, seen, goal)
        action = jnp.clip(decision.action, -1.0, 1.0)
        after, found = jax.vmap(task.step)(keys, sim, action)
        held = jax.tree.map(
            lambda a, b: jnp.where(jnp.expand_dims(ended, tuple(range(1, a.ndim))), b, a), after, sim
        )
        changed = none
        if decision.intended is not None:
            changed = (action != jnp.clip(decision.intended, -1.0, 1.0)).any(-1) & ~ended
        seen = jnp.where(ended[:, None], seen, found.observation)
        told = seen, action, jnp.where(ended, 0.0, found.reward), ~reached, changed
        reached = reached | (found.success & ~ended)
        return (held, seen, carry, ended | found.terminal, reached), told

    begun = (jax.vmap(task.state_of)(seen, goal), seen, policy.init(seen), none, none)
    (_, _, carry, _, reached), told = jax.lax.scan(step, begun, jnp.arange(steps))
    after, action, reward, running, changed = (jnp.swapaxes(x, 0, 1) for x in told)
    observation = jnp.concatenate([seen[:, None], after], 1)
    plan = getattr(carry, "own", carry).plan.observation
    return Rolled(observation, action, reward.sum(1), reached, running.sum(1), changed.mean(1), plan)


exact = jax.jit(robustness)


def learned(world: World, config: Any, updates: int, wish: Wish | None = None) -> tuple[PyTree, float]:
    """States of all seeds `[SEEDS + 1, ...]`, and the share of the data that they learned from."""
    method = planners.make(over_updates(config, updates), world.data.spec)
    rows, share = jdp.data.prepared(method.learner.draws, world.data), 1.0
    if wish is not None:
        every = len(rows.starts)
        rows = keeping(rows, wish.formula, tuple(range(0, config.horizon, world.judged)))
        share = len(rows.starts) / every
        places = ("starts", "last", "first")  # repeated up to their number before: the same program
        rows = rows._replace(**{place: np.resize(getattr(rows, place), every) for place in places})
    key, seeds = jax.random.key(0), SEEDS + 1
    states = jdp.loops.train(method.learner, rows, key=key, updates=updates, batch_size=64, seeds=seeds)
    return jax.tree.map(np.asarray, states), share


def trained(world: World, keep: Path | None, name: str, updates: int, *asked: Any) -> tuple[PyTree, float]:
    """As `learned`, or as it was kept in the folder `keep`."""
    file = None if keep is None else keep / f"{name.replace(' ', '_')}.pkl"
    if file is not None and file.exists():
        return pickle.loads(file.read_bytes())
    began = time.process_time()
    found = learned(world, asked[0], updates, *asked[1:])
    told(f"{name}: {time.process_time() - began:.0f} s of processor time, {found[1]:.3f} of the data")
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(pickle.dumps(found))
    return found


def told(line: str) -> None:
    """On the way."""
    print(line, file=sys.stderr, flush=True)


def models(world: World, name: str, keep: Path | None, updates: int) -> Models:
    """The planner of all data, the aligned one, and of each wish one of the data that keep it."""
    found = {
        "plain": trained(world, keep, f"{name} plain", updates, world.planner),
        "aligned": trained(world, keep, f"{name} aligned", updates, world.aligned),
    }
    for asked, wish in world.wishes.items():
        found[asked] = trained(world, keep, f"{name} {asked}", updates, world.planner, wish)
    return found


def steered(world: World, guide: Guide | None = None) -> Policy:
    """The planner of all data."""
    return planners.make(world.planner, world.data.spec, guide=guide).policy


def guide_of(way: str, world: World, wish: Wish, strength: Any) -> Guide:
    """Both move whole plans, through the denoiser; a strength may be a tuple, one for each episode."""
    if way == "cost":
        return cost_guide(wish.cost, strength, covariance="jacobian")
    return logic_guide(wish.formula, strength, margin=world.margin, stride=world.planner.stride)


def mixed(world: World, found: Models, wish: str, weight: float) -> Player:
    """The planner of all data and that of what keeps the wish, by the weight of the latter."""
    states = [found["plain"][0], found[wish][0]]
    weights = jnp.broadcast_to(jnp.array([1 - weight, weight]), (SEEDS + 1, 2))
    return compositions.composed([steered(world)] * 2), compositions.composed_state(states, weights)


def player(way: str, world: World, wish: str, found: Models, strength: float | None) -> Player | None:
    """Who plays so; None where the way cannot say the wish."""
    asked, plain = world.wishes[wish], found["plain"][0]
    if way == "nothing":
        return steered(world), plain
    if way in ("cost", "logic"):
        return steered(world, guide_of(way, world, asked, strength)), plain
    if way == "composition":
        assert strength is not None
        return mixed(world, found, wish, strength)
    if way == "aligned":
        if asked.aligned is None:
            return None
        config = replace(world.aligned, wish=asked.aligned)
        return planners.make(config, world.data.spec).policy, found["aligned"][0]
    if asked.barrier is None:
        return None
    guide = None if way == "barrier" else guide_of("logic", world, asked, strength)
    return filtered(steered(world, guide), asked.barrier, world.data.spec), plain


def played(who: Player, world: World, seed: int, starts: int, count: int) -> Rolled:
    """A training seed from starts of its own, on the host."""
    state, begun = jax.tree.map(lambda x: x[seed], who[1]), world.begin(starts + seed, count)
    key = jax.random.key(starts + seed)
    return jax.device_get(rolled(who[0], world.task, key, state, *begun, steps=world.steps))


def both(world: World, wish: str, found: Rolled) -> np.ndarray:
    """`[N]` bool, whether an episode arrived and kept the wish."""
    return np.asarray(found.success) & (np.asarray(exact(world.wishes[wish].formula, found.observation)) >= 0)


def chosen(way: str, world: World, wish: str, found: Models, episodes: int) -> tuple[float, dict[str, float]]:
    """The strength, or weight, with most episodes that arrive and keep the wish, and those of all."""
    tune, shares = STARTS["tune"], {}
    if way == "composition":
        for weight in WEIGHTS:
            done = played(mixed(world, found, wish, weight), world, SEEDS, tune, episodes)
            shares[weight] = float(both(world, wish, done).mean())
    else:
        begun = [np.tile(x, (len(STRENGTHS), 1)) for x in world.begin(tune + SEEDS, episodes)]
        each = tuple(x for x in STRENGTHS for _ in range(episodes))
        policy = steered(world, guide_of(way, world, world.wishes[wish], each))
        state = jax.tree.map(lambda x: x[SEEDS], found["plain"][0])
        done = rolled(policy, world.task, jax.random.key(tune), state, *begun, steps=world.steps)
        kept = both(world, wish, jax.device_get(done)).reshape(len(STRENGTHS), episodes)
        shares = dict(zip(STRENGTHS, kept.mean(1).tolist(), strict=True))
    return max(shares, key=lambda x: (shares[x], -x)), {str(x): round(y, 3) for x, y in shares.items()}


def line(world: World, wish: str, done: list[Rolled], plain: list[Rolled]) -> dict[str, Any]:
    """What came of the episodes of all seeds."""
    kept = np.stack([np.asarray(exact(world.wishes[wish].formula, x.observation)) for x in done])
    success = np.stack([x.success for x in done])
    score, before = (
        np.array([world.score(np.asarray(x.returns), np.asarray(x.length)).mean() for x in y])
        for y in (done, plain)
    )
    return {
        "kept": rounded(success_interval(kept >= 0), 1),
        "robustness": rounded(interval(kept.mean(1))),
        "success": rounded(success_interval(success), 1),
        "both": rounded(success_interval(success & (kept >= 0)), 1),
        "score": rounded(interval(score), 2),
        "lost": rounded(interval(before - score), 2),
        "kept_each": [round(100 * float(x.mean()), 1) for x in kept >= 0],
        "changed": round(100 * float(np.mean([x.changed for x in done])), 1),
    }


def times(players: dict[str, Player], world: World, rounds: int) -> dict[str, dict[str, list[float]]]:
    """Milliseconds `[median, 95th percentile]` of a step that plans, and of one that follows."""
    taken = {name: {"plan": [], "follow": []} for name in players}
    begun = world.begin(STARTS["report"], rounds + 1)
    acts = {name: jax.jit(policy.act) for name, (policy, _) in players.items()}
    for i in range(rounds + 1):  # the first one compiles
        seen, goal = (x[i : i + 1] for x in begun)
        for name, (policy, states) in players.items():
            state, carry = jax.tree.map(lambda x: x[0], states), policy.init(jnp.asarray(seen))
            for what in ("plan", "follow"):
                began = time.perf_counter()
                carry, _ = jax.block_until_ready(acts[name](jax.random.key(i), state, carry, seen, goal))
                taken[name][what] += [1e3 * (time.perf_counter() - began)] if i else []
    return {
        name: {what: [round(float(q), 3) for q in np.percentile(x, (50, 95))] for what, x in own.items()}
        for name, own in taken.items()
    }


def results(name: str, world: World, found: Models, args: Any) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """A line for each wish and way, and what pictures are drawn from."""
    lines, shown = [], {}
    for wish in args.wishes or world.wishes:
        plain, strengths = [], {}
        for way in WAYS:
            tried, strength = {}, strengths.get("logic")
            if way in ("cost", "logic", "composition"):
                strength, tried = chosen(way, world, wish, found, args.tuning)
                strengths[way] = strength
            who, head = player(way, world, wish, found, strength), {"world": name, "wish": wish, "way": way}
            if who is None:
                lines.append(head | {"cannot": UNSAID[way]})
                continue
            done = [played(who, world, seed, STARTS["report"], args.episodes) for seed in range(args.seeds)]
            plain = plain or done
            if way in (*strengths, "logic, barrier"):
                head |= {"strength": strength, "tried": tried}
            lines.append(head | line(world, wish, done, plain))
            shown[wish, way] = done[0].observation[:16], done[0].plan[:16]
            told(json.dumps(lines[-1]))
        lines.append({"world": name, "wish": wish, "way": "the data", "kept": round(100 * found[wish][1], 2)})
    return lines, shown


def decisions(name: str, world: World, found: Models, rounds: int) -> list[dict[str, Any]]:
    """Times of every way, at the first wish that it can say; how strong guidance is changes no time."""
    first: dict[str, Player] = {}
    for wish in world.wishes:
        for way in WAYS:
            if way not in first and (who := player(way, world, wish, found, 1.0)) is not None:
                first[way] = who
    taken = times(first, world, rounds)
    lines = [{"world": name, "way": way, "milliseconds": own} for way, own in taken.items()]
    told(json.dumps(lines))
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keep", type=Path, help="a folder where trained planners are kept, and found again")
    parser.add_argument("--episodes", type=int, default=40, help="of each seed")
    parser.add_argument("--seeds", type=int, default=SEEDS, help="that are reported")
    parser.add_argument("--tuning", type=int, default=48, help="episodes of each strength")
    parser.add_argument("--rounds", type=int, default=20, help="of times")
    parser.add_argument("--worlds", nargs="*", default=["maze", "swap"])
    parser.add_argument("--wishes", nargs="*", default=(), help="that are played; all of them")
    parser.add_argument("--parts", nargs="*", default=["play", "times"], help="what is done")
    parser.add_argument("--smoke", action="store_true", help="tiny sizes, for the plumbing")
    parser.add_argument("--shown", type=Path, help="a file for `steering_pictures.py`")
    args = parser.parse_args()
    if args.smoke:
        args.episodes, args.seeds, args.tuning, args.rounds = 4, 2, 2, 2
    made = {"maze": (maze, 200_000, 32), "swap": (swap, 80_000, 24)}
    lines, timed, shown = [], [], {}
    for name in args.worlds:
        make, rows, features = made[name]
        world = make(rows, 8 if args.smoke else features)
        found = models(world, name, args.keep, 4 if args.smoke else world.updates)
        if "play" in args.parts:
            own, shown[name] = results(name, world, found, args)
            lines += own
        if "times" in args.parts:
            timed += decisions(name, world, found, args.rounds)
    if args.shown is not None:
        args.shown.write_bytes(pickle.dumps(shown))
    settings = {name: str(x) if isinstance(x, Path) else x for name, x in vars(args).items()}
    print(
        json.dumps({"results": lines, "times": timed, "settings": settings, "machine": machine()}, indent=1)
    )


if __name__ == "__main__":
    main()
