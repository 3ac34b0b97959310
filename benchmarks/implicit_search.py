"""Implicit search (DiffuSearch) on boards that it has not seen, beside one-step cloning and a tree search.

    python benchmarks/implicit_search.py --boards 5000 --horizons 0 3 --seeds 3   # needs the extra `search`

Prints JSON. All boards need three moves or more. A move is right if it is one of the optimal ones. `one_pass`
is the same network asked for the move alone, with nothing imagined before it; horizon 0 is one-step cloning,
the same code. `towards` takes the move that ends nearest to the exit and not on a trap. The tree search
(mctx: Gumbel MuZero's, with a uniform prior and a random game at each leaf) knows the rules, which the models
learn; `simulations` is its budget.
"""

import argparse
import json
import sys
import time
from typing import Any

import jax
import jax.numpy as jnp
import mctx
import numpy as np
from common import machine, seconds
from jax import Array

from jdp.loops.fit import fit
from jdp.planners import implicit_search
from jdp.planners.implicit_search import Layout, Played, SearchConfig
from jdp.tasks import board
from jdp.types import Bound

HELD_OUT = 2000  # boards
DISTANCES = range(3, 12)  # moves to the exit
DISCOUNT, DEPTH, GAME = 0.7, 8, 10  # of the tree search; its depth, and the most moves of a random game


def right(move: Any, solved: board.Solved, game: board.Game) -> np.ndarray:
    """`[N]` bool, which moves `[N]` from the start are optimal; the end of the game is none."""
    move, best = np.asarray(move), board.optimal(solved)[:, game.start]
    return best[np.arange(len(move)), np.minimum(move, board.END - 1)] & (move < board.END)


def by_distance(correct: np.ndarray, solved: board.Solved, game: board.Game) -> dict[str, float]:
    """The share that is right: of all, and at each distance that has 50 boards."""
    distance = solved.distance[:, game.start]
    common = [d for d in np.unique(distance) if (distance == d).sum() >= 50]
    return {"all": float(correct.mean())} | {str(d): float(correct[distance == d].mean()) for d in common}


def draw(key: Array, data: Played, batch: int) -> Played:
    rows = jax.random.randint(key, (batch,), 0, len(data.future))
    return jax.tree.map(lambda leaf: leaf[rows], data)


def trained(
    seed: int, horizon: int, train: board.Solved, held: board.Solved, game: board.Game, args: Any
) -> dict[str, Any]:
    """Accuracies of a model of futures that long."""
    layout, config = Layout(game.spans(horizon)), SearchConfig(learning_rate=args.rate, steps=args.updates)
    start = np.full(len(train.boards), game.start)
    data = Played(
        jnp.asarray(board.shown(train.boards, start)), jnp.asarray(board.futures(train, start, horizon))
    )
    key, began = jax.random.key(seed), time.process_time()
    state = implicit_search.first_state(jax.random.fold_in(key, 0), data.state, layout, config)
    update = Bound(implicit_search.update, (("layout", layout), ("config", config)))
    state = fit(
        update, Bound(draw, (("batch", args.batch),)), state, data,
        key=jax.random.fold_in(key, 1), stop=args.updates, chunk=args.updates,
    )  # fmt: skip
    params, cost = jax.block_until_ready(state.params), time.process_time() - began
    choose, ask = (
        jax.jit(Bound(implicit_search.choose, (("layout", layout), ("config", config), ("steps", steps))))
        for steps in (None, 1)
    )
    shown = jnp.asarray(board.shown(held.boards, start[:1].repeat(len(held.boards))))
    key = jax.random.fold_in(key, 2)
    found = {
        "held_out": by_distance(right(choose(key, params, shown), held, game), held, game),
        "one_pass": by_distance(right(ask(key, params, shown), held, game), held, game),
    }
    some = len(shown)
    seen = board.Solved(*(part[:some] for part in train))
    found["seen"] = {"all": float(right(choose(key, params, data.state[:some]), seen, game).mean())}
    spent = seconds(lambda: choose(key, params, shown)) / len(shown)
    return found | {"training_seconds": cost, "microseconds": 1e6 * spent}


def played(rules: tuple[Array, Array], place: Array, move: Array) -> tuple[Array, Array, Array]:
    """Places `[B]` after moves `[B]`, whether they are the exit, and whether the game is over."""
    kinds, following = rules
    rows = jnp.arange(place.shape[0])
    after = following[rows, place, move]
    return after, kinds[rows, after] == board.EXIT, kinds[rows, after] != board.FREE


