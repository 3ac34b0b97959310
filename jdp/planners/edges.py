"""Edges of a kinodynamic tree (`jdp.planners.tree`): what moves, who proposes actions, how they end."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from jax import Array
from jax.tree_util import Partial

from jdp.errors import UserError, check_choices, check_settings
from jdp.types import PyTree, bind, named_keys


class System(NamedTuple):
    """What moves, and in what; hashable, its functions are of ONE problem and module-level."""

    step: Callable[[PyTree, Array, Array], tuple[Array, Array]]
    # step(world, state [S], action [A]) -> (state [S], free [] bool: no collision on the way or there)
    free: Callable[[PyTree, Array], Array]  # free(world, state [S]) -> [] bool
    position: Callable[[Array], Array]  # position(states [..., S]) -> [..., P], in which goals are given
    sample: Callable[[Array, PyTree], Array]  # sample(key, world) -> [P], a random place; consumes the key
    reached: float  # distance from the goal, in units of positions


class Problem(NamedTuple):
    """B problems; worlds of equal shapes compile nothing."""

    world: PyTree  # leaves [B, ...]
    start: Array  # [B, S]
    goal: Array  # [B, P]


class Proposer(Protocol):
    """Draws pieces of edges; as a pytree (`jdp.types.bind`) its parameters are arguments."""

    def __call__(self, key: Array, world: PyTree, state: Array, target: Array, /) -> Array:
        """Actions `[B, T, A]` from states `[B, S]` towards places `[B, P]`; the key is consumed."""
        ...


def _uniform(
    key: Array, world: PyTree, state: Array, target: Array, *, horizon: int, hold: int, actions: int
) -> Array:
    del world, target
    drawn = jax.random.uniform(key, (len(state), -(-horizon // hold), actions), minval=-1.0)
    return jnp.repeat(drawn, hold, axis=1)[:, :horizon]


def uniform(actions: int, horizon: int, hold: int | None = None) -> Partial:
    """The classical tree's: `horizon` actions at random, each done `hold` times (None: one all through)."""
    return bind(_uniform, horizon=horizon, hold=hold or horizon, actions=actions)


Law = Callable[[Array, Array], Array]  # law(state [S], place [P]) -> action [A] within [-1, 1]


def _led(
    key: Array, world: PyTree, state: Array, target: Array, *, law: Law, system: System, horizon: int
) -> Array:
    del key

    def one(world: PyTree, state: Array, target: Array) -> Array:
        def step(state: Array, _: None) -> tuple[Array, Array]:
            action = law(state, target)
            return system.step(world, state, action)[0], action

        return jax.lax.scan(step, state, None, length=horizon)[1]

    return jax.vmap(one)(world, state, target)


def led(law: Law, system: System, horizon: int) -> Partial:
    """A proposer that follows a feedback law, a module-level function, for `horizon` actions."""
    return bind(_led, law=law, system=system, horizon=horizon)


@dataclass(frozen=True)
class TreeConfig:
    """How trees grow; DiTree (arXiv 2508.21001) after its public code, where nothing else is said."""

    expansions: int = 300
    """Edges that are tried."""
    piece: int = 4
    """Actions of each proposal that are done before the next one is asked for."""
    durations: tuple[int, ...] = (16, 8, 4)
    """Pieces of a node's first edge, of its second, ...; of all later ones the last number."""
    goal_rate: float = 0.15
    """The chance that the place which a tree grows to is the goal."""
    goal_bias: float = 0.5
    """The chance that a piece aims at the goal, and not at that place; .85 in DiTree's public code."""
    collision: Literal["drop", "cut"] = "drop"
    """What becomes of an edge that collides: nothing, or its pieces before the one that does."""

    def __post_init__(self) -> None:
        check_choices(self)
        name = type(self).__name__
        check_settings(
            name,
            expansions=(self.expansions, 1, 1_000_000),
            piece=(self.piece, 1, 10_000),
            goal_rate=(self.goal_rate, 0, 1),
            goal_bias=(self.goal_bias, 0, 1),
        )
        if not self.durations or min(self.durations) < 1:
            raise UserError(
                f"{name}.durations is {self.durations}: give one number of pieces or more, from 1"
            )

    @property
    def longest(self) -> int:
        """L, actions of the longest edge."""
        return self.piece * max(self.durations)


