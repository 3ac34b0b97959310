"""Signal temporal logic over plans, in the units of the task (pSTL diffusion, arXiv 2503.02924).

A formula is written in Python, and says how well a plan keeps it (its robustness: above 0 it does):

    rule = always(outside(disc((0.0, 0.0), 0.3))) & eventually(inside(disc((0.0, 0.6), 0.2)))
    robustness(rule, observation)  # [B], of observations [B, T, O]; tau=100 for the smooth one

Formulas are pytrees whose numbers (centres, radii, limits) are leaves: as arguments of a compiled program
they may change, and nothing compiles again. Of Python's numbers they are hashable too, as guides must be.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array
from jax.tree_util import Partial

from jdp.diffusion.guidance.formulas import (
    Formula,
    Predicate,
    Seen,
    Signal,
    always,
    eventually,
    implies,
    robustness,
    slack,
    until,
)
from jdp.diffusion.guidance.policy import Covariance
from jdp.diffusion.guidance.predicates import (
    Region,
    above,
    below,
    box,
    disc,
    effort,
    entry,
    half_plane,
    inside,
    outside,
    predicate,
    speed,
)
from jdp.diffusion.guidance.value import value_guided
from jdp.types import Denoiser, bind

__all__ = [
    "Formula",
    "Predicate",
    "Region",
    "Rows",
    "Seen",
    "Signal",
    "above",
    "always",
    "below",
    "box",
    "disc",
    "effort",
    "entry",
    "eventually",
    "half_plane",
    "implies",
    "inside",
    "logic_guided",
    "outside",
    "predicate",
    "robustness",
    "slack",
    "speed",
    "until",
]

Rows = Callable[[Array], tuple[Array, Array]]  # x [B, T, D] -> observations and actions; a pytree


def _broken(
    formula: Formula, rows: Rows, margin: Array, tau: Array, x: Array, sigma: Array, *, stride: int
) -> Array:
    del sigma  # the gradient is taken at clean plans
    observation, action = rows(x)
    if observation.shape[1] > 1:  # the high level of a hierarchy: its actions are those of all steps
        stride *= max(action.shape[1] // observation.shape[1], 1)
    found = robustness(formula, observation, action, tau=tau, stride=stride)
    return -jax.nn.relu(margin - found)


def _themselves(x: Array) -> tuple[Array, Array]:
    return x, x[:, :0, :0]


def logic_guided(
    denoiser: Denoiser,
    formula: Formula,
    strength: Array | float = 1.0,
    rows: Rows | None = None,
    *,
    margin: Array | float = 0.0,
    tau: Array | float = 100.0,
    stride: int = 1,
    covariance: Covariance = "jacobian",
    steps: int = 0,
    sigma_data: float = 1.0,
) -> Partial:
    """Denoiser of `p(x0) exp(-strength relu(margin - robustness))` (arXiv 2503.02924), by `value_guided`.

    The paper descends the same cost at the mean of a DDPM step: three steps of Adam, the change clipped. Here
    its gradient at the denoised plan is taken through the covariance of what is not known yet, so the rows
    beside the one that breaks the rule move with it, and the plan stays as smooth as the data's.

    Args:
        formula: its numbers, and all of these but the last four, may change without a new program.
        strength: `[]` or `[B]`, in one over the units of the task; 0 leaves the denoiser as it is.
        rows: of `x` `[B, T, D]` in the units of the task; None: `x` are observations.
        margin: the robustness that is asked for, in the units of the formula.
        tau: of the smooth robustness.
        stride: steps from one row to the next.
        covariance: "jacobian", one backward pass of the denoiser for each call; "isotropic", none, and rows
            move one by one.
        steps: of Newton's method; 0: one plain gradient step.
        sigma_data: standard deviation of the normalised data.
    """
    numbers = (jnp.asarray(x, jnp.float32) for x in (margin, tau))
    value = bind(_broken, formula, bind(_themselves) if rows is None else rows, *numbers, stride=stride)
    solver = {"steps": max(steps, 1), "solver_steps": min(steps, 1), "sigma_data": sigma_data}
    return value_guided(denoiser, value, strength, covariance=covariance, **solver)
