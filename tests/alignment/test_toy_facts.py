"""The mixture that alignment is measured on, groups, pairs and the shared learner."""

import jax
import jax.numpy as jnp
import numpy as np

from jdp.alignment import advantages, toy
from jdp.alignment.pairs import labelled
from jdp.diffusion.sampling import Sampling

KEY = jax.random.key(0)


def test_the_tilt_of_the_mixture_is_that_of_its_density():
    line = np.linspace(-5, 5, 401)
    x = np.stack(np.meshgrid(line, line, indexing="ij"), axis=-1).reshape(-1, 2)

    def density(of):
        gaps = ((x[:, None] - np.array(of.means)) ** 2).sum(-1)
        return (np.array(of.weights) * np.exp(-gaps / (2 * of.std**2))).sum(-1)

    tilted = density(toy.FOUR) * np.exp(x @ np.array(toy.SLOPE) / 0.7)
    ours = density(toy.FOUR.tilted(toy.SLOPE, 0.7))
    np.testing.assert_allclose(ours / ours.sum(), tilted / tilted.sum(), atol=1e-9)


def test_what_is_measured_of_samples():
    """The mixture's part of the energy distance is exact: that of many samples, in numpy."""
    keys = jax.random.split(KEY, 3)
    x, y = toy.FOUR.sample(keys[0], 500), toy.FOUR.tilted(toy.SLOPE, 1.0).sample(keys[1], 4000)
    pairs = [
        np.sqrt(((np.array(a)[:, None] - np.array(b)) ** 2).sum(-1)) for a, b in ((x, y), (x, x), (y, y))
    ]
    expected = 2 * pairs[0].mean() - pairs[1].sum() / (500 * 499) - pairs[2].sum() / (4000 * 3999)
    found = toy.energy_distance(x, toy.FOUR.tilted(toy.SLOPE, 1.0))
    np.testing.assert_allclose(found, expected, rtol=0.05)
    assert found > 0.8 and abs(float(toy.energy_distance(x, toy.FOUR))) < 0.05
    moved = jnp.where(jnp.arange(500)[:, None] < 50, 9.0, x)
    found = toy.measured(moved, toy.FOUR)
    np.testing.assert_allclose(found.off_support, 0.1 + toy.off_support(x), atol=0.005)
    np.testing.assert_allclose(found.reward, np.mean(np.array(moved) @ np.array(toy.SLOPE)), rtol=1e-5)
    only = toy.measured(jnp.full((8, 2), 2.0), toy.FOUR)
    np.testing.assert_allclose(only.mode_error, 0.75)


def test_groups():
    reward = jax.random.normal(KEY, (3, 5))
    r = np.array(reward)
    others = (r.sum(1, keepdims=True) - r) / 4
    np.testing.assert_allclose(advantages.leave_one_out(reward), r - others, rtol=2e-5, atol=1e-6)
    np.testing.assert_allclose(
        advantages.leave_one_out(reward), 5 / 4 * advantages.centred(reward), rtol=1e-6
    )
    np.testing.assert_allclose(advantages.group(reward).std(1), 1, atol=1e-3)
    assert not advantages.group(jnp.ones((2, 4))).any()
    found = advantages.optimality(jnp.array([[0.0, 1.0], [5.0, 5.0]]))
    np.testing.assert_allclose(found, [[0.4, 0.6], [0.5, 0.5]], atol=1e-3)
    np.testing.assert_allclose(advantages.to_go(jnp.array([1.0, 2.0, 4.0])), [6, 4, 0])


def test_a_labeller_errs_as_bradley_and_terry_say():
    first, second = jnp.ones((4000, 2)), jnp.zeros((4000, 2))
    pairs = labelled(KEY, first, second, jnp.zeros((4000, 0)), jnp.full(4000, 1.5))
    np.testing.assert_allclose(pairs.winner.mean(), 1 / (1 + np.exp(-1.5)), atol=0.02)
    np.testing.assert_allclose(pairs.winner + pairs.loser, 1)


def test_the_model_begins_as_the_mixture_itself():
    found, given = toy.model(Sampling(sampler="euler", steps=5)), toy.given(KEY)
    x, sigma = jax.random.normal(KEY, (6, 2)) * 3, jnp.geomspace(0.05, 10, 6)
    ours = found.denoiser(given.params, jnp.zeros((6, 0)))(x, sigma)
    np.testing.assert_array_equal(ours, toy.FOUR.denoiser()(x, sigma))