def near(problem: Problem, state: Array, system: System) -> Array:
    """`[B]` bool, which states `[B, S]` are at their goals."""
    gap = system.position(state) - problem.goal
    return jnp.sum(jnp.square(gap), axis=-1) <= system.reached**2


class Edge(NamedTuple):
    """B edges, on their way or done."""

    state: Array  # [B, S]
    action: Array  # [B, L, A]
    passed: Array  # [B, L, S]
    length: Array  # [B] int32
    going: Array  # [B] bool
    crashed: Array  # [B] bool
    arrived: Array  # [B] bool


def _roll(edge: Edge, problem: Problem, system: System, item: tuple[Array, Array]) -> tuple[Edge, None]:
    """One action `[B, A]` more, which stands at the place `item[0]` of the edges."""
    index, action = item
    state, free = jax.vmap(system.step)(problem.world, edge.state, action)
    kept = edge.going & free
    arrived = kept & near(problem, state, system)
    rows = jnp.where(kept[:, None], action, 0.0), jnp.where(kept[:, None], state, 0.0)
    edge = Edge(
        jnp.where(kept[:, None], state, edge.state),
        edge.action.at[:, index].set(rows[0]),
        edge.passed.at[:, index].set(rows[1]),
        edge.length + kept.astype(jnp.int32),
        kept & ~arrived,
        edge.crashed | (edge.going & ~free),
        edge.arrived | arrived,
    )
    return edge, None


def grown(
    key: Array,
    problem: Problem,
    state: Array,
    place: Array,
    pieces: Array,
    going: Array,
    *,
    proposer: Proposer,
    system: System,
    config: TreeConfig,
    actions: int,
) -> Edge:
    """Edges from states `[B, S]` of `pieces` `[B]` proposals, those that are `going` `[B]`."""
    batch, longest = len(state), config.longest

    def piece(both: tuple[Array, Edge]) -> tuple[Array, Edge]:
        number, edge = both
        keys = named_keys(jax.random.fold_in(key, number), "aim", "propose")
        at_goal = jax.random.bernoulli(keys["aim"], config.goal_bias, (batch, 1))
        target = jnp.where(at_goal, problem.goal, place)
        action = proposer(keys["propose"], problem.world, edge.state, target)[:, : config.piece]
        first, edge = edge.length, edge._replace(going=edge.going & (number < pieces))
        index = number * config.piece + jnp.arange(config.piece)
        edge = jax.lax.scan(
            lambda edge, item: _roll(edge, problem, system, item), edge, (index, action.swapaxes(0, 1))
        )[0]
        whole = jnp.where(edge.crashed, jnp.minimum(first, edge.length), edge.length)
        return number + 1, edge._replace(length=whole)

    none = jnp.zeros(batch, jnp.int32)
    action, passed = (jnp.zeros((batch, longest, n)) for n in (actions, state.shape[1]))
    edge = Edge(state, action, passed, none, going, none > 0, none > 0)
    more = lambda both: jnp.any(both[1].going) & (both[0] < jnp.max(pieces))  # noqa: E731
    edge = jax.lax.while_loop(more, piece, (jnp.zeros((), jnp.int32), edge))[1]
    length = jnp.where(edge.crashed & (config.collision == "drop"), 0, edge.length)
    kept = (jnp.arange(longest)[None] < length[:, None])[..., None]
    last = jnp.maximum(length - 1, 0)[:, None, None]
    end = jnp.take_along_axis(edge.passed, last, axis=1)[:, 0]
    rows = jnp.where(kept, edge.action, 0.0), jnp.where(kept, edge.passed, 0.0)
    return edge._replace(state=end, action=rows[0], passed=rows[1], length=length)
