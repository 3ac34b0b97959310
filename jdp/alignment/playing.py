"""A reward beside alignment: as a guide at test time, and as the judge of what was done in closed loop."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jdp.alignment.models import Reward
from jdp.errors import UserError
from jdp.learning.guides import pulled
from jdp.types import Bound, Context, Coordinates, Denoiser, Guide, Spec, bind

ARRIVED = 0.5  # from the goal, in the units of the task; what is done there is no longer on the way
ROWS = 256  # of an episode that are judged


def reward_guide(reward: Callable[..., Array], strength: float, *, steps: int = 0) -> Guide:
    """The guide of any planner to plans of high `reward`, a function of plans: the tilt `p exp(strength r)`.

    So a model that is aligned with `kl_weight = 1 / strength` seeks the same plans.

    Args:
        steps: as those of `jdp.learning.guides.cost_guide`.

    Raises:
        UserError: if the reward holds arrays, as that of a critic does.
    """
    if isinstance(reward, jax.tree_util.Partial):
        raise UserError("a guide must be hashable, and this reward holds arrays: it can be aligned to only")
    return Bound(_reward_guide, (("reward", reward), ("steps", steps), ("strength", strength)))


def _reward_guide(
    context: Context, *, reward: Callable[..., Array], strength: float, steps: int
) -> Callable[[Denoiser], Denoiser]:
    value = bind(_value, context.scale, context.observation, context.goal, reward=reward)
    return pulled(value, context, strength, steps)


def _value(
    scale: Coordinates, present: Array, goal: Array, x: Array, sigma: Array, *, reward: Callable[..., Array]
) -> Array:
    del sigma  # the gradient is taken at clean plans
    return reward(*scale.rows(x, present), goal)


def executed(
    reward: Reward, observation: np.ndarray, lengths: np.ndarray, goal: np.ndarray, spec: Spec
) -> np.ndarray:
    """`[n]`, the reward of what was done: each episode, on tasks with goals until it first arrives.

    Args:
        reward: of plans; it is shown `ROWS` observations, evenly over what was done, and no actions.
        observation: `[T + 1, n, O]`, what was seen.
        lengths: `[n]`, steps.
        goal: `[n, G]`.
    """
    seen = []
    for i, length in enumerate(lengths):
        rows = observation[: length + 1, i]
        if spec.goal:
            away = np.linalg.norm(rows[:, list(spec.goal)] - goal[i], axis=-1)
            near = np.flatnonzero(away <= ARRIVED)
            rows = rows[: near[0] + 1] if len(near) else rows
        seen.append(rows[np.linspace(0, len(rows) - 1, ROWS).round().astype(int)])
    none = jnp.zeros((len(seen), 0, spec.action_dim))
    return np.asarray(reward(jnp.asarray(np.stack(seen)), none, jnp.asarray(goal)))  # type: ignore[call-arg]
