"""A policy that is late acts late by so many ticks, decides less often, and otherwise as it would."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdp.errors import UserError
from jdp.loops.clock import late, ticks_late
from jdp.types import Decision, Policy

KEY, NO_GOAL = jax.random.key(0), jnp.zeros((2, 0))


def chunked(execute):
    """Decides chunks of what it sees, `o, o + .1, o + .2, ...`; the carry holds what is left."""

    def init(observation):
        return jnp.zeros((observation.shape[0], execute)), jnp.zeros(observation.shape[0], jnp.int32)

    def act(key, state, carry, observation, goal):
        queue, left = carry
        due = left == 0
        queue = jnp.where(
            due[:, None], observation + 0.1 * jnp.arange(execute, dtype=jnp.float32)[None], queue
        )
        left = jnp.where(due, jnp.int32(execute), left) - jnp.int32(1)
        return (jnp.roll(queue, -1, axis=1), left), Decision(queue[:, :1], due)

    return Policy(init, act)


def played(policy, ticks):
    """Actions and `decided` `[T, 2]` at observations 1 + t, and 101 + t, of two environments."""
    carry, found = policy.init(jnp.zeros((2, 1))), []
    act = jax.jit(policy.act)
    for t in range(ticks):
        observation = jnp.asarray([[1.0 + t], [101.0 + t]])
        carry, decision = act(KEY, (), carry, observation, NO_GOAL)
        found.append((decision.action[:, 0], decision.decided))
    actions, decided = zip(*found, strict=True)
    return np.stack(actions), np.stack(decided)


def reference(execute, delay, ticks):
    """One environment, told in words: at t a decision begins, acts at t + delay, then its chunk."""
    actions, t = [], 0
    while t < ticks:
        seen, held = 1 + t, actions[-1] if actions else 0.0
        actions += [held] * delay + [seen + 0.1 * i for i in range(execute)]
        t = len(actions)
    return np.asarray(actions[:ticks])


@pytest.mark.parametrize(("execute", "delay"), [(1, 1), (1, 3), (4, 1), (3, 2)])
def test_it_acts_so_many_ticks_after_what_it_saw(execute, delay):
    actions, decided = played(late(chunked(execute), delay, 1), 23)
    wanted = reference(execute, delay, 23)
    np.testing.assert_allclose(actions[:, 0], wanted, atol=1e-5)
    # The second environment's numbers are 100 more, but for the nothing that it begins with.
    np.testing.assert_allclose(actions[:, 1], np.where(wanted == 0, 0, wanted + 100), atol=1e-4)
    assert np.flatnonzero(decided[:, 0]).tolist() == list(range(0, 23, delay + execute))


def test_rows_that_are_reset_wait_for_themselves_alone():
    policy = late(chunked(1), 2, 1)
    carry = policy.init(jnp.zeros((2, 1)))
    for t in range(4):
        carry, decision = policy.act(KEY, (), carry, jnp.full((2, 1), float(t)), NO_GOAL)
    assert decision.decided.tolist() == [True, True]
    fresh = policy.init(jnp.zeros((2, 1)))
    carry = jax.tree.map(lambda x, y: x.at[0].set(y[0]), carry, fresh)
    for t, wanted in ((4, [0, 0]), (5, [0, 3]), (6, [4, 3])):
        carry, decision = policy.act(KEY, (), carry, jnp.full((2, 1), float(t)), NO_GOAL)
        assert decision.action[:, 0].tolist() == wanted


def test_without_delay_it_is_the_policy_itself():
    policy = chunked(2)
    assert late(policy, 0, 1) is policy
    assert [ticks_late(s, 50.0) for s in (0.0, 0.019, 0.021, 0.1)] == [0, 0, 1, 5]
    with pytest.raises(UserError, match="ticks early"):
        late(policy, -1, 1)
    with pytest.raises(UserError, match="above 0"):
        ticks_late(0.1, 0.0)
