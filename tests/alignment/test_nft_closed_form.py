"""DiffusionNFT reaches the optimum that its loss has in closed form, where rewards are shares of modes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdp.alignment import matching, nft, toy
from jdp.diffusion.sampling import Sampling
from jdp.learning.optimiser import begin, descend

KEY = jax.random.key(0)
RIGHT = toy.Mixture(toy.FOUR.means[:2], (0.5, 0.5), toy.FOUR.std)  # of the modes that are good


@pytest.mark.slow
def test_what_is_learned_is_the_closed_form():
    """v = v_old + (2 / b) P(good | x_t) (v_good - v_old), of samples of the mixture itself."""
    model, params = toy.model(Sampling(sampler="euler", steps=25)), toy.given(KEY).params
    config = nft.NFTConfig(bounded=True, kl_weight=0.0, levels=4, learning_rate=2e-3)

    def rows(key):
        x0 = toy.FOUR.sample(key, 256)
        noised = matching.noised(key, x0, jnp.zeros((256, 0)), config)
        good = jax.nn.sigmoid(x0[:, 0] * 4 / toy.FOUR.std**2)  # the share of the right modes in the density
        old = toy.FOUR.denoiser()(noised.x0 + noised.sigma[:, None] * noised.noise, noised.sigma)
        return nft.Rows(noised, old, jnp.repeat(good, config.levels))

    def loss(params, batch):
        return nft._loss(params, batch, reference=params, config=config, model=model)

    @jax.jit
    def learned(trained):
        def body(i, trained):
            return descend(config.optimiser(), trained, loss, rows(jax.random.fold_in(KEY, i)))[0]

        return jax.lax.fori_loop(0, 1500, body, trained)

    trained = learned(begin(config.optimiser(), params))
    keys = jax.random.split(KEY, 3)
    x0 = toy.FOUR.sample(keys[0], 2000)
    time = jax.random.uniform(keys[1], (2000,), minval=0.2, maxval=0.9)
    sigma = time / (1 - time)
    x = x0 + sigma[:, None] * jax.random.normal(keys[2], x0.shape)
    old, good = (of.denoiser()(x, sigma) for of in (toy.FOUR, RIGHT))
    # P(good | x_t): the right modes' share of the noised density; both halves have modes at the same heights.
    spread = toy.FOUR.std**2 + np.square(sigma)
    share = jax.nn.sigmoid(4 * x[:, 0] / spread)[:, None]
    best = old + 2 * share * (good - old)
    found = model.denoiser(trained.params, jnp.zeros((2000, 0)))(x, sigma)
    error = float(jnp.sum(jnp.square(found - best)) / jnp.sum(jnp.square(best - old)))
    assert error < 0.05, error
