"""The worlds of `steering.py`: tasks, data, wishes that these hardly hold, and ways to say each of them."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jdp import evaluation
from jdp.data import Episodes
from jdp.data.episodes import Origin, make_episodes
from jdp.data.recipes import Making
from jdp.data.sources import load
from jdp.diffusion.guidance import logic
from jdp.diffusion.guidance.logic import (
    Formula,
    always,
    below,
    disc,
    implies,
    inside,
    outside,
    predicate,
    until,
)
from jdp.learning.attributes import StrengthConfig
from jdp.learning.filters import keep_apart, keep_out, within
from jdp.learning.guides import Cost
from jdp.learning.inverse import InverseConfig
from jdp.learning.plan_models import ModelConfig
from jdp.networks import NetworkConfig, ValueNetworkConfig
from jdp.planners import presets
from jdp.planners.align_diff import AlignDiffConfig
from jdp.planners.diffuser import DiffuserPlannerConfig
from jdp.tasks.barriers import BALL
from jdp.tasks.simulators.point_maze import maze2d_task
from jdp.tasks.simulators.swap import MASS, Swap, homing, swap_task
from jdp.types import Bound, Filter, Task, named_keys

Begin = Callable[[int, int], tuple[np.ndarray, np.ndarray]]  # (seed, n) -> observations [n, O], goals [n, G]


class Wish(NamedTuple):
    """What is asked, and how each way says it; None where it cannot."""

    formula: Formula
    cost: Cost
    barrier: Filter | None
    aligned: tuple[float, ...] | None  # strengths of the world's attributes


class World(NamedTuple):
    """A task, what was recorded in it, and what is wished."""

    task: Task
    data: Episodes
    steps: int  # of an episode
    planner: DiffuserPlannerConfig
    aligned: AlignDiffConfig
    begin: Begin
    wishes: dict[str, Wish]
    updates: int  # of each planner
    judged: int  # steps between two rows of the data by which a wish is judged there
    margin: float  # asked of robustness, in the units of the wishes
    score: Callable[[np.ndarray, np.ndarray], np.ndarray]  # of returns [n] and lengths [n]


def hinge(x: Array) -> Array:
    """What is above 0, squared."""
    return jnp.square(jax.nn.relu(x))


def apart(observation: Array, i: tuple[int, int], j: tuple[int, int] | tuple[float, float]) -> Array:
    """`[..., T]`, from the place in entries `i` to that in `j`, or to a point."""
    at = [observation[..., list(x)] if isinstance(x[0], int) else jnp.array(x) for x in (i, j)]
    return jnp.sqrt(jnp.sum(jnp.square(at[0] - at[1]), axis=-1) + 1e-12)


# The U-maze: what is asked lies on the way from the upper arm through the right corridor to the lower arm.

OUT, RADIUS = (1.5, 0.0), 0.5  # half of the corridor's width
CORNER, VISITED = (1.2, 1.2), 0.25  # A, in the outer corner that ways cut; B is the middle of the corridor
MIDDLE, CORRIDOR = (1.0, 0.0), 0.5
NEAR, SLOW = 0.6, 2.0  # m from the person at `OUT`, m/s; the data's median speed is 3.2
TIGHTER = 0.1  # m/s less is asked of the barrier, which holds up to a step of the simulator
BRAKE = 10.0  # m/s^2 of the ball's 23.8, counted on where it has to slow down


def _cost_of_place(observation: Array, action: Array) -> Array:
    del action
    return jnp.sum(hinge(RADIUS + 0.1 - apart(observation, (0, 1), OUT)), -1)


def _cost_of_corner(observation: Array, action: Array) -> Array:
    del action
    away = jnp.square(apart(observation, (0, 1), CORNER))
    return -jax.nn.logsumexp(-10.0 * away, axis=-1) / 10.0  # of the row that comes nearest


def _cost_of_speed(observation: Array, action: Array) -> Array:
    del action
    near = jax.nn.sigmoid((NEAR + 0.05 - apart(observation, (0, 1), OUT)) / 0.05)
    return jnp.sum(near * hinge(apart(observation, (2, 3), (0.0, 0.0)) - SLOW + 0.2), -1)


def _braked(x: Array) -> Array:
    """At 0 or above while the ball can still be slow enough where the person is near."""
    left = jax.nn.relu(apart(x, (0, 1), OUT) - NEAR - 0.05)
    return (SLOW - TIGHTER) ** 2 + 2 * BRAKE * left - jnp.sum(jnp.square(x[2:]))


def _ball_drift(x: Array) -> Array:
    return jnp.concatenate([x[2:], -BALL.drag * x[2:]])


def _ball_push(x: Array) -> Array:
    del x
    return BALL.push * jnp.eye(4)[:, 2:]


def _maze_wishes() -> dict[str, Wish]:
    person = inside(disc(OUT, NEAR))
    return {
        "keep out": Wish(
            always(outside(disc(OUT, RADIUS))), _cost_of_place, keep_out((*OUT, RADIUS)), (-1.0, 0.9)
        ),
        "A before B": Wish(
            until(outside(disc(MIDDLE, CORRIDOR)), inside(disc(CORNER, VISITED))), _cost_of_corner, None, None
        ),
        "slow near": Wish(
            always(implies(person, below(logic.speed(), SLOW))),
            _cost_of_speed,
            within(_braked, drift=_ball_drift, push=_ball_push, eta=20.0),
            (0.05, -1.0),
        ),
    }


def _maze_begin(seed: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    start, goal = (np.array([[0.4, y]]) + rng.uniform(-0.3, 0.3, (count, 2)) for y in (1.0, -1.0))
    return np.concatenate([start, np.zeros((count, 2))], 1).astype(np.float32), goal.astype(np.float32)


def small(features: int) -> dict[str, Any]:
    """A network that learns in minutes of one core; one plan an episode.

    Plans begin at low noise: guidance multiplies the network's Jacobian, and its errors, by sigma^2.
    """
    model = ModelConfig(NetworkConfig("residual_unet", features, 3), learning_rate=1e-3, ema=0.995)
    return {"replan_every": 0, "model": model, "sampling": replace(presets.COLD, steps=16, sigma_max=10.0)}


STRENGTHS = StrengthConfig(network=ValueNetworkConfig("pooled", 16, 2))


def maze(rows: int, features: int) -> World:
    """maze2d-umaze by D4RL's recipe; an episode goes on at its goal."""
    data = load("maze2d-umaze-v1", source="recipe", making=Making(rows=rows))
    own: dict[str, Any] = small(features) | {"horizon": 128, "stride": 8, "control": "waypoints"}
    aligned = AlignDiffConfig(
        **own, attributes=("speed", "clearance"), wish=(-1.0, -1.0), candidates=8, strengths=STRENGTHS
    )
    return World(
        maze2d_task("umaze", many_goals=True),
        data,
        300,
        DiffuserPlannerConfig(**own, candidates=1),
        aligned,
        _maze_begin,
        _maze_wishes(),
        1200,
        4,
        0.1,
        lambda returns, lengths: evaluation.scores_of(returns, data.spec),
    )


