"""Chunks that are drawn while the last one is executed: seams, delay, and what they are without."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from policy_batches import GOALS, TINY

from jdp import UserError
from jdp.data.normalise import Affine
from jdp.diffusion import exact
from jdp.learning.averaged import Averaged
from jdp.policies import chunks, make
from jdp.policies.chunks import Chunks, CloneState
from jdp.policies.diffusion_policy import DiffusionPolicyConfig
from jdp.policies.real_time import real_time
from jdp.types import Spec, bind

ROWS, T, EXECUTE, DELAY, STD = 256, 8, 4, 2, 0.2
AR = STD**2 * 0.9 ** np.abs(np.subtract.outer(np.arange(T), np.arange(T)))
BLANK = CloneState(Averaged(*[None] * 4), Affine(jnp.zeros(1), jnp.ones(1)))


def autoregressive(params, seen):
    """Chunks of an AR(1) of correlation .9, whatever is observed."""
    del params, seen
    return exact.correlated_gaussian(jnp.zeros(T), jnp.asarray(AR))


def exactly(denoiser=autoregressive, **settings):
    config = DiffusionPolicyConfig(chunk=T, execute=EXECUTE, sigma_data=STD, **settings)
    return Chunks(denoiser, config, Spec(1, 1)).policy(chunks.act)


@partial(jax.jit, static_argnums=(0, 1))
def played(policy, steps):
    """`(actions, decided)` `[steps, ROWS]` of a policy that observes the number of the step."""
    none = jnp.zeros((ROWS, 0))

    def tick(carry, item):
        key, step = item
        carry, decision = policy.act(key, BLANK, carry, jnp.full((ROWS, 1), step), none)
        return carry, (decision.action[:, 0], decision.decided)

    items = jax.random.split(jax.random.key(0), steps), jnp.arange(float(steps))
    return jax.lax.scan(tick, policy.init(jnp.zeros((ROWS, 1))), items)[1]


def jumps(policy):
    """The rms change from action to action, in std: over the seams, and elsewhere (.45 of an AR(1))."""
    found = np.asarray(played(policy, 40)[0])[EXECUTE:] / STD
    change = np.square(np.diff(found, axis=0))
    seam = np.arange(len(change)) % EXECUTE == (DELAY - 1) % EXECUTE
    return np.sqrt(change[seam].mean()), np.sqrt(change[~seam].mean())


def test_seams_are_smoother_than_those_of_plain_asynchronous_chunks():
    """Those jump as two independent draws do; flows and EDM; the exact posterior hides its seams."""
    seam, inside = jumps(real_time(exactly(), DELAY, overlap=0))
    assert seam > 1.3 and inside < 0.5
    seam, inside = jumps(real_time(exactly(), DELAY))
    assert seam < inside < 0.5
    seam, inside = jumps(real_time(exactly(formulation="flow", sampler="euler"), DELAY))
    assert seam < inside < 0.5
    seam, inside = jumps(real_time(exactly(), DELAY, solver_steps=4))
    np.testing.assert_allclose(seam, inside, rtol=0.04)


def _of_step(seen, x, sigma):
    del sigma
    return seen / 100 + jnp.arange(x.shape[1], dtype=x.dtype)[None] / 1000


def of_step(params, seen):
    """The chunk that is drawn at step s says s / 100 + k / 1000 in its place k."""
    del params
    return bind(_of_step, seen)


def test_a_chunk_begins_to_act_after_its_delay():
    """Until then the last one goes on; the first is waited for."""
    for delay in (1, 3):
        found, decided = (np.asarray(x) for x in played(real_time(exactly(of_step), delay, overlap=0), 14))
        step = np.arange(14)
        np.testing.assert_array_equal(decided[:, 0], step % EXECUTE == 0)
        begun = np.where(step % EXECUTE >= delay, step, np.maximum(step - EXECUTE, 0)) // EXECUTE * EXECUTE
        wanted = begun / 100 + (step - begun) / 1000
        np.testing.assert_allclose(found, wanted[:, None].repeat(ROWS, 1), atol=1e-6)


def test_without_delay_and_overlap_it_is_the_policy_itself_to_the_bit():
    found, plain = (np.asarray(played(p, 9)[0]) for p in (real_time(exactly(), 0, overlap=0), exactly()))
    np.testing.assert_array_equal(found, plain)


def test_delays_that_cannot_be_and_policies_without_chunks_are_refused():
    with pytest.raises(UserError, match="real-time chunking goes on from chunks"):
        real_time(make(TINY["fql"], GOALS).policy, 1)
    with pytest.raises(
        UserError, match="of chunks of 4 actions 3 are executed, so a delay lies between 0 and 1, not 2"
    ):
        real_time(make(TINY["diffusion_policy"], GOALS).policy, 2)
    for wrong in ({"execute": 9}, {"execute": 1}, {"overlap": 5}, {"beta": -1.0}, {"solver_steps": -1}):
        with pytest.raises(UserError, match="real-time chunking"):
            real_time(exactly(), DELAY, **wrong)
    assert real_time(exactly(), 1) == real_time(exactly(), 1)
