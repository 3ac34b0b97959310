"""RLCM: chains of a consistency function."""

from functools import lru_cache, partial

import jax
import jax.numpy as jnp
import level_table as table
import numpy as np
import pytest

from jdp.alignment import advantages, rlcm, toy
from jdp.alignment.ddpo import DDPOConfig, ddpo
from jdp.alignment.rlcm import RLCMConfig
from jdp.alignment.toy import Mixture
from jdp.diffusion import chains, samplers, transitions
from jdp.diffusion.sampling import Sampling
from jdp.errors import UserError
from jdp.loops import train

KEY = jax.random.key(5)
NORMAL = Mixture(((1.0, -0.5),), (1.0,), 0.3)


def test_the_toys_consistency_function_is_the_flow_of_the_ode():
    sigma, mean = np.geomspace(0.01, 20.0, 64, dtype=np.float32), np.float32(NORMAL.means[0])
    noise = np.random.default_rng(0).normal(size=(64, 2)).astype(np.float32)
    x = mean + np.sqrt(sigma**2 + np.float32(NORMAL.std) ** 2)[:, None] * noise

    @jax.jit
    def run(x, sigma):
        return toy.consistency_model(Sampling(), NORMAL).denoiser(toy.given(KEY).params, x[:, :0])(x, sigma)

    np.testing.assert_allclose(run(x, sigma), mean + np.float32(NORMAL.std) * noise, atol=0.03)


def test_a_chain_of_its_steps_is_that_of_the_multistep_sampler():
    @jax.jit
    def run():
        sigmas, x = table.SAMPLING.sigmas(), jax.random.normal(KEY, (8, 2))
        f = table.MODEL.denoiser(table.PARAMS, x)
        found = chains.sample(transitions.consistency, f, x, sigmas, key=KEY, memory=(), trace=True)
        wanted = samplers.consistency(f, x, sigmas, key=KEY, sigma_min=0.0, trace=True)
        drawn, _ = transitions.consistency(f, (), x, sigmas[0], sigmas[1], eta=0.5)
        return found, wanted, drawn.std / sigmas[1]

    found, wanted, scale = run()
    np.testing.assert_allclose(found, wanted, rtol=1e-6)
    np.testing.assert_allclose(scale, 0.5, rtol=1e-6)


def test_rebel_compares_whole_chains_at_one_condition_and_finds_the_tilt():
    """Of chains with log ratio (r + c) / beta to the model as it was, nothing is left to regress."""
    beta, config = 0.5, RLCMConfig(group=4)
    gather = partial(
        rlcm._pairs,
        config=config,
        model=table.MODEL,
        advantage=advantages.centred,
        step=transitions.consistency,
    )
    rows, _ = jax.jit(gather)(KEY, table.state(), table.conditions(3))
    assert rows.log_prob.shape == (6, 2, 3)  # the last of 4 steps is not learned from
    np.testing.assert_array_equal(rows.moves.shown[:, 0], rows.moves.shown[:, 1])
    reward = np.random.default_rng(0).normal(size=(6, 2, 1)).astype(np.float32)
    level = np.broadcast_to(reward, (6, 2, 3))
    tilted = rows._replace(advantage=level, apart=level / beta / 3)
    regressed = jax.jit(partial(rlcm._regressed, config=config, scale=1.0))
    assert regressed(rows.log_prob, tilted, beta=beta)[0] < 1e-10
    assert regressed(rows.log_prob, tilted, beta=2 * beta)[0] > 0.1


def test_settings_that_cannot_be_are_refused():
    with pytest.raises(UserError, match="even number"):
        RLCMConfig(objective="rebel", group=3)


@lru_cache
def rewarded(make, config, model, step):
    """Mean reward of 4,000 samples after 100 updates of 256 samples each."""
    given = toy.given(jax.random.key(1))
    state = train(make(config, model), given, key=jax.random.key(0), updates=100, batch_size=16, seeds=None)
    keys, count = jax.random.split(KEY, 2), 4000
    denoiser, start = model.denoiser(state.trained.params, jnp.zeros((count, 0))), model.start(keys[0], count)
    x = chains.sample(step, denoiser, start, model.sampling.sigmas(), key=keys[1], memory=())
    return float(jnp.mean(x @ jnp.array(toy.SLOPE)))


@pytest.mark.slow
@pytest.mark.optimised
@pytest.mark.parametrize("objective", ["ppo", "rebel"])
def test_four_steps_reach_ddpos_reward_with_six_times_fewer_network_calls(objective):
    long, short = Sampling(sampler="euler", steps=25), Sampling(sampler="euler", steps=4, sigma_min=0.2)
    plain = rewarded(ddpo, DDPOConfig(learning_rate=3e-3), toy.model(long), transitions.ddim)
    config = RLCMConfig(learning_rate=5e-3, epochs=4, objective=objective)
    found = rewarded(rlcm.rlcm, config, toy.consistency_model(short), transitions.consistency)
    assert found >= plain > 0.4 and long.steps >= 6 * short.steps, (found, plain)
