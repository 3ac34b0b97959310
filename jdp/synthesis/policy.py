"""The target policy, as guidance sees it: in the coordinates of normalised trajectories."""

import jax
import jax.numpy as jnp
from jax import Array
from jax.tree_util import Partial

from jdp.data import Normaliser
from jdp.devices.mesh import spread_rows
from jdp.types import ActionDistribution, Normal, PyTree, TanhNormal, Target, bind

WIDEST_MEAN = 0.9  # where the slope of arctanh is taken no further, for the std of a stochastic actor


def _per_agent(target: Target, states: PyTree, observation: Array) -> ActionDistribution:
    """Blocks of rows `[S * B, ...]`, each to its own agent of the S stacked in `states`."""
    agents = jax.tree.leaves(states)[0].shape[0]
    blocks = observation.reshape((agents, -1, *observation.shape[1:]))
    found = jax.vmap(target)(states, spread_rows(blocks, 1))
    return jax.tree.map(lambda leaf: leaf[:, : blocks.shape[1]].reshape((-1, *leaf.shape[2:])), found)


def _target_policy(
    states: PyTree, normaliser: Normaliser, policy_std: Array, observation: Array, *, target: Target
):
    policy = _per_agent(target, states, normaliser.observation(observation))
    mean = normaliser.encode_action(policy.mean)
    # First order in the std: d arctanh(a) = da / (1 - a^2). A squashed Gaussian is one before its tanh.
    slope = 1 / (1 - jnp.square(jnp.clip(policy.mean, -WIDEST_MEAN, WIDEST_MEAN)))
    spread = policy.scale if isinstance(policy, TanhNormal) else policy.std * slope
    scale = normaliser.std[normaliser.observation_dim : normaliser.observation_dim + normaliser.action_dim]
    std = spread / scale.reshape((1,) * (mean.ndim - 1) + (-1,))
    return Normal(mean, jnp.where(spread > 0, std, policy_std))


def target_policy(
    target: Target,
    states: PyTree,
    normaliser: Normaliser,
    policy_std: float = 1.0,
) -> Partial:
    """`target` of S agents as the Gaussian that `policy_guided` takes, in standardised pre-tanh units.

    Args:
        target: of a method.
        states: of S agents, stacked: every leaf is `[S, ...]`. Trajectories `[S * B, T, D]` are then S
            equal blocks, each guided by its own agent.
        policy_std: stands for the standard deviation of a deterministic actor, in units of the
            dataset's own (pre-tanh) actions; 1 is as wide as the data.

    The mean is `arctanh(clip(mu, -0.999, 0.999))`, standardised: a saturated actor asks for an action
    near the edge, not for infinity. The std of a Gaussian over actions is carried over to first order; a
    squashed Gaussian is Gaussian there, so its own is exact.
    """
    return bind(_target_policy, states, normaliser, jnp.float32(policy_std), target=target)


def _target_log_prob(states, normaliser, policy_std, observation, action, *, target):
    policy = _per_agent(target, states, normaliser.observation(observation))
    std = jnp.where(policy.std > 0, policy.std, policy_std)
    return Normal(policy.mean, std).log_prob(normaliser.decode_action(action))


def target_log_prob(
    target: Target,
    states: PyTree,
    normaliser: Normaliser,
    policy_std: float = 1.0,
) -> Partial:
    """Log density in ACTION space of normalised actions, for `reference_guided`.

    `N(mu(s), policy_std)` of a deterministic actor; no Jacobian of tanh, as in the paper's public code.
    """
    return bind(_target_log_prob, states, normaliser, jnp.float32(policy_std), target=target)
