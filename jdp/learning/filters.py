"""Filters: what a policy decides, changed at the last moment, for instance to keep it from what is forbidden.

`filtered(policy, filter, spec)` wraps any policy, agent or planner. `keep_out` and `keep_apart` are filters
of barrier conditions (`jdp.tasks.barriers`) for points that are pushed; `within` makes one of any function of
what is observed that is to stay at 0 or above. A filter of one's own is any function of a context and an
action.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jdp.data.normalise import identity
from jdp.errors import UserError, check_settings
from jdp.learning.guides import Past, context_of, history_of, no_past, observe
from jdp.learning.scale import ActionScale
from jdp.tasks.barriers import BALL, PointMass, Projected, clear, condition, project
from jdp.tasks.barriers.conditions import Barrier, Drift
from jdp.tasks.simulators import swap as swapping
from jdp.tasks.simulators.swap import Swap
from jdp.types import Bound, Context, Decision, Filter, Policy, PyTree, Spec


class FilteredCarry(NamedTuple):
    """What B environments remember of a filtered policy."""

    own: PyTree  # of the policy
    past: Past  # of the episode; its history is as long as the filter asks for


def filtered(policy: Policy, filter: Filter, spec: Spec) -> Policy:
    """`policy`, whose actions are what `filter` makes of them.

    It is asked at every step, also while a chunk or a plan is followed, and nothing that the policy remembers
    knows of it. Decisions say what was intended and, where the filter tells, by how much what it allows still
    breaks its rules (`Decision.intended`, `Decision.violation`).

    Args:
        filter: hashable; one with a field `history` sees that many observations.

    Raises:
        UserError: if the filter cannot be hashed.
    """
    try:
        hash(filter)
    except TypeError:
        raise UserError(
            "a filter must be hashable, so that nothing compiles twice: give a function or a frozen dataclass"
        ) from None
    settings = (("filter", filter), ("policy", policy), ("spec", spec))
    return Policy(Bound(_init, settings[:2]), Bound(_act, settings))


def _init(observation: Array, *, filter: Filter, policy: Policy) -> FilteredCarry:
    return FilteredCarry(policy.init(observation), no_past(observation, history_of(filter)))


def _act(
    key: Array,
    state: PyTree,
    carry: FilteredCarry,
    observation: Array,
    goal: Array,
    *,
    filter: Filter,
    policy: Policy,
    spec: Spec,
) -> tuple[FilteredCarry, Decision]:
    own, decision = policy.act(key, state, carry.own, observation, goal)
    past = observe(carry.past, observation)
    scale = ActionScale(identity(spec.observation_dim), identity(spec.action_dim), 1.0)
    found = filter(context_of(scale, past, goal, filter), decision.action)
    action, violation = found if isinstance(found, tuple) else (found, None)
    if jnp.shape(action) != decision.action.shape:
        raise UserError(
            f"the filter {_name(filter)} gives actions of shape {jnp.shape(action)}, where it was given "
            f"{decision.action.shape}: it must return an action for each"
        )
    decision = decision._replace(action=action, intended=decision.action, violation=violation)
    return FilteredCarry(own, past), decision


def _name(filter: Filter) -> str:
    return getattr(filter, "__name__", type(filter).__name__)


def keep_out(
    *discs: tuple[float, float, float],
    eta: float = 5.0,
    zeta: float = 1.0,
    brake: float | None = None,
    mass: PointMass = BALL,
    place: tuple[int, int] = (0, 1),
    speed: tuple[int, int] = (2, 3),
) -> Filter:
    """The filter that keeps a pushed point out of `discs`, `(x, y, radius)` in m.

    It changes an action as little as the rule allows, and tells where none keeps it. By default of the ball
    of PointMaze and maze2d, whose walls it knows nothing of.

    Args:
        eta: how fast what is left beyond the braking distance may be used up, 1/s; low ones keep far away.
        zeta: the power of that (`jdp.tasks.barriers.braking`).
        brake: m/s^2 that are counted on; None: 70 % of `mass.push`, as several discs may be near.
        mass: how the point moves.
        place: the observation's entries of the position.
        speed: of the velocity.

    Raises:
        UserError: for no disc, a radius that is not above 0, or settings out of range.
    """
    if not discs:
        raise UserError("keep_out is given no disc to keep out of: name some, as (x, y, radius)")
    for disc in discs:
        check_settings("keep_out", radius=(disc[2], 1e-6, float("inf")))
    brake = 0.7 * mass.push if brake is None else brake
    check_settings("keep_out", eta=(eta, 0, 1e6), zeta=(zeta, 1e-3, 1e3), brake=(brake, 1e-6, mass.push))
    settings = {"discs": discs, "eta": eta, "zeta": zeta, "brake": brake, "mass": mass}
    return Bound(_keep_out, (*settings.items(), ("place", place), ("speed", speed)))


def _keep_out(
    context: Context,
    action: Array,
    *,
    discs: tuple[tuple[float, float, float], ...],
    eta: float,
    zeta: float,
    brake: float,
    mass: PointMass,
    place: tuple[int, int],
    speed: tuple[int, int],
) -> Projected:
    position, velocity = (context.observation[:, list(entries)] for entries in (place, speed))
    table = jnp.array(discs, jnp.float32)
    found = clear(position, velocity, table[:, :2], table[:, 2], eta=eta, zeta=zeta, brake=brake, mass=mass)
    return project(action, found.row, found.bound)


def keep_apart(swap: Swap = Swap(), *, eta: float = 10.0, zeta: float = 1.0) -> Filter:  # noqa: B008 (immutable)
    """The filter of all agents of `jdp/Swap-v0`, each by its own conditions on what it sees of the others.

    `eta` and `zeta` as of `keep_out`. The violation is that of the agent that fares worst.
    """
    check_settings("keep_apart", eta=(eta, 0, 1e6), zeta=(zeta, 1e-3, 1e3))
    return Bound(_keep_apart, (("swap", swap), ("eta", eta), ("zeta", zeta)))


def _keep_apart(context: Context, action: Array, *, swap: Swap, eta: float, zeta: float) -> Projected:
    batch = action.shape[0]
    position, velocity = jnp.moveaxis(context.observation.reshape(batch, 2, -1, 2), 1, 0)
    found = swapping.conditions(position, velocity, swap, eta, zeta)
    done = project(action.reshape(batch, -1, 2), found.row, found.bound)
    return Projected(done.action.reshape(batch, -1), jnp.max(done.violation, -1))


def within(*barriers: Barrier, drift: Drift, push: Drift, eta: float = 1.0, zeta: float = 1.0) -> Filter:
    """The filter that keeps functions of the observation at 0 or above, of a system `dx/dt = drift + push u`.

    Args:
        barriers: `h(x [O]) -> []`, differentiable and hashable; where an action moves only the second
            derivative, `jdp.tasks.barriers.raised(h, drift)`.
        drift: `f(x [O]) -> [O]`, of a second.
        push: `g(x [O]) -> [O, A]`.
        eta: of the condition `dh/dt >= -eta h^zeta` (`jdp.tasks.barriers.condition`).
    """
    if not barriers:
        raise UserError(
            "within is given no barrier: name functions of an observation that stay at 0 or above"
        )
    settings = {"barriers": barriers, "drift": drift, "push": push, "eta": eta, "zeta": zeta}
    return Bound(_within, tuple(settings.items()))


def _within(
    context: Context,
    action: Array,
    *,
    barriers: tuple[Barrier, ...],
    drift: Drift,
    push: Drift,
    eta: float,
    zeta: float,
) -> Projected:
    def conditions(state: Array) -> tuple[Array, Array]:
        found = [condition(barrier, drift, push, state, eta, zeta) for barrier in barriers]
        rows, bounds = zip(*found, strict=True)
        return jnp.stack(rows), jnp.stack(bounds)

    return project(action, *jax.vmap(conditions)(context.observation))
