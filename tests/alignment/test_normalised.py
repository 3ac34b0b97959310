"""Policy gradients of one length on chains: where they are taken, what is kept, and that they reach the tilt."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdp.alignment import chain, harpg, n_pg_igt, toy
from jdp.diffusion import chains, transitions
from jdp.diffusion.sampling import Sampling
from jdp.errors import UserError
from jdp.finetune.chain import moves
from jdp.loops import train

KEY = jax.random.key(0)
MODEL = toy.model(Sampling(sampler="euler", steps=4))
GIVEN = toy.given(KEY)


def close(a, b, **tolerance):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(x, y, **tolerance)


def shifted(params, by):
    return jax.tree.map(
        lambda x: x + by * jnp.cos(jnp.arange(x.size, dtype=x.dtype)).reshape(x.shape), params
    )


def test_harpgs_gradient_is_that_of_the_chains_loss_where_every_chain_counts_once():
    config, params = harpg.HARPGConfig(group=3, kl_weight=0.4), shifted(GIVEN.params, 0.05)
    states = chain.sample(KEY, params, jnp.zeros((6, 0)), config, MODEL)
    found, reward = moves(states, jnp.zeros((6, 0))), states[-1] @ jnp.array(toy.SLOPE)
    own = {"reference": GIVEN.params, "config": config, "model": MODEL}
    rows, _ = chain.judged(params, found, reward, advantage=chain.advantages.centred, **own)
    expected = jax.grad(lambda p: chain.loss(p, rows, **own)[0])(params)
    ours = harpg.gradient(params, jnp.ones(6), found, reward, **own)
    close(ours, expected, rtol=1e-4, atol=1e-5)
    one = harpg.gradient(params, 2.0 * (jnp.arange(6) < 3).astype(jnp.float32), found, reward, **own)
    other = harpg.gradient(params, 2.0 * (jnp.arange(6) >= 3).astype(jnp.float32), found, reward, **own)
    close(jax.tree.map(lambda a, b: (a + b) / 2, one, other), expected, rtol=1e-4, atol=1e-5)


def test_harpg_counts_the_density_of_whole_chains():
    config = harpg.HARPGConfig()
    params, none = shifted(GIVEN.params, 0.05), jnp.zeros((3, 0))
    states = chain.sample(KEY, params, none, config, MODEL)
    options = {"eta": config.eta, "std_floor": config.std_floor, "memory": (), "summed": True}
    denoiser = MODEL.denoiser(params, none)
    whole = chains.chain_log_prob(transitions.ddim, denoiser, states, MODEL.sampling.sigmas(), **options)
    np.testing.assert_allclose(harpg.log_prob(params, moves(states, none), config, MODEL), whole, rtol=1e-4)


def test_igt_keeps_the_parameters_themselves_whose_steps_have_the_length_that_is_set():
    config = n_pg_igt.NPGIGTConfig(group=4, watched=0, learning_rate=0.3, step_decay=1.0)
    learner, batch = n_pg_igt.n_pg_igt(config, MODEL), jnp.zeros((4, 0))
    state, update = learner.init(KEY, GIVEN), jax.jit(learner.update)
    for t in range(3):
        before = state.trained.params
        state, _ = update(jax.random.key(t), state, batch)
        step = jax.tree.map(jnp.subtract, state.trained.params, before)
        close(step, state.trained.optimiser.moved, atol=1e-5)
        size = np.sqrt(sum(np.sum(np.square(x)) for x in jax.tree.leaves(step)))
        np.testing.assert_allclose(size, 0.3 * 2 / (t + 2), rtol=1e-3)


@pytest.mark.parametrize("config", [n_pg_igt.NPGIGTConfig, harpg.HARPGConfig])
def test_an_update_is_one_step(config):
    with pytest.raises(UserError, match=f"{config.__name__}.minibatches is 4"):
        config(minibatches=4)
    with pytest.raises(UserError, match="epochs is 2"):
        config(epochs=2)


FINE = toy.model(Sampling(sampler="euler", steps=25))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("learner", "updates"),
    [
        (n_pg_igt.n_pg_igt(n_pg_igt.NPGIGTConfig(learning_rate=0.3, share_decay=0.5), FINE), 150),
        (harpg.harpg(harpg.HARPGConfig(learning_rate=0.2, share_decay=0.5, between=4), FINE), 150),
    ],
    ids=["n_pg_igt", "harpg"],
)
def test_they_reach_the_tilt_of_the_mixture(learner, updates):
    state = train(learner, GIVEN, key=KEY, updates=updates, batch_size=16)
    denoiser, start = FINE.denoiser(state.trained.params, jnp.zeros((2000, 0))), FINE.start(KEY, 2000)
    x0 = chains.sample(
        transitions.ddim, denoiser, start, FINE.sampling.sigmas(), key=jax.random.key(8), memory=()
    )
    tilt = toy.FOUR.tilted(toy.SLOPE, 1.0)
    found = toy.measured(x0, tilt.sample(jax.random.key(9), 2000), tilt)
    print(found)
    assert found.energy_distance <= 0.15 and found.off_support <= 0.02
