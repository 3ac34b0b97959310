"""Hooks of planners and policies: what a guide sees and remembers, and a user's cost as a guide."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import jax.numpy as jnp
from jax import Array

from jdp.diffusion.guidance import Covariance, Value, logic_guided, optimised, value_guided
from jdp.diffusion.guidance.logic import Formula
from jdp.errors import UserError
from jdp.learning.candidates import repeated
from jdp.types import Bound, Context, Coordinates, Denoiser, Filter, Guide, bind


class Past(NamedTuple):
    """The last observations of B episodes, in a carry."""

    history: Array  # [B, H, O], the present last; the first observation stands for those before it
    elapsed: Array  # [B] int32, steps since the first one; -1 until it is seen


def no_past(observation: Array, length: int = 1) -> Past:
    """Of episodes that begin at `observation` `[B, O]`, which is seen next; `length` is H."""
    batch, dim = observation.shape
    history = jnp.broadcast_to(observation[:, None], (batch, length, dim))
    return Past(history, jnp.full(batch, -1, jnp.int32))


def observe(past: Past, observation: Array) -> Past:
    """A step later, at `observation` `[B, O]`."""
    return Past(jnp.concatenate([past.history[:, 1:], observation[:, None]], axis=1), past.elapsed + 1)


@dataclass(frozen=True)
class Remembering:
    """A guide that sees the last `history` observations."""

    guide: Guide
    history: int

    def __call__(self, context: Context) -> Callable[[Denoiser], Denoiser]:
        """As `guide`."""
        return self.guide(context)


def history_of(guide: Guide | Filter | None) -> int:
    """H, the observations that a guide or filter sees: its field `history`, 1 where it has none."""
    return getattr(guide, "history", 1)


def checked(guide: Guide | None, history: int | None = None) -> Guide | None:
    """`guide`, seeing the last `history` observations where that is given.

    Raises:
        UserError: if the guide is not hashable, or `history` is below 1 or given without a guide.
    """
    try:
        hash(guide)
    except TypeError:
        raise UserError(
            "a guide must be hashable, so that nothing compiles twice: give a function or a frozen dataclass"
        ) from None
    if history is not None and (guide is None or history < 1):
        raise UserError(f"history is {history}: a guide sees 1 or more observations, and nothing else does")
    return guide if guide is None or history in (None, history_of(guide)) else Remembering(guide, history)


def context_of(scale: Coordinates, past: Past, goal: Array, guide: Guide | Filter | None) -> Context:
    """What `guide` may know at the last observation of `past`, on the way to goals `[B, G]`."""
    history = past.history[:, -history_of(guide) :]
    return Context(scale, history[:, -1], goal, past.elapsed, history)


def first_context(scale: Coordinates, observation: Array, goal: Array, guide: Guide | None) -> Context:
    """`context_of` an episode that begins at observations `[B, O]`."""
    past = observe(no_past(observation, history_of(guide)), observation)
    return context_of(scale, past, goal, guide)


def guided(denoiser: Denoiser, guide: Guide | None, context: Context, candidates: int = 1) -> Denoiser:
    """`denoiser` of `candidates` for each row of `context`, taken to another one by `guide`."""
    if guide is None:
        return denoiser
    return guide(Context(context.scale, *repeated(tuple(context[1:]), candidates)))(denoiser)


class Cost(Protocol):
    """What a plan costs, in the units of the task; differentiable."""

    def __call__(self, observation: Array, action: Array) -> Array:
        """`[B]`, of observations `[B, T, O]`, of which row 0 is the present, and actions `[B, T, A]`.

        Actions are within [-1, 1], as everywhere in jdp (`Spec.task_actions` takes them to the task's box).
        Where plans hold states alone they are `[B, 0, A]`. On the high level of a hierarchy, whose rows are
        `jump` steps apart, they are those of all steps, `[B, T * jump, A]`. Policies draw actions alone:
        observations are `[B, 1, O]`, the present, and actions the chunk.
        """
        ...


def cost_guide(
    cost: Cost, strength: float = 1.0, *, steps: int = 0, covariance: Covariance = "isotropic"
) -> Guide:
    """The guide to plans, or actions, of low `cost`: the prior tilted by `exp(-strength * cost)`.

    The gradient of the cost is taken at the denoised plan (`jdp.diffusion.guidance.value_guided`).

    Args:
        strength: 0 steers nothing.
        steps: of Newton's method at each noise level, for a cost that is curved where plans are; 0: one plain
            gradient step, cheap, and enough for a weak pull.
        covariance: "jacobian" moves along what the denoiser still holds for possible, by a pass backward
            through it: from one mode to another, where "isotropic" bends the plan of either
            (`tracking_cost`).
    """
    settings = (("cost", cost), ("covariance", covariance), ("steps", steps), ("strength", strength))
    return Bound(_cost_guide, settings)


def _cost_guide(
    context: Context, *, cost: Cost, strength: float, steps: int, covariance: Covariance
) -> Callable[[Denoiser], Denoiser]:
    value = bind(_value, context.scale, context.observation, cost=cost)
    return pulled(value, context, strength, steps, covariance)


def pulled(
    value: Value, context: Context, strength: float, steps: int, covariance: Covariance = "isotropic"
) -> Callable[[Denoiser], Denoiser]:
    """To plans of a high `value`; `strength`, `steps` and `covariance` are those of `cost_guide`."""
    if not strength:
        return lambda denoiser: denoiser
    solver = {"steps": max(steps, 1), "solver_steps": min(steps, 1), "sigma_data": context.scale.sigma_data}
    return lambda denoiser: value_guided(denoiser, value, strength, covariance=covariance, **solver)


def optimise_guide(
    cost: Cost, *, rate: float = 0.1, iterations: int = 5, radius: float = 1.0, latest: float = 1.0
) -> Guide:
    """The guide that moves the noised plan itself until its clean point costs less (arXiv 2412.02261).

    The settings are those of `jdp.diffusion.guidance.optimised`, in the coordinates that are drawn.
    """
    settings = {"iterations": iterations, "latest": latest, "radius": radius, "rate": rate}
    return Bound(_optimise_guide, (("cost", cost), *settings.items()))


def _optimise_guide(context: Context, *, cost: Cost, **settings: float) -> Callable[[Denoiser], Denoiser]:
    own = bind(_cost, context.scale, context.observation, cost=cost)
    return lambda denoiser: optimised(denoiser, own, **settings)  # type: ignore[arg-type]


def _cost(scale: Coordinates, present: Array, x0: Array, *, cost: Cost) -> Array:
    found = cost(*scale.rows(x0, present))
    if found.shape != x0.shape[:1]:
        rows = x0.shape[0]
        raise UserError(f"the cost of {rows} plans has the shape {found.shape}: give one number a plan, [B]")
    return found


def _value(scale: Coordinates, present: Array, x: Array, sigma: Array, *, cost: Cost) -> Array:
    del sigma  # the gradient is taken at clean plans
    return -_cost(scale, present, x, cost=cost)


def logic_guide(
    formula: Formula,
    strength: float = 1.0,
    *,
    margin: float = 0.0,
    tau: float = 100.0,
    stride: int = 1,
    covariance: Covariance = "jacobian",
    steps: int = 0,
) -> Guide:
    """The guide to plans that keep `formula` (`jdp.diffusion.guidance.logic`): see `logic_guided`.

    The formula is judged from the present on; with `make(..., history=H)` from the oldest of the last H
    observations on, so that what was visited before this plan was made counts (its actions are told as 0).

    Args:
        strength: in one over the units of the formula; 0 steers nothing.
        margin: the robustness that is asked for, in the units of the formula.
        tau: of the smooth robustness.
        stride: steps between two rows of a plan: the settings of the planner say it.
        covariance: "jacobian" moves whole plans, "isotropic" rows, at half of the price.
        steps: as those of `cost_guide`.
    """
    settings = {
        "formula": formula,
        "strength": strength,
        "margin": margin,
        "tau": tau,
        "stride": stride,
        "covariance": covariance,
        "steps": steps,
    }
    return Bound(_logic_guide, tuple(sorted(settings.items())))


def _logic_guide(
    context: Context, *, formula: Formula, strength: float, stride: int, **settings: Any
) -> Callable[[Denoiser], Denoiser]:
    if not strength:
        return lambda denoiser: denoiser
    rows = bind(_rows_from, context.scale, context.history, stride=stride)
    settings |= {"stride": stride, "sigma_data": context.scale.sigma_data}
    return lambda denoiser: logic_guided(denoiser, formula, strength, rows, **settings)


def _rows_from(scale: Coordinates, history: Array, x: Array, *, stride: int) -> tuple[Array, Array]:
    """The rows of `x` behind those of the history `[B, H, O]` that lie whole rows before the present."""
    observation, action = scale.rows(x, history[:, -1])
    past = (
        history[:, history.shape[1] - 1 - stride :: -stride][:, ::-1] if history.shape[1] > stride else None
    )
    if past is None or observation.shape[1] == 1:  # a policy draws actions, and no states
        return observation, action
    if action.shape[1]:
        before = jnp.zeros((action.shape[0], past.shape[1], action.shape[2]), action.dtype)
        action = jnp.concatenate([before, action], axis=1)
    return jnp.concatenate([past, observation], axis=1), action
