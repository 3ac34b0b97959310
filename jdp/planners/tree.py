"""Kinodynamic trees (RRT, LaValle and Kuffner 2001) whose edges a proposer draws, in JAX, B problems at once.

An expansion takes a random place, goes on from the node that is nearest to it, and rolls out what a proposer
says, piece by piece; an edge that ends without a collision is a new node. So every path is what the dynamics
makes of its actions, and collides with nothing, whatever the proposer is: actions at random (the classical
tree) or a trained diffusion (`jdp.planners.ditree`). Trees are arrays of a fixed size.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jdp.errors import UserError
from jdp.planners.edges import Edge, Problem, Proposer, System, TreeConfig, grown, near
from jdp.types import named_keys

NONE = -1  # no node


class Tree(NamedTuple):
    """B trees of N = expansions + 1 nodes, of which `count` are there; node 0 is the start."""

    state: Array  # [B, N, S]
    parent: Array  # [B, N] int32; NONE at the root, and where there is no node
    action: Array  # [B, N, L, A], of the edge that leads to each node; 0 after its length
    passed: Array  # [B, N, L, S], the state after each of these
    length: Array  # [B, N] int32, actions of that edge
    visits: Array  # [B, N] int32, how often each was expanded
    count: Array  # [B] int32
    goal: Array  # [B] int32, the node that is at the goal, or NONE


class Path(NamedTuple):
    """B ways from start to goal; length 0 where none was found, or none is needed."""

    state: Array  # [B, M + 1, S], from the start on; after the end the last is repeated
    action: Array  # [B, M, A], 0 after the end
    length: Array  # [B] int32, actions
    found: Array  # [B] bool


class Search(NamedTuple):
    """What a search found, and its cost."""

    path: Path
    tree: Tree
    expansions: Array  # [B] int32, edges that were tried, those that collided among them


def _begin(problem: Problem, system: System, config: TreeConfig, actions: int) -> Tree:
    batch, width = problem.start.shape
    nodes, longest = config.expansions + 1, config.longest
    none = jnp.zeros((batch, nodes), jnp.int32)
    arrived = near(problem, problem.start, system) & jax.vmap(system.free)(problem.world, problem.start)
    return Tree(
        jnp.zeros((batch, nodes, width)).at[:, 0].set(problem.start),
        none + NONE,
        jnp.zeros((batch, nodes, longest, actions)),
        jnp.zeros((batch, nodes, longest, width)),
        none,
        none,
        jnp.ones(batch, jnp.int32),
        jnp.where(arrived, 0, NONE),
    )


def nearest(tree: Tree, place: Array, system: System) -> Array:
    """`[B]` int32, the nodes of trees that are nearest to places `[B, P]`."""
    gap = jnp.sum(jnp.square(system.position(tree.state) - place[:, None]), axis=-1)
    there = jnp.arange(gap.shape[1])[None] < tree.count[:, None]
    return jnp.argmin(jnp.where(there, gap, jnp.inf), axis=1).astype(jnp.int32)


def _add(tree: Tree, node: Array, edge: Edge, going: Array) -> Tree:
    """The trees with `edge` at `node` `[B]`, where it has a length; `going` `[B]` were expanded."""
    batch = jnp.arange(len(node))
    new = edge.length > 0
    at = jnp.where(new, tree.count, tree.parent.shape[1])  # beyond the last node nothing is written
    return Tree(
        tree.state.at[batch, at].set(edge.state, mode="drop"),
        tree.parent.at[batch, at].set(node, mode="drop"),
        tree.action.at[batch, at].set(edge.action, mode="drop"),
        tree.passed.at[batch, at].set(edge.passed, mode="drop"),
        tree.length.at[batch, at].set(edge.length, mode="drop"),
        tree.visits.at[batch, node].add(going.astype(jnp.int32)),
        tree.count + new.astype(jnp.int32),
        jnp.where(new & edge.arrived, tree.count, tree.goal),
    )


def _back(tree: Tree, longest: int) -> Path:
    """The path of ONE tree, of `longest` actions at most."""
    nodes = tree.parent.shape[0]

    def up(node: Array, _: None) -> tuple[Array, Array]:
        return jnp.maximum(tree.parent[node], 0), node

    way = jax.lax.scan(up, jnp.maximum(tree.goal, 0), None, length=nodes, reverse=True)[1]  # root first
    ends = jnp.cumsum(tree.length[way])
    row = jnp.arange(longest)
    edge = jnp.minimum(jnp.searchsorted(ends, row, side="right"), nodes - 1)
    there = (row < ends[-1])[:, None]
    place = way[edge], jnp.where(there[:, 0], row - (ends - tree.length[way])[edge], 0)
    start, end = tree.state[0], tree.state[jnp.maximum(tree.goal, 0)]
    state = jnp.concatenate([start[None], jnp.where(there, tree.passed[place], end[None])])
    found = (tree.goal != NONE) & (ends[-1] <= longest)
    length = jnp.where(found, ends[-1], 0)
    return Path(state, jnp.where(there, tree.action[place], 0.0), length, found)


def plan(
    key: Array,
    problem: Problem,
    proposer: Proposer,
    *,
    system: System,
    config: TreeConfig = TreeConfig(),  # noqa: B008 (immutable)
    longest: int | None = None,
) -> Search:
    """Grows a tree in each of B problems until all goals are reached or the expansions are spent.

    Pure and un-jitted: `jax.jit(plan, static_argnames=("system", "config", "longest"))`. A start that is not
    free has no path, and what has none is told by `found`; rows of a `Path` mean nothing there.

    Args:
        key: consumed.
        proposer: what edges are made of.
        longest: M, actions of the longest path that counts as one; None: of any that may be.

    Raises:
        UserError: for a proposer of fewer actions than a piece has.
    """
    shape = jax.eval_shape(proposer, key, problem.world, problem.start, problem.goal).shape
    if len(shape) != 3 or shape[1] < config.piece:
        raise UserError(
            f"the proposer gives {shape}: needed are [B, T, A], T at least piece ({config.piece})"
        )
    keys = named_keys(key, "sample", "rate", "edge")
    free = jax.vmap(system.free)(problem.world, problem.start)
    durations, batch = jnp.asarray(config.durations), len(problem.start)

    def expand(carry: tuple[Array, Tree, Array]) -> tuple[Array, Tree, Array]:
        number, tree, spent = carry
        now = {name: jax.random.fold_in(key, number) for name, key in keys.items()}
        at_goal = jax.random.bernoulli(now["rate"], config.goal_rate, (batch, 1))
        place = jax.vmap(system.sample)(jax.random.split(now["sample"], batch), problem.world)
        place = jnp.where(at_goal, problem.goal, place)
        node, going = nearest(tree, place, system), free & (tree.goal == NONE)
        rows = jnp.arange(batch)
        pieces = durations[jnp.minimum(tree.visits[rows, node], len(durations) - 1)]
        edge = grown(
            now["edge"], problem, tree.state[rows, node], place, pieces, going,
            proposer=proposer, system=system, config=config, actions=shape[2],
        )  # fmt: skip
        return number + 1, _add(tree, node, edge, going), spent + going.astype(jnp.int32)

    def more(carry: tuple[Array, Tree, Array]) -> Array:
        number, tree, _ = carry
        return (number < config.expansions) & jnp.any(free & (tree.goal == NONE))

    begun = (jnp.zeros((), jnp.int32), _begin(problem, system, config, shape[2]), jnp.zeros(batch, jnp.int32))
    _, tree, spent = jax.lax.while_loop(more, expand, begun)
    size = config.expansions * config.longest if longest is None else longest
    return Search(jax.vmap(lambda tree: _back(tree, size))(tree), tree, spent)
