"""Agents whose barriers are tuned while they move (Gao, Yang and Prorok 2023, arXiv 2303.04313), as a task.

Every agent heads for its goal and keeps apart from the others by barrier conditions; what is decided is how
cautious each is: an action holds eta and zeta of all agents. The barrier is the distance between two agents,
as in the paper: its condition knows no bound of the actions, so agents that are not cautious enough find that
they cannot keep it any more, while cautious ones are late. (`swap.conditions` knows the bound, and needs no
tuning.) Whatever learns in tasks tunes them:

    python experiments/online_rl.py --agent ppo --env jdp/SwapTuned-v0

An agent is shown what it sees itself: the way to its goal, its velocity, and the others' places and
velocities relative to its own, the nearest first. With `--settings.agents` one MLP decides for each agent
from that alone, where the paper has a graph network; the reward is ours.
"""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jdp.tasks.barriers import Projected, condition, project, raised
from jdp.tasks.simulators import swap as swapping
from jdp.tasks.simulators.swap import Swap, SwapState, swap_task
from jdp.types import Bound, Stepped, Task

ENV_ID = "jdp/SwapTuned-v0"
ETA, ZETA = (0.1, 10.0), (1.0, 3.0)  # of an action of -1 and of 1; eta on a logarithmic scale
PRICE = 0.01  # of a step
BROKEN = 0.1  # price of a step in which no agent's conditions can be kept
FAILED = 1.0  # price of a collision
TWO = Swap(agents=2, swapped=1.6, limit=150)  # who is tuned in ENV_ID


def parameters(action: Array) -> tuple[Array, Array]:
    """`(eta [..., N], zeta [..., N])` of actions `[..., 2 N]` within [-1, 1]."""
    share = (action.reshape(*action.shape[:-1], -1, 2) + 1) / 2
    eta = ETA[0] * (ETA[1] / ETA[0]) ** share[..., 0]
    return eta, ZETA[0] + (ZETA[1] - ZETA[0]) * share[..., 1]


def _gap(x: Array, *, distance: float) -> Array:
    return jnp.linalg.norm(x[:2]) - distance


def _drift(x: Array) -> Array:
    return jnp.concatenate([x[2:], jnp.zeros(2)])


def _push(x: Array) -> Array:
    """Each of the two is to do half of what both must."""
    return jnp.concatenate([jnp.zeros((2, 2)), 2 * swapping.MASS.push * jnp.eye(2)]) + 0 * x[0]


def _pair(x: Array, eta: Array, zeta: Array, distance: float) -> tuple[Array, Array]:
    """The condition on an agent's action, `x` `[4]` being its place and velocity less those of another."""
    barrier = raised(Bound(_gap, (("distance", distance),)), _drift, eta, zeta)
    return condition(barrier, _drift, _push, x, eta, zeta)


def act(state: SwapState, eta: Array, zeta: Array, swap: Swap) -> Projected:
    """What agents `[N]` do that head for their goals and keep apart, with eta and zeta `[N]`."""
    wish = swapping.homing(state.position, state.velocity, state.goal)
    x, count = jnp.concatenate([state.position, state.velocity], -1), swap.agents
    others = np.array([[j for j in range(count) if j != i] for i in range(count)])
    pair = partial(_pair, distance=2 * swap.radius + swapping.MARGIN)
    each = jax.vmap(jax.vmap(pair, (0, None, None)))  # of agents, and of the others that one sees
    return project(wish, *each(x[:, None] - x[others], eta, zeta))


def seen(state: SwapState) -> Array:
    """`[N * (4 + 4 (N - 1))]`, what each agent is shown, one after another."""
    count = len(state.position)
    own = jnp.concatenate([state.goal - state.position, state.velocity], -1)
    place = state.position[None] - state.position[:, None]  # [N, N, 2]
    both = jnp.concatenate([place, state.velocity[None] - state.velocity[:, None]], -1)
    order = jnp.argsort(jnp.sum(jnp.square(place), -1), -1)[:, 1:]  # it is nearest to itself
    others = jnp.take_along_axis(both, order[..., None], 1)
    return jnp.concatenate([own, others.reshape(count, -1)], -1).reshape(-1)


def _reset(key: Array, *, inner: Task) -> tuple[SwapState, Array, Array]:
    state, *_ = inner.reset(key)
    return state, seen(state), jnp.zeros(0)


def _step(
    key: Array, state: SwapState, action: Array, *, inner: Task, swap: Swap
) -> tuple[SwapState, Stepped]:
    told = act(state, *parameters(action), swap)
    after, found = inner.step(key, state, told.action.reshape(-1))

    def way(state: SwapState) -> Array:
        return jnp.mean(jnp.linalg.norm(state.goal - state.position, axis=-1))

    failed = found.terminal & ~found.success
    reward = way(state) - way(after) - PRICE + found.reward
    reward = reward - BROKEN * jnp.mean((told.violation > 0).astype(jnp.float32))
    reward = reward - jnp.where(failed, FAILED, 0.0)
    return after, found._replace(observation=seen(after), reward=reward)


def tuned_task(swap: Swap = TWO) -> Task:
    """`swap_task(swap)` with the agents' eta and zeta as actions `[2 N]` (`parameters`).

    The reward of a step is how much nearer the agents come to their goals (m, the mean over them), less
    `PRICE`, less `BROKEN` for the share of agents whose conditions cannot be kept; at the end 1 for success,
    and `-FAILED` for a collision.
    """
    inner = swap_task(swap)
    width = swap.agents * 4 * swap.agents
    spec = replace(inner.spec, observation_dim=width, env_id=ENV_ID, goal=(), groups=())
    settings = (("inner", inner), ("swap", swap))
    return Task(Bound(_reset, settings[:1]), Bound(_step, settings), spec)
