"""What MPPI, CEM and MBDPO share: sequences of actions, what they come to in a model, and a policy of plans.

The model is a simulator in JAX, whose state the observation tells, or a world model.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp
from jax import Array

from jdp.data.checks import check_same_task
from jdp.diffusion import monte_carlo
from jdp.errors import UserError, check_settings
from jdp.learning.actors import decided_anew
from jdp.types import Bound, Decision, Policy, PyTree, Spec, Task, WorldModel, named_keys


class Dynamics(NamedTuple):
    """A model of the world, as plans ask it."""

    start: Callable[[Array, Array], PyTree]  # start(observation [O], goal [G]) -> where one episode stands
    step: Callable[[Array, PyTree, PyTree, Array], tuple[PyTree, Array, Array]]
    # step(key, parameters, states [N, ...], actions [N, A]) -> (states, reward [N], terminal [N])


def _simulated(
    key: Array, params: PyTree, state: PyTree, action: Array, *, task: Task
) -> tuple[PyTree, Array, Array]:
    del params  # it is the task itself
    state, found = jax.vmap(task.step)(jax.random.split(key, len(action)), state, action)
    return state, found.reward, found.terminal.astype(jnp.float32)


def _imagined_start(observation: Array, goal: Array, *, model: WorldModel, actions: int) -> PyTree:
    del goal
    seen = jnp.broadcast_to(observation, (1, model.history, *observation.shape))
    carry = model.start(seen, jnp.zeros((1, model.history - 1, actions)))
    return jax.tree.map(lambda x: x[0], carry)


def _imagined(
    key: Array, params: PyTree, state: PyTree, action: Array, *, model: WorldModel
) -> tuple[PyTree, Array, Array]:
    state, _, reward, terminal = model.step(key, params, state, action)
    return state, reward, terminal


def dynamics_of(name: str, spec: Spec, task: Task | None, model: WorldModel | None) -> Dynamics:
    """What the method `name` plans in: the simulator `task`, or the world model `model`.

    Raises:
        UserError: unless it is given one of them, of the dimensions of `spec`; or where observations do not
            tell the simulator's state.
    """
    if (task is None) == (model is None):
        raise UserError(f"{name} plans in a model: give a simulator (task=) or a world model (model=)")
    if model is not None:
        settings = (("actions", spec.action_dim), ("model", model))
        return Dynamics(Bound(_imagined_start, settings), Bound(_imagined, (("model", model),)))
    assert task is not None
    if task.state_of is None:
        raise UserError(
            f"{name} cannot plan in {task.spec.env_id}: its observations do not tell the simulator's state; "
            "choose Pendulum-v1, jdp/DoubleIntegrator-v0 or a maze, or plan in a world model"
        )
    check_same_task(name, spec, task.spec, "give it the simulator of its own task")
    return Dynamics(task.state_of, Bound(_simulated, (("task", task),)))


def returns(
    key: Array,
    dynamics: Dynamics,
    params: PyTree,
    observation: Array,
    goal: Array,
    actions: Array,
    discount: float,
) -> Array:
    """`[N]`, `sum_t discount^t r_t` of sequences `[N, T, A]` from one observation `[O]`; the key is consumed.

    Nothing is counted after a terminal.
    """
    count, length, _ = actions.shape
    here = dynamics.start(observation, goal)
    states = jax.tree.map(lambda x: jnp.broadcast_to(x, (count, *x.shape)), here)

    def body(carry: tuple[PyTree, Array, Array], step: tuple[Array, Array]):
        states, total, weight = carry
        key, action = step
        states, reward, terminal = dynamics.step(key, params, states, action)
        return (states, total + weight * reward, weight * discount * (1 - terminal)), None

    steps = jax.random.split(key, length), jnp.swapaxes(actions, 0, 1)
    return jax.lax.scan(body, (states, jnp.zeros(count), jnp.ones(count)), steps)[0][1]


@dataclass(frozen=True)
class PlanningConfig:
    """How plans are sought: by draws around the last one, weighted by what they come to."""

    horizon: int = 20
    """Steps of a plan."""
    samples: int = 512
    """Sequences that are drawn at a level."""
    elites: int = 64
    """The best of them, which alone are weighted; 0: all."""
    temperature: float = 0.5
    """Of the weights."""
    relative: bool = True
    """Whether the temperature is in standard deviations of the returns, or in their own units."""
    discount: float = 0.99
    """Of a step within a plan."""
    exploration: float = 0.05
    """Standard deviation of what is added to actions while it collects."""

    def __post_init__(self) -> None:
        check_settings(
            type(self).__name__,
            horizon=(self.horizon, 1, 10_000),
            samples=(self.samples, 2, 1_000_000),
            elites=(self.elites, 0, self.samples),
            temperature=(self.temperature, 1e-6, 1e9),
            discount=(self.discount, 0, 1),
        )

    def sigmas(self) -> Array:
        """`[n]`, the standard deviation of the draws of each level."""
        raise NotImplementedError

    def improved(self, key: Array, value: monte_carlo.Value, plan: Array, given: Array | None) -> Array:
        """`[T, A]`, a plan of more value than `plan`: down the levels of `sigmas`; the key is consumed.

        `given` `[K, T, A]` are candidates at each level.
        """
        options = {"samples": self.samples, "limit": 1.0, "given": given}
        return monte_carlo.descend(key, value, weigher(self), plan, self.sigmas(), **options)


def shifted(plan: Array) -> Array:
    """`[..., T, A]`, what is left of a plan after its first action, and nothing at its end: a warm start."""
    return jnp.concatenate([plan[..., 1:, :], jnp.zeros_like(plan[..., :1, :])], axis=-2)


class Propose(Protocol):
    """Plans that a method brings along."""

    def __call__(self, state: PyTree, observation: Array, plan: Array, /) -> Array:
        """`[B, K, T, A]`, candidates at observations `[B, O]`, from warm starts `[B, T, A]`."""
        ...


def search(
    key: Array,
    dynamics: Dynamics,
    params: PyTree,
    observation: Array,
    goal: Array,
    plan: Array,
    config: PlanningConfig,
    given: Array | None = None,
) -> Array:
    """A plan `[T, A]` at one observation `[O]`, from the warm start `plan`; the key is consumed."""
    keys = named_keys(key, "draw", "model")

    def value(actions: Array) -> Array:  # all levels in the same world: of random ones too
        return returns(keys["model"], dynamics, params, observation, goal, actions, config.discount)

    return config.improved(keys["draw"], value, plan, given)


def weigher(config: PlanningConfig) -> Callable[[Array], Array]:
    """Returns `[N]` to weights `[N]`."""
    options = {"elites": config.elites, "relative": config.relative}
    return partial(monte_carlo.weights, temperature=config.temperature, **options)


def _no_plan(observation: Array, *, config: PlanningConfig, spec: Spec) -> Array:
    return jnp.zeros((len(observation), config.horizon, spec.action_dim))


def _act(
    key: Array,
    state: PyTree,
    carry: Array,
    observation: Array,
    goal: Array,
    *,
    dynamics: Dynamics,
    config: PlanningConfig,
    noise: float,
    propose: Propose | None,
) -> tuple[Array, Decision]:
    keys, start = named_keys(key, "search", "noise"), shifted(carry)
    given = None if propose is None else propose(state, observation, start)
    each = jax.random.split(keys["search"], len(observation))

    def one(key: Array, observation: Array, goal: Array, plan: Array, given: Array | None) -> Array:
        return search(key, dynamics, state.model, observation, goal, plan, config, given)

    plan = jax.vmap(one)(each, observation, goal, start, given)
    action = plan[:, 0]
    if noise:
        action = jnp.clip(action + noise * jax.random.normal(keys["noise"], action.shape), -1.0, 1.0)
    return plan, decided_anew(action)


def planning_policy(
    dynamics: Dynamics,
    config: PlanningConfig,
    spec: Spec,
    *,
    noise: float = 0.0,
    propose: Propose | None = None,
) -> Policy:
    """Plans anew at every step, from what is left of the last plan, and acts by the first action of it.

    Its state has a field `model`, the parameters of the dynamics; a carry is the plan `[B, T, A]`.
    """
    settings = (("config", config), ("dynamics", dynamics), ("noise", noise), ("propose", propose))
    return Policy(Bound(_no_plan, (("config", config), ("spec", spec))), Bound(_act, settings))
