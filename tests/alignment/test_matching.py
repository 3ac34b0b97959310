"""Methods that see noised samples alone: weighted matching, mirrored velocities, preferences, experts."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdp.alignment import awm, diffusion_dpo, diffusion_dro, matching, nft, rwr, toy
from jdp.alignment.diffusion_dpo import DiffusionDPOConfig
from jdp.alignment.learner import Aligned
from jdp.diffusion import exact
from jdp.diffusion.sampling import Sampling
from jdp.types import Bound, bind

KEY = jax.random.key(0)
SAMPLING = Sampling(sampler="euler", steps=5)
MODEL, GIVEN = toy.model(SAMPLING), toy.given(KEY)
X0 = toy.FOUR.sample(KEY, 6)
NOWHERE = jnp.zeros((6, 0))


def moved(params, by=0.1):
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(KEY, len(leaves))
    drawn = [x + by * jax.random.normal(k, x.shape) for k, x in zip(keys, leaves, strict=True)]
    return jax.tree.unflatten(tree, drawn)


def test_errors_are_those_of_the_flows_velocity():
    config = matching.MatchingConfig(levels=4)
    rows = matching.noised(KEY, X0, NOWHERE, config)
    time = np.array(rows.time).reshape(6, 4)
    inside = (time - 0.02) / 0.96 * 4
    np.testing.assert_array_equal(np.floor(inside), np.tile(np.arange(4), (6, 1)))  # stratified
    t = rows.time[:, None]
    z = (1 - t) * rows.x0 + t * rows.noise  # the flow's own coordinates
    denoised = matching.denoised(GIVEN.params, rows, MODEL)
    velocity = (z - denoised) / t
    expected = np.mean((velocity - (rows.noise - rows.x0)) ** 2, axis=1)
    np.testing.assert_allclose(matching.error(GIVEN.params, rows, MODEL), expected, rtol=2e-2, atol=1e-4)


def test_at_ratio_one_the_gradient_of_awm_is_that_of_weighted_matching():
    config = awm.AWMConfig(kl_weight=0.0, levels=2)
    params = moved(GIVEN.params)
    noised = matching.noised(KEY, X0, NOWHERE, config)
    advantage = jnp.linspace(-1, 1, 12)
    rows = awm.Rows(noised, -matching.error(params, noised, MODEL), advantage)
    loss = partial(awm._loss, reference=GIVEN.params, config=config, model=MODEL)
    ours = jax.grad(lambda p: loss(p, rows)[0])(params)
    weighted = jax.grad(lambda p: jnp.mean(advantage * matching.error(p, noised, MODEL)))(params)
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(weighted), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("strength", [0.1, 1.0])
def test_the_optimum_of_nft_lies_towards_the_good_samples(strength):
    """v* = old + (2 / b) E[r] (E[x0 | good] - old), where old is what all samples have on average."""
    many = 400
    rows = matching.noised(
        KEY, jax.random.normal(KEY, (many, 2)), jnp.zeros((many, 0)), nft.NFTConfig(levels=1)
    )
    rows = rows._replace(time=jnp.full(many, 0.5))
    good = jax.nn.sigmoid(rows.x0[:, 0])
    old = jnp.broadcast_to(rows.x0.mean(0), rows.x0.shape)

    def loss(found):
        every = jnp.broadcast_to(found, old.shape)
        return jnp.mean(nft.contrast(every, old, rows, good, strength, MODEL))

    best = np.array(old[0] + 2 / strength * jnp.mean(good[:, None] * (rows.x0 - old), axis=0))
    np.testing.assert_allclose(jax.grad(loss)(jnp.array(best)), 0, atol=2e-5)
    assert np.linalg.norm(jax.grad(loss)(old[0])) > 0.1


def test_the_bound_of_dpo_is_the_log_density_where_denoisers_are_exact():
    """Of exact denoisers the difference of the bounds is that of the log densities, sample by sample."""
    config = DiffusionDPOConfig(levels=2000, least=0.002, most=1e6)

    def gaussian(mean, condition):
        del condition
        return exact.gaussian(mean, 1.0)

    model = toy.model(SAMPLING)._replace(denoiser=Bound(gaussian, ()))
    x0 = jnp.array([[0.3, -0.2], [1.5, 0.5]])
    rows = matching.noised(KEY, x0, jnp.zeros((2, 0)), config)
    first, second = (
        2 * diffusion_dpo.weights(rows.time, config) * matching.error(jnp.float32(mean), rows, model)
        for mean in (0.0, 0.5)
    )
    ours = (second - first).reshape(2, -1).mean(1)
    log = [-0.5 * ((np.array(x0) - mean) ** 2).sum(1) for mean in (0.0, 0.5)]
    np.testing.assert_allclose(ours, log[0] - log[1], atol=0.1)


def test_at_the_reference_preferences_are_undecided():
    config = DiffusionDPOConfig(levels=3)
    rows = matching.noised(KEY, X0, NOWHERE, config)
    rows = jax.tree.map(lambda x: x.reshape(6, 3, *x.shape[1:]), rows)
    both = diffusion_dpo.Rows(rows, rows._replace(x0=rows.x0[::-1]))
    loss, told = diffusion_dpo._loss(GIVEN.params, both, reference=GIVEN.params, config=config, model=MODEL)
    np.testing.assert_allclose(loss, np.log(2), rtol=1e-6)
    assert told["accuracy"] == 0


def test_the_hinge_of_dro_is_active_until_the_margin_is_reached():
    config = diffusion_dro.DiffusionDROConfig(levels=2, margin=0.7)
    rows = matching.noised(KEY, X0, NOWHERE, config)
    both = diffusion_dro.Rows(rows, rows._replace(x0=rows.x0[::-1]))
    loss = partial(diffusion_dro._loss, reference=GIVEN.params, config=config, model=MODEL)
    value, told = loss(GIVEN.params, both)
    np.testing.assert_allclose([value, told["active"]], [0.7, 1], rtol=1e-6)
    same, told = loss(moved(GIVEN.params), diffusion_dro.Rows(rows, rows))
    np.testing.assert_allclose(same, 0.7, rtol=1e-6)  # experts against themselves
    drawing = diffusion_dro.Drawing(GIVEN.params, jnp.int32(14))
    for _, renewed in ((0, False), (1, True)):
        drawing = diffusion_dro._after(drawing, moved(GIVEN.params), config=config, model=MODEL)
        first = jax.tree.leaves(drawing.params)[0]
        assert np.array_equal(first, jax.tree.leaves(moved(GIVEN.params))[0]) == renewed


def test_weights_of_rwr_are_the_softmax_over_the_samples_of_a_condition():
    """A numpy reference; what a condition adds to all of its rewards changes nothing."""
    config = rwr.RWRConfig(group=3, kl_weight=0.5)
    rewards, batch = jnp.array([0.1, 0.9, 0.3, 5.1, 5.9, 5.3]), jnp.array([[0.0], [1.0]])
    free = MODEL._replace(denoiser=Bound(_blind, ()))
    state = Aligned(None, GIVEN.params, bind(_fixed, rewards))
    rows, told = rwr._collect(KEY, state, batch, config=config, model=free)
    weight = np.exp(np.array([0.1, 0.9, 0.3]) / 0.5)
    np.testing.assert_allclose(rows.weight, np.tile(3 * weight / weight.sum(), 2), rtol=1e-5)
    np.testing.assert_allclose(told["reward"], np.mean(rows.weight * rewards), rtol=1e-5)
    every, _ = rwr._collect(KEY, state, jnp.zeros((2, 0)), config=config, model=free)  # all are rivals
    weight = np.exp(np.array(rewards - 5.9) / 0.5)
    np.testing.assert_allclose(every.weight, 6 * weight / weight.sum(), rtol=1e-5)


def _blind(params, condition):
    return MODEL.denoiser(params, condition[:, :0])


def _fixed(rewards, x0, condition):
    del x0, condition
    return rewards