def random_game(key: Array, rules: tuple[Array, Array], place: Array) -> Array:
    """`[B]`, the discounted reward of random moves from places `[B]`."""

    def body(carry: tuple[Array, Array, Array], item: tuple[Array, Array]):
        (place, on, value), (key, worth) = carry, item
        place, won, over = played(rules, place, jax.random.randint(key, place.shape, 0, board.END))
        return (place, on & ~over, value + worth * (on & won)), None

    alive = rules[0][jnp.arange(place.shape[0]), place] == board.FREE
    worth = DISCOUNT ** jnp.arange(GAME, dtype=jnp.float32)
    begun = (place, alive, jnp.zeros(place.shape))
    return jax.lax.scan(body, begun, (jax.random.split(key, GAME), worth))[0][2]


def searched(key: Array, rules: tuple[Array, Array], start: Array, simulations: int) -> Array:
    """`[B]`, the moves that a tree search takes for best."""

    def recurrent(rules: tuple[Array, Array], key: Array, move: Array, place: Array):
        after, won, over = played(rules, place, move)
        value = random_game(key, rules, after)
        output = mctx.RecurrentFnOutput(
            reward=won.astype(jnp.float32),
            discount=jnp.where(over, 0.0, DISCOUNT),
            prior_logits=jnp.zeros((*place.shape, board.END)),
            value=value,
        )
        return output, after

    keys = jax.random.split(key)
    root = mctx.RootFnOutput(
        prior_logits=jnp.zeros((*start.shape, board.END)),
        value=random_game(keys[0], rules, start),
        embedding=start,
    )
    return mctx.gumbel_muzero_policy(
        rules, keys[1], root, recurrent, simulations, max_depth=DEPTH, gumbel_scale=0.0
    ).action


def tree_search(held: board.Solved, game: board.Game, simulations: int, seeds: int) -> dict[str, Any]:
    """Accuracy of a tree search with the rules of the held-out boards."""
    rules = (jnp.asarray(held.boards, jnp.int32), jnp.asarray(held.following, jnp.int32))
    search = jax.jit(Bound(searched, (("simulations", simulations),)))
    start = jnp.full(len(held.boards), game.start, jnp.int32)
    moves = [search(jax.random.key(seed), rules, start) for seed in range(seeds)]
    spent = seconds(lambda: search(jax.random.key(0), rules, start)) / len(start)
    found = [{"held_out": by_distance(right(move, held, game), held, game)} for move in moves]
    return summary(found) | {"microseconds": round(1e6 * spent, 1)}


def summary(found: list[dict[str, Any]]) -> dict[str, Any]:
    """Means over the seeds, and what each has on all boards."""
    groups = {
        name: {d: round(float(np.mean([one[name][d] for one in found])), 4) for d in found[0][name]}
        for name in found[0]
        if isinstance(found[0][name], dict)
    }
    numbers = {
        name: round(float(np.median([one[name] for one in found])), 1)
        for name in found[0]
        if not isinstance(found[0][name], dict)
    }
    return groups | numbers | {"each": [round(one["held_out"]["all"], 4) for one in found]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--boards", type=int, nargs="*", default=[5000], help="that are learned from")
    parser.add_argument("--horizons", type=int, nargs="+", default=[0, 3], help="future steps")
    parser.add_argument("--simulations", type=int, nargs="*", default=[16, 64], help="of tree searches")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--updates", type=int, default=1500)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--rate", type=float, default=2e-3, help="the learning rate's peak")
    args = parser.parse_args()
    game = board.Game()
    every = board.puzzles(np.random.default_rng(0), game, HELD_OUT + max(args.boards, default=0), DISTANCES)
    held, rest = (
        board.Solved(*(p[part] for p in every)) for part in (slice(HELD_OUT), slice(HELD_OUT, None))
    )
    best, simple = board.optimal(held)[:, game.start], board.towards(held)[:, game.start]
    lines: list[dict[str, Any]] = [
        {"method": "chance", "held_out": round(float(best.mean()), 4)},
        {"method": "towards", "held_out": round(float(((best & simple).sum(1) / simple.sum(1)).mean()), 4)},
    ]
    for simulations in args.simulations:
        found = tree_search(held, game, simulations, args.seeds)
        lines.append({"method": "tree search", "simulations": simulations, **found})
    for count in args.boards:
        train = board.Solved(*(part[:count] for part in rest))
        for horizon in args.horizons:
            found = [trained(seed, horizon, train, held, game, args) for seed in range(args.seeds)]
            lines.append({"method": "implicit search", "boards": count, "horizon": horizon, **summary(found)})
            print(json.dumps(lines[-1]), file=sys.stderr, flush=True)
    print(json.dumps({"results": lines, "settings": vars(args), "machine": machine()}, indent=1))


if __name__ == "__main__":
    main()
