"""DiTree in mazes that it has not seen: edges of a diffusion beside edges at random and others, in one tree.

    python benchmarks/tree.py --mazes 60 --seeds 3

Prints JSON. Trees grow in mazes of another size than those of training, and in squares with blocks here and
there. `expansions` counts edges that were tried, those that collided too, and the whole budget where there
is no path. Of the classical tree several kinds of random edges were tried on mazes of their own, and the
best one is shown, at the same budget and at ten times that. `alone` is the policy without a tree, `straight`
a tree whose edges go straight to their place and see no wall. Every path is replayed by the task, whose
contacts are MuJoCo's, and looked at `FINE` times a step: `touching` counts paths that come to a wall.
"""

import argparse
import json
import sys
import time
from dataclasses import asdict, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from common import machine, rounded

from jdp.evaluation.statistics import interval, success_interval
from jdp.loops.fit import fit
from jdp.planners import ditree, edges, tree
from jdp.planners.ditree import EdgeConfig
from jdp.planners.edges import Problem, Proposer, TreeConfig
from jdp.planners.tree import Path, Search
from jdp.tasks import held_ball, random_mazes
from jdp.tasks.held_ball import HOLD
from jdp.tasks.maze2d_ball import RADIUS
from jdp.tasks.mazes import Maze
from jdp.tasks.simulators.point_maze import Grid, Walls, ball_step
from jdp.types import Bound

FINE = 10  # places within a step of .01 s
LONGEST = 1000  # held actions, 40 s
ROOMS = 4  # on a side of the mazes that are learned from: 9 cells
PLAN = jax.jit(tree.plan, static_argnames=("system", "config", "longest"))
RANDOM = {  # kinds of random edges: config and how many held actions are alike
    "one action of .32 s": (TreeConfig(piece=8, durations=(1,)), 8),
    "one action of .16 s": (TreeConfig(piece=4, durations=(1,)), 4),
    "up to four of .16 s": (TreeConfig(piece=4, durations=(4,), collision="cut"), 4),
}


def trained(seed: int, config: EdgeConfig, mazes: int) -> tuple[Proposer, float]:
    """A proposer and the processor seconds that it took, from its mazes and walks on."""
    began, key = time.process_time(), jax.random.key(seed)
    rng = np.random.default_rng(seed)
    grids = random_mazes.grids_of([random_mazes.corridors(rng, ROOMS, ROOMS) for _ in range(mazes)])
    cells, steps = (jnp.asarray(x) for x in random_mazes.ways(np.asarray(grids.blocked)))
    walk = jax.jit(held_ball.walks, static_argnames=("walkers", "length"))
    walks = walk(jax.random.fold_in(key, 0), grids, cells, steps, walkers=8, length=400)
    data = ditree.pieces(walks, grids, config.horizon)
    update, draw = (Bound(f, (("config", config),)) for f in (ditree.update, ditree.draw))
    state = ditree.first_state(jax.random.fold_in(key, 1), data, config)
    state = fit(
        update, draw, state, data, key=jax.random.fold_in(key, 2), stop=config.steps, chunk=config.steps,
        after=lambda *found: print(found[2], file=sys.stderr, flush=True),
    )  # fmt: skip
    return ditree.proposer(jax.block_until_ready(state), config), time.process_time() - began


@jax.jit
def replayed(grid: Grid, start: jax.Array, action: jax.Array) -> jax.Array:
    """`[B, M HOLD, 2]`, where the balls are after every step of PointMaze, whose contacts are in it."""

    def step(grid: Grid, state: jax.Array, action: jax.Array) -> tuple[jax.Array, jax.Array]:
        state = jnp.concatenate(ball_step(state[:2], state[2:], action, grid=grid, walls=Walls()))
        return state, state[:2]

    def one(grid: Grid, start: jax.Array, action: jax.Array) -> jax.Array:
        steps = jnp.repeat(action, HOLD, axis=0)
        return jax.lax.scan(lambda state, a: step(grid, state, a), start, steps)[1]

    return jax.vmap(one)(grid, start, action)


def touching(problem: Problem, mazes: list[Maze], path: Path) -> int:
    """Paths that come to a wall when the task replays them, or end elsewhere than they say."""
    count, there = 0, np.asarray(replayed(problem.world, problem.start, path.action))
    for i in np.flatnonzero(path.found):
        told, maze = np.asarray(path.state[i, : path.length[i] + 1, :2]), mazes[i]
        way = np.concatenate([told[:1], there[i, : (len(told) - 1) * HOLD]])
        parts = np.linspace(0, 1, FINE)[:, None] * np.diff(way, axis=0)[:, None]
        fine = (way[:-1, None] + parts).reshape(-1, 2)
        walls = maze.cell_to_xy(np.argwhere(~maze.free))
        gap = np.maximum(np.abs(fine[:, None] - walls[None]) - maze.scale / 2, 0)
        count += (np.linalg.norm(gap, axis=-1) < RADIUS).any() or np.abs(way[::HOLD] - told).max() > 1e-3
    return int(count)


