"""Warm starts: they follow what drifts, lose what jumps, begin episodes cold, and flip discrete entries."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from policy_batches import GOALS, TINY, segments

from jdp import UserError
from jdp.data.normalise import Affine
from jdp.diffusion.exact import gaussian
from jdp.finetune.base import drawn
from jdp.learning.averaged import Averaged
from jdp.policies import actions, chunks, cost_guide, make, rti
from jdp.policies.chunks import Chunks, CloneState
from jdp.policies.diffusion_policy import DiffusionPolicyConfig
from jdp.policies.rti import RTIConfig, warm
from jdp.types import Spec, bind

STD, APART, ROWS = 0.1, 1.0, 500
BLANK = CloneState(Averaged(*[None] * 4), Affine(jnp.zeros(1), jnp.ones(1)))


def _two_modes(centre, x, sigma):
    """Chunks whose actions are all about `centre` `[B, 1]`, plus or minus 1, with std .1."""
    total, aside = STD**2 + jnp.square(sigma)[:, None], x - centre
    side = jnp.tanh(jnp.sum(APART * aside / total, axis=1, keepdims=True))
    return centre + (STD**2 * aside + jnp.square(sigma)[:, None] * side * APART) / total


def modes(params, seen):
    del params
    return bind(_two_modes, seen)


def exact(steps, modes=modes):
    """A policy of chunks of 4 actions about what it observes."""
    config = DiffusionPolicyConfig(
        chunk=4, execute=1, sampler="euler", sampling_steps=steps, sigma_min=0.02, sigma_max=80.0
    )
    return Chunks(modes, config, Spec(1, 1)).policy(chunks.act)


@partial(jax.jit, static_argnums=0)
def played(policy, centres):
    """`[T, ROWS]` actions where all rows observe `centres` `[T]`."""
    none = jnp.zeros((ROWS, 0))

    def tick(carry, item):
        key, centre = item
        carry, decision = policy.act(key, BLANK, carry, jnp.full((ROWS, 1), centre), none)
        return carry, decision.action[:, 0]

    keys = jax.random.split(jax.random.key(0), len(centres))
    return jax.lax.scan(tick, policy.init(jnp.full((ROWS, 1), centres[0])), (keys, centres))[1]


def off(actions, centres):
    """The share of actions that are more than .35 from a mode."""
    return (np.abs(np.abs(actions - centres[:, None]) - APART) > 0.35).mean()


DRIFT = 0.5 * jnp.sin(2 * jnp.pi * jnp.arange(60.0) / 60)


def test_a_warm_start_follows_what_drifts_where_as_few_steps_from_noise_are_useless():
    """And no row changes its mode: every tick of a cold start, half of them do."""
    for levels in (2, 3):
        found = np.asarray(played(warm(exact(10), levels), DRIFT))
        assert off(found, DRIFT) < 0.01
        sides = np.sign(found - DRIFT[:, None])
        np.testing.assert_array_equal(sides, sides[:1].repeat(60, 0))
    found = np.asarray(played(exact(3), DRIFT))
    assert off(found, DRIFT) > 0.5
    sides = np.sign(found - DRIFT[:, None])
    assert 0.4 < (sides[1:] != sides[:-1]).mean() < 0.6


def test_what_jumps_is_lost_by_a_warm_start_at_too_low_a_level():
    """By .7, seven standard deviations: from .02 it is still lost ten ticks later, from .24 found at once."""
    jump = jnp.where(jnp.arange(60.0) < 10, 0.0, 0.7)
    low, high = (np.asarray(played(warm(exact(10), levels), jump)) for levels in (1, 3))
    assert off(low[:10], jump[:10]) < 0.01 and off(high, jump) < 0.01
    assert off(low[10:20], jump[10:20]) > 0.99


def about_nothing(params, seen):
    """Actions of mean 0 and std .1, whatever is observed."""
    del params, seen
    return gaussian(0.0, STD)


def test_what_begins_without_noise_settles_in_the_middle():
    """By `s^2 / (s^2 + sigma^2)` a decision, from the level sigma that it takes what it has to stand at.

    The limit that a warm start pays with: a mode keeps its place, and loses its spread.
    """
    level, found = 0.02, np.asarray(played(warm(exact(10, about_nothing), 1), jnp.zeros(60)))
    kept = (STD**2 / (STD**2 + level**2)) ** np.arange(1, 57)
    np.testing.assert_allclose(found[4:], found[3] * kept[:, None], rtol=1e-3, atol=1e-6)
    assert np.std(found[0]) > 5 * np.std(found[-1])


def _itself(x, sigma):
    del sigma
    return x


def nothing_new(params, seen):
    del params, seen
    return bind(_itself)


def test_a_chunk_is_shifted_and_its_last_action_repeated():
    """A denoiser that changes nothing hands the first chunk down."""
    policy = warm(exact(3, nothing_new), 2, shift=3)
    found = np.asarray(played(policy, jnp.zeros(9)))
    assert len(np.unique(found[:4], axis=0)) == 4
    np.testing.assert_array_equal(found[3:], found[3:4].repeat(6, 0))


def test_an_episode_begins_with_the_full_sampler_row_by_row():
    """A row that is reset draws as the policy itself does, by 10 calls; the others go on by 2."""
    calls = []

    def counted(params, seen):
        inner = modes(params, seen)

        def denoise(x, sigma):
            jax.debug.callback(lambda: calls.append(1))
            return inner(x, sigma)

        return denoise

    own, here, none = exact(10, counted), jnp.zeros((3, 1)), jnp.zeros((3, 0))
    policy, spent = warm(own, 2), []
    act, cold = jax.jit(policy.act), jax.jit(own.act)

    def stepped(key, carry):
        calls.clear()
        carry, decision = act(jax.random.key(key), BLANK, carry, here, none)
        jax.effects_barrier()
        spent.append(len(calls))
        assert decision.decided.all()
        return carry, np.asarray(decision.action)

    carry, first = stepped(0, policy.init(here))
    np.testing.assert_allclose(first, cold(jax.random.key(0), BLANK, own.init(here), here, none)[1].action)
    carry, _ = stepped(1, carry)
    again = jax.tree.map(lambda old, new: old.at[1].set(new[1]), carry, policy.init(here))
    (_, on), (_, reset) = stepped(2, carry), stepped(2, again)
    fresh = np.asarray(cold(jax.random.key(2), BLANK, own.init(here), here, none)[1].action)
    np.testing.assert_allclose(reset, np.where(np.array([[0], [1], [0]]), fresh, on), atol=1e-6)
    assert spent == [10, 2, 2, 12] and act._cache_size() == 1


def _told(seen, scale, x, sigma):
    """Entries that are 1 or -1, times `scale`; what is seen says by odds of e^4 which."""
    return scale * jnp.tanh(scale * x / jnp.square(sigma)[:, None] + 2 * jnp.sign(seen))


@pytest.mark.parametrize("discrete", [(), (0,)])
def test_a_warm_start_flips_an_entry_that_is_learned_small(monkeypatch, discrete):
    """At .2 the difference of 2 is ten standard deviations of noise, that of .2 is one."""
    scale = jnp.asarray(0.1 if discrete else 1.0)
    monkeypatch.setattr(actions, "denoiser", lambda params, seen, config: bind(_told, seen, scale))
    config = RTIConfig(chunk=3, levels=3, sampler="euler", sigma_max=8.0, discrete=discrete)
    policy = rti.rti(config, Spec(1, 1)).policy
    found = np.asarray(played(policy, jnp.where(jnp.arange(12.0) < 6, 1.0, -1.0)))
    assert (np.abs(found) > 0.8).mean() > 0.9 and (found[:6] > 0).mean() > 0.95
    assert (found[7:] < 0).mean() > 0.95 if discrete else (found[7:] > 0).mean() > 0.9


def test_discrete_entries_are_learned_a_tenth_as_large():
    config, batch = RTIConfig(discrete=(1,)), segments(0)
    _, learned = rti._update(
        jax.random.key(0), None, batch, update=lambda _, s, b: (s, b), config=config, spec=Spec(3, 2)
    )
    np.testing.assert_allclose(learned.action, batch.action * np.array([1.0, 0.1]), rtol=1e-6)
    np.testing.assert_array_equal(learned.observation, batch.observation)


def test_what_cannot_begin_warm_is_refused():
    with pytest.raises(UserError, match="a warm start goes on from chunks"):
        warm(make(TINY["idql"], GOALS).policy, 2)
    with pytest.raises(UserError, match="a warm start goes on from chunks"):
        warm(make(TINY["rti"], GOALS).policy, 2)
    for levels, shift in ((0, 1), (11, 1), (2, 0), (2, 5)):
        with pytest.raises(UserError, match="warm start"):
            warm(exact(10), levels, shift)
    with pytest.raises(UserError, match=r"RTIConfig\.discrete is 2"):
        make(RTIConfig(discrete=(2,)), GOALS)
    with pytest.raises(UserError, match="no guide knows them"):
        make(RTIConfig(discrete=(1,)), GOALS, guide=cost_guide(lambda o, a: a.sum((1, 2))))
    with pytest.raises(UserError, match="discrete entries scaled"):
        drawn(jax.random.key(0), None, jnp.zeros((1, 3)), jnp.zeros((1, 2)), RTIConfig(discrete=(1,)), GOALS)
    assert warm(exact(10), 2) == warm(exact(10), 2)
    assert isinstance(warm(make(TINY["beso"], GOALS).policy, 2).act, type(exact(10).act))
