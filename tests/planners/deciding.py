"""Decisions of planners, one at a time."""

import jax
import jax.numpy as jnp

from jdp.data import SegmentRows


def first_plan(method, key, state, observation, goal):
    """The plan of the first step of episodes that begin at `observation`."""
    observation = jnp.asarray(observation)
    carry = method.policy.init(observation)
    return jax.jit(method.policy.act)(key, state, carry, observation, jnp.asarray(goal))[1].plan


def due(carry):
    """The carry of a step at which all plan anew."""
    return carry._replace(elapsed=jnp.full_like(carry.elapsed, 1 << 20))


def row_shapes(spec, length=400):
    """Shapes of rows that a planner learns from."""
    number, count = (jax.ShapeDtypeStruct((length,), kind) for kind in (jnp.float32, jnp.int32))
    dims = spec.observation_dim, spec.action_dim
    return SegmentRows(
        *(jax.ShapeDtypeStruct((length, n), jnp.float32) for n in dims), *[number] * 3, *[count] * 3
    )