def told(found: list[Search], spent: list[float], budget: int, touched: int) -> dict[str, Any]:
    """Means over seeds and mazes with their intervals: of successes over all, of expansions over mazes."""
    success = np.array([np.asarray(f.path.found) for f in found])
    tried = np.where(success, np.array([np.asarray(f.expansions) for f in found]), budget)

    return {
        "budget": budget,
        "success": rounded(success_interval(success), 1),
        "success_each": [round(100 * float(s.mean()), 1) for s in success],
        "expansions": rounded(interval(tried.mean(0)), 1),
        "expansions_median": float(np.median(tried)),
        "milliseconds_a_problem": round(1e3 * float(np.median(spent)) / success.shape[1], 1),
        "touching": touched,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mazes", type=int, default=60, help="of each kind, to plan in")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--budget", type=int, default=200, help="expansions")
    parser.add_argument("--updates", type=int, default=EdgeConfig.steps)
    parser.add_argument("--learn-from", type=int, default=96, help="mazes")
    args = parser.parse_args()
    config, grow = EdgeConfig(steps=args.updates), TreeConfig(expansions=args.budget)
    rng = np.random.default_rng(10_000)
    kinds = {
        "mazes": [random_mazes.corridors(rng, 5, 6) for _ in range(args.mazes)],
        "blocks": [random_mazes.scattered(rng, 9, 0.3) for _ in range(args.mazes)],
    }
    tuning = [random_mazes.corridors(rng, 5, 6) for _ in range(args.mazes)]

    def problems(mazes: list[Maze]) -> Problem:
        at = random_mazes.places(rng, mazes, 8)
        return Problem(random_mazes.grids_of(mazes), jnp.asarray(at.start), jnp.asarray(at.goal))

    def compiled(problem: Problem, proposer: Proposer, grow: TreeConfig) -> Any:
        """So that compiling is in no time that is told."""
        settings = {"system": ditree.system(), "config": grow, "longest": LONGEST}
        return PLAN.lower(jax.random.key(0), problem, proposer, **settings).compile()

    asked, tune = {name: problems(mazes) for name, mazes in kinds.items()}, problems(tuning)
    tuned = {}
    for name, (kind, hold) in RANDOM.items():
        proposer, kind = edges.uniform(2, kind.piece, hold), replace(kind, expansions=5 * args.budget)
        found = compiled(tune, proposer, kind)(jax.random.key(0), tune, proposer)
        tuned[name] = round(float(found.path.found.mean()), 3), float(jnp.mean(found.expansions))
    kind, hold = RANDOM[max(tuned, key=lambda name: (tuned[name][0], -tuned[name][1]))]
    at_random = edges.uniform(2, kind.piece, hold)
    learned = [trained(seed, config, args.learn_from) for seed in range(args.seeds)]
    straight = edges.led(held_ball.towards, ditree.system(), grow.piece)
    alone = replace(grow, expansions=1, durations=(LONGEST // grow.piece // 2,), goal_rate=1.0, goal_bias=1.0)
    rows = {
        "diffusion": ([p for p, _ in learned], grow),
        "alone": ([p for p, _ in learned], alone),
        "straight": ([straight] * args.seeds, grow),
        "random": ([at_random] * args.seeds, replace(kind, expansions=args.budget)),
        "random, ten times": ([at_random] * args.seeds, replace(kind, expansions=10 * args.budget)),
    }
    lines = []
    for name, (proposers, how) in rows.items():
        program = compiled(tune, proposers[0], how)  # all worlds have one size
        for world, problem in asked.items():
            found, spent = [], []
            for seed, proposer in enumerate(proposers):
                began = time.perf_counter()
                found.append(jax.block_until_ready(program(jax.random.key(seed), problem, proposer)))
                spent.append(time.perf_counter() - began)
            touched = sum(touching(problem, kinds[world], f.path) for f in found)
            lines.append({"worlds": world, "edges": name, **told(found, spent, how.expansions, touched)})
            print(json.dumps(lines[-1]), file=sys.stderr, flush=True)
    result = {
        "results": lines,
        "random_edges_tried": tuned,
        "training_seconds": [round(cost, 1) for _, cost in learned],
        "settings": {**vars(args), "edge": asdict(config), "tree": asdict(grow)},
        "machine": machine(),
    }
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