# Two agents that swap places. They were recorded each as if it were alone.

TWO = Swap(agents=2, swapped=1.6, ends=False, limit=100)
CENTRE, ROOM = (0.0, 0.0), 0.35  # where the first agent goes first, and alone
CLOSE, CALM = 0.6, 0.35  # m between the agents, m/s
ONE, OTHER, FIRST_SPEED, OTHER_SPEED = (0, 1), (2, 3), (4, 5), (6, 7)
CAREFUL = 0.5  # m/s^2 of the agents' 1


def _gap(observation: Array, action: Array) -> Array:
    del action
    return apart(observation, ONE, OTHER)


def _cost_of_gap(observation: Array, action: Array) -> Array:
    return jnp.sum(hinge(2 * TWO.radius + 0.1 - _gap(observation, action)), -1)


def _cost_of_order(observation: Array, action: Array) -> Array:
    """The second agent waits outside for 2.8 s: a cost of rows knows no "until"."""
    del action
    return jnp.sum(hinge(ROOM + 0.05 - apart(observation[:, :7], OTHER, CENTRE)), -1)


def _cost_of_calm(observation: Array, action: Array) -> Array:
    near = jax.nn.sigmoid((CLOSE + 0.03 - _gap(observation, action)) / 0.03)
    fast = [apart(observation, v, (0.0, 0.0)) - CALM + 0.05 for v in (FIRST_SPEED, OTHER_SPEED)]
    return jnp.sum(near * (hinge(fast[0]) + hinge(fast[1])), -1)


def _calm(x: Array, *, entries: tuple[int, int]) -> Array:
    """At 0 or above while this agent can still be slow enough; half of what is between them is its own."""
    left = jax.nn.relu(apart(x, ONE, OTHER) - CLOSE - 0.02)
    return (CALM - 0.5 * TIGHTER) ** 2 + CAREFUL * left - jnp.sum(jnp.square(x[jnp.array(entries)]))


