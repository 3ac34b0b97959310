"""How much generated actions look like those of the target policy."""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from jdp.evaluation.statistics import Interval, interval
from jdp.types import ActionDistribution, Normal, PyTree


class Likelihood(NamedTuple):
    """Log densities of actions under a policy."""

    per_transition: np.ndarray  # [N, ...], log densities, nats; NaN where not valid
    summary: Interval  # mean over the N rows, with an interval over them


def action_log_likelihood(
    act: Callable[[PyTree, Array], ActionDistribution],
    state: PyTree,
    observations: ArrayLike,
    actions: ArrayLike,
    *,
    std: float = 1.0,
    valid: ArrayLike | None = None,
) -> Likelihood:
    """Log density of `actions` `[N, ..., A]` under the policy at `observations` `[N, ..., O]`.

    A deterministic actor (std zero) has no density: a Gaussian of standard deviation `std` in action
    space, not truncated to [-1, 1], stands for it, with 1 as in policy-guided diffusion (arXiv
    2404.06356, section 5.2). For such an actor the result is
    `-|a - pi(s)|^2 / (2 std^2) - A log(std sqrt(2 pi))`, which no policy can lift above its second
    term: compare values of equal `std` only.

    Args:
        act: of an agent; `state` is its state (of one seed, not stacked).
        valid: `[N, ...]`, False for transitions that do not count; None counts all.

    Rows (trajectories) are the unit of the interval, since transitions of one are not independent.
    """
    observations, actions = jnp.asarray(observations), jnp.asarray(actions)
    policy = act(state, observations)
    spread = jnp.where(policy.std > 0, policy.std, jnp.asarray(std, policy.std.dtype))
    log_prob = np.asarray(Normal(policy.mean, spread).log_prob(actions), np.float64)
    counts = np.ones(log_prob.shape, bool) if valid is None else np.asarray(valid, bool)
    log_prob = np.where(counts, log_prob, np.nan)
    rows, weights = log_prob.reshape(len(log_prob), -1), counts.reshape(len(log_prob), -1).sum(axis=1)
    means = np.nansum(rows, axis=1)[weights > 0] / weights[weights > 0]
    return Likelihood(log_prob, interval(means))
