"""Tours of several goals, and paths of several agents, on the graph of a maze's dataset.

    python benchmarks/routes.py --env pointmaze-giant-stitch-v0 --source recipe

Prints JSON. Goals and agents are drawn among the free cells of the maze, their landmarks are the nearest.
`tours`: those of which the way, walked from goal to goal, passes all goals in the order given, within half a
cell of each one's cell centre and never through a wall; `longer` is its cells beside the fewest possible of
any order, by breadth-first search in the maze. `crowds`: those in which all agents arrive, and never two are
at one landmark at one tick or change places (`apart`, looked at here, not by the search).
"""

import argparse
import itertools
import json
import sys

import jax
import jax.numpy as jnp
import numpy as np

import jdp
from jdp.data.segments import segment_rows
from jdp.planners.crowd import Crowd, paths_apart
from jdp.planners.graph import Graph, build_graph
from jdp.planners.routes import tour, walk
from jdp.tasks.mazes import Maze, maze_of, steps_to

BETWEEN = np.linspace(0, 1, 20)[:, None]  # places on an edge
WALK, TOUR = jax.jit(walk, static_argnums=5), jax.jit(tour)


def graph_of(options: argparse.Namespace) -> tuple[Graph, Maze]:
    """The graph of the dataset, in metres."""
    data = jdp.data.load(options.env, source=options.source)
    maze, rows = maze_of(data.spec), segment_rows(data, 2)
    if maze is None:
        sys.exit(f"{options.env} is of no maze")
    place = jnp.asarray(rows.observation)[:, jnp.array(data.spec.goal)]
    build = jax.jit(build_graph, static_argnums=(3, 4))
    return build(jax.random.key(options.seed), rows, place, options.landmarks, options.reach), maze


def landmarks(graph: Graph, maze: Maze, cells: np.ndarray) -> np.ndarray:
    """`[M]`, the landmark nearest to the centre of each of `cells` `[M, 2]`."""
    gap = np.linalg.norm(np.asarray(graph.position)[None] - maze.cell_to_xy(cells)[:, None], axis=-1)
    return gap.argmin(1)


def fewest(maze: Maze, cells: np.ndarray) -> int:
    """Cells of the shortest way from the first cell through all others, of every order."""
    away = {tuple(cell): steps_to(maze, tuple(map(int, cell))) for cell in cells}
    ways = itertools.permutations([tuple(cell) for cell in cells[1:]])
    legs = ([tuple(cells[0]), *way] for way in ways)
    return min(sum(int(away[b][a]) for a, b in itertools.pairwise(leg)) for leg in legs)


def toured(graph: Graph, maze: Maze, cells: np.ndarray) -> tuple[bool, float]:
    """Whether a tour from the first cell passes the others and no wall; its cells beside the fewest."""
    number, points = landmarks(graph, maze, cells), np.asarray(graph.position)
    found = TOUR(graph, jnp.int32(number[0]), jnp.asarray(number[1:]))
    if not np.isfinite(found.cost):
        return False, np.nan
    stops = [number[0], *number[1:][np.asarray(found.order)]]
    node = [stops[0]]
    for a, b in itertools.pairwise(stops):
        node += np.asarray(
            WALK(graph, jnp.int32(a), jnp.int32(b), points[a], points[b], len(points)).node
        ).tolist()
    way = points[node]
    near = np.linalg.norm(way[None] - maze.cell_to_xy(cells[1:])[:, None], axis=-1).min(1) < maze.scale / 2
    free = maze.is_free(way[:-1, None] + BETWEEN * (way[1:] - way[:-1])[:, None]).all()
    length = np.linalg.norm(np.diff(way, axis=0), axis=1).sum() / maze.scale
    return bool(near.all() and free), length / fewest(maze, cells)


def apart(found: Crowd) -> bool:
    """Whether no two agents are at one landmark at one tick, and none change places."""
    node = np.asarray(found.node)
    return all(
        (a != b).all() and not ((a[1:] == b[:-1]) & (a[:-1] == b[1:])).any()
        for a, b in itertools.combinations(node, 2)
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--env", default="pointmaze-giant-stitch-v0")
    parser.add_argument("--source", default="recipe")
    parser.add_argument("--landmarks", type=int, default=256)
    parser.add_argument("--reach", type=int, default=64)
    parser.add_argument("--goals", type=int, default=4, help="of a tour")
    parser.add_argument("--agents", type=int, default=4)
    parser.add_argument("--ticks", type=int, default=128, help="that agents have, of one edge each")
    parser.add_argument("--tries", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    graph, maze = graph_of(options)
    rng, cells = np.random.default_rng(options.seed), maze.free_cells
    drawn = [rng.permutation(cells)[: options.goals + 1] for _ in range(options.tries)]
    tours = [toured(graph, maze, cells) for cells in drawn]
    edge, find = jnp.isfinite(graph.edge), jax.jit(paths_apart, static_argnums=3)
    crowds = []
    for _ in range(options.tries):
        ends = landmarks(graph, maze, rng.permutation(cells)[: 2 * options.agents]).reshape(2, -1)
        crowds.append(find(edge, jnp.asarray(ends[0]), jnp.asarray(ends[1]), options.ticks))
    found = [crowd for crowd in crowds if crowd.found]
    ticks = [float(crowd.arrival.max()) for crowd in found]
    ways = np.array([ratio for done, ratio in tours if done])
    result = {
        "options": vars(options),
        "tours": {
            "tried": len(tours),
            "all_goals_no_wall": len(ways),
            "longer": round(float(ways.mean()), 3),
        },
        "crowds": {
            "tried": len(crowds),
            "all_arrive": len(found),
            "apart": sum(map(apart, found)),
            "ticks": round(float(np.mean(ticks)), 1) if ticks else None,
        },
    }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
