"""What goes on from the last chunk is a policy like any other: exported, and for many seeds at once."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from policy_batches import GOALS, programs, shaken

from jdp.loops.controller import seeded
from jdp.policies.real_time import real_time
from jdp.policies.rti import warm
from jdp.runs.export import export_policy, read_export

KINDS = ("warm", "real_time", "streaming")
STEPS = 4


def made(kind):
    """A policy and the state of some weights of it."""
    method, state, *_ = programs("streaming" if kind == "streaming" else "diffusion_policy")
    wrap = {"warm": lambda p: warm(p, 2), "real_time": lambda p: real_time(p, 1), "streaming": lambda p: p}
    state = state._replace(actor=state.actor._replace(ema=shaken(state.actor.ema, scale=0.1)))
    return wrap[kind](method.policy), state


def seen(rows):
    """Observations `[STEPS, rows, 3]` and goals."""
    rng = np.random.default_rng(rows)
    return rng.normal(size=(STEPS, rows, 3)).astype(np.float32), np.ones((rows, 2), np.float32)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_it_acts_out_of_a_file_for_any_number_of_environments(kind, tmp_path):
    policy, state = made(kind)
    export_policy(tmp_path / "policy", policy, state, GOALS, platforms=("cpu",))
    exported, act = read_export(tmp_path / "policy"), jax.jit(policy.act)
    for rows in (1, 3):
        observations, goal = seen(rows)
        carry, own = exported.start(observations[0]), policy.init(observations[0])
        for step, now in enumerate(observations):
            key = jax.random.key(step)
            carry, action = exported.act(jax.random.key_data(key), carry, now, goal)
            own, decision = act(key, state, own, now, goal)
            np.testing.assert_allclose(action, decision.action, atol=1e-5)


def test_seeds_that_are_played_together_act_as_each_alone():
    """Under `vmap` both the first draw and the following ones are computed; each row takes its own."""
    policy, state = made("warm")
    both = seeded(policy)
    observations, goal = seen(4)
    observations, goals = observations.reshape(STEPS, 2, 2, 3), goal.reshape(2, 2, 2)
    states = jax.tree.map(lambda x: jnp.stack([x, 1.1 * x if x.dtype == jnp.float32 else x]), state)
    together, act = jax.jit(both.act), jax.jit(policy.act)
    carry = both.init(observations[0])
    alone = [policy.init(observations[0, s]) for s in range(2)]
    for step, now in enumerate(observations):
        carry, decision = together(jax.random.key(step), states, carry, now, goals)
        for s, key in enumerate(jax.random.split(jax.random.key(step), 2)):
            one = jax.tree.map(lambda x, s=s: x[s], states)
            alone[s], found = act(key, one, alone[s], now[s], goals[s])
            np.testing.assert_allclose(decision.action[s], found.action, atol=1e-4)
