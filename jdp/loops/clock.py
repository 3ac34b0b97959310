"""Real time: a policy that is slower than its task acts late, while the state moves on.

A task that ticks `hz` times a second waits for nobody. A decision that takes `s` seconds is at hand `s hz`
ticks after what was seen; one that is ready within its tick acts in that tick, as all simulators have it.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jdp.errors import UserError
from jdp.types import Bound, Decision, Policy, PyTree, where_rows


class LateCarry(NamedTuple):
    """What B environments remember of a policy that decides late."""

    own: PyTree  # of the policy
    left: Array  # [B] int32, ticks until what was decided acts; 0: nothing is waited for
    coming: Array  # [B, A], what then acts
    held: Array  # [B, A], what acts until then: the last action, and before the first one the middle, 0


def ticks_late(seconds: float, hz: float) -> int:
    """Whole ticks that pass while a decision of `seconds` is made, in a task of `hz` ticks a second.

    Raises:
        UserError: unless `hz` is above 0.
    """
    if not hz > 0:
        raise UserError(f"a task ticks {hz} times a second: it must be above 0")
    return int(seconds * hz)


def late(policy: Policy, delay: int, action_dim: int) -> Policy:
    """`policy` whose decisions act `delay` ticks after what they saw; 0 gives `policy` itself.

    Only steps that draw anew (`Decision.decided`) take time; those that follow a chunk or a plan do not.
    While a row waits, the policy sees nothing of it, and its last action is held: there is one computer,
    which makes one decision at a time. `Decision.decided` is True where a decision begins.

    Args:
        action_dim: A.

    Raises:
        UserError: if `delay` is below 0.
    """
    if delay < 0:
        raise UserError(f"a policy cannot act {-delay} ticks early: the delay must be at least 0")
    if delay == 0:
        return policy
    settings = (("policy", policy), ("delay", delay))
    return Policy(Bound(_init, (("policy", policy), ("dim", action_dim))), Bound(_act, settings))


def _init(observation: Array, *, policy: Policy, dim: int) -> LateCarry:
    batch = observation.shape[0]
    nothing = jnp.zeros((batch, dim))
    return LateCarry(policy.init(observation), jnp.zeros(batch, jnp.int32), nothing, nothing)


def _act(
    key: Array,
    state: PyTree,
    carry: LateCarry,
    observation: Array,
    goal: Array,
    *,
    policy: Policy,
    delay: int,
) -> tuple[LateCarry, Decision]:
    free = carry.left == 0

    def ask() -> tuple[PyTree, Decision]:
        return policy.act(key, state, carry.own, observation, goal)

    def wait() -> tuple[PyTree, Decision]:
        shape = jax.eval_shape(ask)[1]
        return carry.own, jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shape)

    own, said = jax.lax.cond(jnp.any(free), ask, wait)
    own = where_rows(free, own, carry.own)
    begun = free & said.decided
    left = jnp.where(begun, delay, jnp.maximum(carry.left - 1, 0))
    coming = jnp.where(begun[:, None], said.action, carry.coming)
    # What follows a chunk acts at once, what was waited for acts when its time has come.
    now = jnp.where(free[:, None], said.action, carry.coming)
    action = jnp.where((left == 0)[:, None], now, carry.held)
    return LateCarry(own, left, coming, action), said._replace(action=action, decided=begun)
