"""Policy gradients of one length on chains: where they are taken, what is kept, and what they reach."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdp.alignment import advantages, chain, harpg, n_pg_igt, toy
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


@jax.jit
def parts(params, reference, weights):
    """On six chains: the loss's gradient, HARPG's with each row of weights, both densities of chains."""
    config, none = harpg.HARPGConfig(group=3, kl_weight=0.4), jnp.zeros((6, 0))
    states = chain.sample(KEY, params, none, config, MODEL)
    found, reward = moves(states, none), states[-1] @ jnp.array(toy.SLOPE)
    own = {"reference": reference, "config": config, "model": MODEL}
    rows, _ = chain.judged(params, found, reward, advantage=advantages.centred, **own)
    loss = jax.grad(lambda p: chain.loss(p, rows, **own)[0])(params)
    ours = jax.lax.map(lambda weight: harpg.gradient(params, weight, found, reward, **own), weights)
    options = {"eta": config.eta, "std_floor": config.std_floor, "memory": (), "summed": True}
    denoiser, sigmas = MODEL.denoiser(params, none), MODEL.sampling.sigmas()
    whole = chains.chain_log_prob(transitions.ddim, denoiser, states, sigmas, **options)
    return loss, ours, harpg.log_prob(params, found, config, MODEL), whole


def test_harpgs_gradient_is_that_of_the_chains_loss_where_every_chain_counts_once():
    first = np.arange(6) < 3
    weights = np.stack([np.ones(6), 2 * first, 2 - 2 * first]).astype(np.float32)
    params = shifted(GIVEN.params, 0.05)
    loss, ours, log_prob, whole = parts(params, GIVEN.params, weights)
    close(jax.tree.map(lambda x: x[0], ours), loss, rtol=1e-4, atol=1e-5)
    close(jax.tree.map(lambda x: (x[1] + x[2]) / 2, ours), loss, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(log_prob, whole, rtol=1e-4)  # of whole chains


def test_igt_keeps_the_parameters_themselves_whose_steps_have_the_length_that_is_set():
    config = n_pg_igt.NPGIGTConfig(group=4, learning_rate=0.3, step_decay=1.0)
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
@pytest.mark.optimised
@pytest.mark.parametrize(
    "learner",
    [n_pg_igt.n_pg_igt(n_pg_igt.NPGIGTConfig(), FINE), harpg.harpg(harpg.HARPGConfig(between=4), FINE)],
    ids=["n_pg_igt", "harpg"],
)
def test_they_reach_the_tilt_of_the_mixture(learner):
    state = train(learner, GIVEN, key=KEY, updates=300, batch_size=16)
    denoiser, start = FINE.denoiser(state.trained.params, jnp.zeros((2000, 0))), FINE.start(KEY, 2000)
    x0 = chains.sample(
        transitions.ddim, denoiser, start, FINE.sampling.sigmas(), key=jax.random.key(8), memory=()
    )
    tilt = toy.FOUR.tilted(toy.SLOPE, 1.0)
    found = toy.measured(x0, tilt)
    assert found.energy_distance <= 0.15 and found.off_support <= 0.02