def _pair_drift(x: Array) -> Array:
    return jnp.concatenate([x[4:], jnp.zeros(4)])


def _pair_push(x: Array) -> Array:
    del x
    return MASS.push * jnp.eye(8)[:, 4:]


def _swap_wishes() -> dict[str, Wish]:
    room = [disc(CENTRE, ROOM, entries) for entries in (ONE, OTHER)]
    close = ~predicate(Bound(_beyond, (("limit", CLOSE),)))
    calm = [below(logic.speed(entries), CALM) for entries in (FIRST_SPEED, OTHER_SPEED)]
    barriers = [Bound(_calm, (("entries", entries),)) for entries in (FIRST_SPEED, OTHER_SPEED)]
    return {
        "keep apart": Wish(
            always(predicate(Bound(_beyond, (("limit", 2 * TWO.radius),)))),
            _cost_of_gap,
            keep_apart(TWO),
            None,
        ),
        "A before B": Wish(
            until(outside(room[1]), inside(disc(CENTRE, 0.15, ONE)))
            & always(outside(room[0]) | outside(room[1])),
            _cost_of_order,
            None,
            None,
        ),
        "slow near": Wish(
            always(implies(close, calm[0] & calm[1])),
            _cost_of_calm,
            within(*barriers, drift=_pair_drift, push=_pair_push, eta=8.0),
            (0.05,),
        ),
    }


def _beyond(observation: Array, action: Array, *, limit: float) -> Array:
    return _gap(observation, action) - limit


def _swap_begin(seed: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    keys = jax.random.split(jax.random.key(seed), count)
    _, observation, goal = jax.vmap(swap_task(TWO).reset)(keys)
    return np.asarray(observation), np.asarray(goal)


def _recorded(count: int, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """`(observations [count, steps + 1, 8], actions [count, steps, 4])` of agents that see no other.

    Each sets out after a while of its own, is as strong as it is, and at first aims beside its goal.
    """
    task, keys = swap_task(TWO), named_keys(jax.random.key(7), "reset", "late", "strong", "beside")
    state, observation, _ = jax.vmap(task.reset)(jax.random.split(keys["reset"], count))
    late = jax.random.randint(keys["late"], (count, 2, 1), 0, 16)
    strong = jax.random.uniform(keys["strong"], (count, 2, 1), minval=0.4, maxval=1.0)
    beside = 0.25 * jax.random.normal(keys["beside"], (count, 2, 2))

    def step(state: Any, t: Array) -> tuple[Any, tuple[Array, Array]]:
        aim = state.goal + beside * jnp.maximum(0.0, 1 - (t - late) / 24.0)
        push = strong * homing(state.position, state.velocity, aim)
        push = jnp.where(t >= late, push, 0.0).reshape(count, 4)
        state, found = jax.vmap(task.step)(jax.random.split(jax.random.key(0), count), state, push)
        return state, (found.observation, push)

    _, (seen, done) = jax.lax.scan(step, state, jnp.arange(steps))
    seen = jnp.concatenate([observation[None], seen])
    return np.asarray(jnp.swapaxes(seen, 0, 1)), np.asarray(jnp.swapaxes(done, 0, 1))


def swap(rows: int, features: int) -> World:
    """Two agents that swap places; a collision is counted, and does not end the episode."""
    steps = 80
    seen, done = _recorded(max(rows // steps, 4), steps)
    flat = seen[:, :-1].reshape(-1, 8), done.reshape(-1, 4), seen[:, 1:].reshape(-1, 8)
    none, ends = np.zeros(len(flat[0]), bool), np.arange(1, len(flat[0]) + 1) % steps == 0
    spec = replace(swap_task(TWO).spec, max_episode_steps=TWO.limit)
    origin = Origin("two that swap (made)", "none", "", "", 0, "MIT")
    data = make_episodes(
        flat[0], flat[1], none.astype(np.float32), flat[2], none, ends, spec=spec, origin=origin, marked=True
    )
    inverse = InverseConfig(hidden=(128, 128))
    own: dict[str, Any] = small(features) | {"horizon": 64, "stride": 8, "inverse": inverse}
    aligned = AlignDiffConfig(**own, attributes=("speed",), wish=(-1.0,), candidates=8, strengths=STRENGTHS)
    return World(
        swap_task(TWO),
        data,
        TWO.limit,
        DiffuserPlannerConfig(**own, candidates=1),
        aligned,
        _swap_begin,
        _swap_wishes(),
        1000,
        1,
        0.05,
        lambda returns, lengths: -lengths.astype(float),
    )
