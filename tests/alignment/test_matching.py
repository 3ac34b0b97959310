"""Methods that see noised samples alone: weighted matching, mirrored velocities, preferences, experts."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdp.alignment import awm, diffusion_dpo, diffusion_dro, matching, nft, rwr, toy
from jdp.alignment.diffusion_dpo import DiffusionDPOConfig
from jdp.alignment.learner import Aligned
from jdp.diffusion import exact, samplers
from jdp.diffusion.sampling import Sampling
from jdp.errors import UserError
from jdp.loops import train
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


def test_weights_of_a_group_are_those_of_rwr_at_the_groups_own_temperature():
    """`exp((r - mean) / std)` in numpy; a condition as a whole counts by the mean of that."""
    config = rwr.RWRConfig(group=4, weights="group")
    reward = jnp.array([[0.1, 0.9, 0.3, 0.2], [50.0, 90.0, 70.0, 10.0], [1.0, 1.0, 1.0, 1.0]])
    found, r = rwr.weights_of(reward, config), np.array(reward, float)
    wanted = np.exp((r - r.mean(1, keepdims=True)) / (r.std(1, keepdims=True) + 1e-6))
    np.testing.assert_allclose(found, wanted, rtol=1e-4)
    for row in range(2):
        own = rwr.RWRConfig(group=4, kl_weight=float(r[row].std()))
        usual = rwr.weights_of(reward[row : row + 1], own)[0]
        np.testing.assert_allclose(found[row], wanted[row].mean() * usual, rtol=1e-4)
    assert rwr.weights_of(reward, rwr.RWRConfig(group=4)).mean(1) == pytest.approx(1.0, rel=1e-5)
    with pytest.raises(UserError, match=r"RWRConfig\.group is 1"):
        rwr.RWRConfig(group=1, weights="group")


@pytest.mark.parametrize("kl_weight", [1.0, 0.5])
def test_a_large_group_weighs_samples_as_the_analytic_tilt_does(kl_weight):
    """The four modes are a bandit's arms: their shares become those of `p exp(A / kl_weight)`."""
    config = rwr.RWRConfig(group=8192, weights="group", kl_weight=kl_weight)
    state = Aligned(None, GIVEN.params, GIVEN.judge)
    collect = jax.jit(partial(rwr._collect, config=config, model=MODEL))
    rows, told = collect(KEY, state, jnp.zeros((1, 0)))
    x0, slope = np.array(rows.noised.x0), np.array(toy.SLOPE)
    std = np.sqrt(4.0 + 0.3**2) * np.linalg.norm(slope)  # of rewards, of modes at +-2 of std .3
    tilt = toy.FOUR.tilted(toy.SLOPE, float(std * kl_weight))
    arm = 2 * (x0[:, 0] < 0) + (x0[:, 1] < 0)
    share = np.bincount(arm, np.array(rows.weight), minlength=4) / np.sum(rows.weight)
    np.testing.assert_allclose(share, tilt.weights, atol=0.02)
    assert told["reward"] == pytest.approx(np.average(x0 @ slope, weights=rows.weight), rel=1e-3)


@pytest.mark.slow
@pytest.mark.optimised
def test_group_weighted_matching_reaches_the_tilt():
    """From one batch to the next of the model as it was, whose rewards need no unit: here a hundredth."""
    fine = toy.model(Sampling(sampler="euler", steps=25))
    given, config = toy.given(KEY), rwr.RWRConfig(learning_rate=2e-3, weights="group")
    given = given._replace(judge=bind(_hundredth, given.judge))
    state = train(rwr.rwr(config, fine), given, key=KEY, updates=800, batch_size=16)
    denoiser, start = fine.denoiser(state.trained.params, jnp.zeros((2000, 0))), fine.start(KEY, 2000)
    x0 = samplers.heun(denoiser, start, fine.sampling.sigmas())
    tilt = toy.FOUR.tilted(toy.SLOPE, float(np.sqrt(4.0 + 0.3**2) * np.linalg.norm(toy.SLOPE)))
    found, before = (toy.measured(x, tilt) for x in (x0, toy.FOUR.sample(KEY, 2000)))
    assert found.energy_distance < 0.15 < 0.4 < before.energy_distance and found.off_support <= 0.02


def _hundredth(judge, x0, condition):
    return judge(x0, condition) / 100


def _blind(params, condition):
    return MODEL.denoiser(params, condition[:, :0])


def _fixed(rewards, x0, condition):
    del x0, condition
    return rewards
