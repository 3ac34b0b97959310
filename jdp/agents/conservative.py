"""The conservative term of CQL (arXiv 2006.04779), which COMBO shares: a soft maximum of Q over actions."""

import math

import jax
import jax.numpy as jnp
from jax import Array

from jdp.agents.sac import Actor
from jdp.errors import check_settings
from jdp.types import Network, Params, TanhNormal, Transition, named_keys


def check_conservative(config) -> None:
    """Checks the settings of the conservative term, which COMBO shares."""
    check_settings(
        type(config).__name__,
        conservative_weight=(config.conservative_weight, 0, 1e9),
        temperature=(config.temperature, 1e-6, 1e6),
        actions=(config.actions, 1, 1000),
    )


def _draws(policy: TanhNormal, key: Array, count: int) -> tuple[Array, Array]:
    """`count` draws `[count, B, A]` of a policy `[B]`, and their log densities `[count, B]`."""
    many = jax.tree.map(lambda x: jnp.broadcast_to(x, (count, *x.shape)), policy)
    return many.sample_and_log_prob(key)


def soft_maximum(
    params: Params,
    critic: Network,
    key: Array,
    batch: Transition,
    actor: Actor,
    *,
    actions: int,
    temperature: float,
) -> Array:
    """`[N, B]`, `T log sum_k exp((Q(s, a_k) - log p(a_k)) / T)`: every critic's soft maximum at `s`.

    `a_k` are `actions` draws each from the box, from pi(s) and from pi(s'), all of them evaluated at `s`.
    As in the authors' code the sum is no mean: that would change it by a constant.
    Gradients flow into Q at all the draws, which is what pushes them down.
    """
    keys = named_keys(key, "uniform", "here", "next")
    uniform = jax.random.uniform(keys["uniform"], (actions, *batch.action.shape), minval=-1.0)
    flat = jnp.full(uniform.shape[:-1], -math.log(2) * batch.action.shape[-1])  # density 1/2 a dimension
    here, here_log_prob = _draws(actor(batch.observation), keys["here"], actions)
    after, after_log_prob = _draws(actor(batch.next_observation), keys["next"], actions)
    action = jnp.concatenate([uniform, here, after])  # [3 n, B, A]
    log_prob = jnp.concatenate([flat, here_log_prob, after_log_prob])
    observation = jnp.broadcast_to(batch.observation, (len(action), *batch.observation.shape))
    q = critic.apply(params, observation, action)  # [N, 3 n, B]
    return temperature * jax.nn.logsumexp((q - log_prob[None]) / temperature, axis=1)
