"""Every formulation with the exact network of a Gaussian, which is computed from the exact denoiser."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdp.diffusion import FORMULATIONS, edm, exact, formulation, formulations, losses, samplers, schedules
from jdp.diffusion.times import COSINE, FLOW, LINEAR, TO_DATA
from jdp.errors import UserError
from jdp.types import expand

MEAN, STD = 0.7, 0.5
EXACT = exact.gaussian(MEAN, STD)
B = T = 32  # equal, so that an alignment from the right would not be noticed by shapes
D = 3
NAMES = list(FORMULATIONS)


def process_of(name):
    return LINEAR if "linear" in name else FLOW if name == "flow" else COSINE


def network(name):
    """The ideal network: it sees only its scaled input and `c_noise`."""

    def apply(params, scaled, c_noise):
        c = expand(c_noise, scaled)
        s = jnp.exp(4 * c) if name == "edm" else process_of(name).level(c)
        some = jnp.where(s > 0, s, 1.0)
        alpha = 1 / jnp.sqrt(1 + s**2)
        scale = {"edm": 1 / jnp.sqrt(1 + s**2), "flow": 1 / (1 + s)}.get(name, alpha)
        x = scaled / scale
        x0 = EXACT(x, jnp.broadcast_to(s, x.shape))
        eps = (x - x0) / some
        answers = {"eps": eps, "x0": x0, "v": alpha * eps - s * alpha * x0, "flow": eps - x0}
        answers["edm"] = (x0 - x / (1 + s**2)) * jnp.sqrt(1 + s**2) / some
        return answers[name.rpartition("_")[2]]

    return apply


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", [(), (B,), (B, T), (B, T, D)])
def test_the_denoiser_of_the_exact_network_is_the_exact_denoiser(name, shape):
    spread = np.geomspace(1e-3, 80, max(np.prod(shape, dtype=int), 1)).reshape(shape)
    sigma = jnp.asarray(spread, jnp.float32)
    x = MEAN + jnp.sqrt(STD**2 + expand(sigma, jnp.zeros((B, T, D))) ** 2) * jax.random.normal(
        jax.random.key(0), (B, T, D)
    )
    found = formulation(name).denoiser(network(name), None)(x, sigma)
    error = np.abs(found - EXACT(x, sigma))
    # D = x - sigma eps: float32 rounds both, of size sigma, to 1e-7 of it. The others do not cancel.
    allowed = 1e-5 + (1e-6 * np.asarray(expand(sigma, x)) if "eps" in name else 0)
    assert (error < allowed).all(), error.max()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", [(B, T), (B, T, D)])
def test_clean_entries_stay(name, shape):
    x = 3 * jax.random.normal(jax.random.key(0), (B, T, D))
    clean = jax.random.bernoulli(jax.random.key(1), 0.5, shape)
    sigma = jnp.where(clean, 0.0, jnp.exp(jax.random.normal(jax.random.key(2), shape)))
    seen = {}

    def apply(params, scaled, c_noise):
        seen["c_noise"] = c_noise
        return 5 * jnp.cos(scaled)

    made = np.asarray(formulation(name).denoiser(apply, None)(x, sigma))
    mask = np.broadcast_to(np.asarray(expand(clean.astype(x.dtype), x)) > 0, x.shape)
    np.testing.assert_array_equal(made[mask], np.asarray(x)[mask])
    assert (made[~mask] != np.asarray(x)[~mask]).all()
    assert seen["c_noise"].shape == shape and (np.abs(seen["c_noise"]) < 3).all()


def least_loss(name, s):
    """The variance of what is predicted, given `x`."""
    variance = STD**2 * s**2 / (STD**2 + s**2)  # of x0
    slope = {"eps": s, "x0": 1, "v": s / np.sqrt(1 + s**2), "flow": s / (1 + s)}
    slope["edm"] = s / np.sqrt(1 + s**2)
    return variance / slope[name.rpartition("_")[2]] ** 2


@pytest.mark.parametrize("name", NAMES)
def test_the_loss_of_the_exact_network_is_the_least(name):
    rows, entries = 16, 1 << 14
    x0 = MEAN + STD * jax.random.normal(jax.random.key(0), (rows, entries, 1))
    sigma = np.geomspace(0.01, 50, rows)
    key, form = jax.random.key(1), formulation(name)
    loss = lambda apply, weight=None: float(  # noqa: E731
        form.loss(key, apply, None, x0, sigma=jnp.asarray(sigma, jnp.float32), weight=weight)[0]
    )
    np.testing.assert_allclose(loss(network(name)), least_loss(name, sigma).mean(), rtol=0.02)
    # Off by .1 in what is predicted, .01 more, wherever the level.
    off = lambda p, x, c: network(name)(p, x, c) + 0.1  # noqa: E731
    np.testing.assert_allclose(loss(off), least_loss(name, sigma).mean() + 0.01, rtol=0.03)
    weight = np.arange(rows) / rows
    expected = (weight * least_loss(name, sigma)).mean()
    np.testing.assert_allclose(loss(network(name), jnp.asarray(weight, jnp.float32)), expected, rtol=0.02)


@pytest.mark.parametrize("name", NAMES)
def test_known_entries_cost_nothing_and_weights_multiply(name):
    x0 = jax.random.normal(jax.random.key(0), (B, T, D))
    sigma = jnp.ones((B, T)).at[:, 0].set(0.0)
    form, key = formulation(name), jax.random.key(1)
    apply = lambda params, x, c: params * jnp.sin(x)  # noqa: E731

    def loss(weight=None):
        return jax.value_and_grad(lambda p: form.loss(key, apply, p, x0, sigma=sigma, weight=weight)[0])(
            jnp.float32(2.0)
        )

    free = loss()
    only = jnp.zeros((B, T)).at[:, 0].set(1.0)
    np.testing.assert_array_equal(loss(only), [0.0, 0.0])
    np.testing.assert_allclose(loss(jnp.full((B, T, D), 3.0)), 3 * np.asarray(free), rtol=1e-5)
    np.testing.assert_allclose(loss(1 - only), free, rtol=1e-6)
    per_channel = jnp.array([1.0, 0.0, 10.0]).reshape(1, 1, D)
    each = [loss(jnp.zeros((1, 1, D)).at[..., d].set(1.0))[0] for d in range(D)]
    np.testing.assert_allclose(loss(per_channel)[0], each[0] + 10 * each[2], rtol=1e-5)


def test_edm_is_the_existing_loss_and_denoiser():
    x0, key = jax.random.normal(jax.random.key(0), (B, T, D)), jax.random.key(1)
    apply = lambda params, x, c: params * jnp.sin(x)  # noqa: E731
    params, sigma = jnp.float32(0.3), jnp.full((B, T), 0.4)
    form = formulations.edm(p_mean=-0.5, p_std=0.9, sigma_data=0.5)
    ours = form.loss(key, apply, params, x0)[0]
    theirs = losses.denoising(key, apply, params, x0, p_mean=-0.5, p_std=0.9, sigma_data=0.5)[0]
    assert float(ours) == float(theirs)
    ours = form.loss(key, apply, params, x0, sigma=sigma)[0]
    assert float(ours) == float(losses.denoising_at(key, apply, params, x0, sigma, sigma_data=0.5)[0])
    made, usual = form.denoiser(apply, params), edm(apply, params, sigma_data=0.5)
    assert jax.tree.structure(made) == jax.tree.structure(usual)  # one program


@pytest.mark.parametrize("name", [n for n in NAMES if n != "edm" and not n.startswith("ddpm")])
def test_trained_levels_are_uniform_in_time(name):
    process, form = process_of(name), formulation(name)
    levels = form.levels(jax.random.key(0), 20_000, jnp.float32)
    t = np.sort(np.asarray(process.time(levels)))
    uniform = np.linspace(process.first, process.last, 20_000)
    np.testing.assert_allclose(t, uniform, atol=0.015)  # Kolmogorov: 1.6 / sqrt(n) is .1 %
    sigmas = form.schedule(10)
    assert sigmas.shape == (11,) and sigmas[-1] == 0 and levels.max() <= sigmas[0] * 1.001


def test_ddpm_draws_its_levels_evenly_and_samples_at_some_of_them():
    form, all_levels = formulation("ddpm_x0"), np.asarray(schedules.ddpm_cosine(20))
    drawn = np.asarray(form.levels(jax.random.key(0), 20_000, jnp.float32))
    values, counts = np.unique(drawn, return_counts=True)
    np.testing.assert_array_equal(values, all_levels[-2::-1])
    np.testing.assert_allclose(counts, 1000, atol=150)
    np.testing.assert_array_equal(form.schedule(20), all_levels)
    few = np.asarray(form.schedule(5))
    assert few[0] == all_levels[0] and few[-1] == 0 and len(few) == 6 and np.isin(few, all_levels).all()
    with pytest.raises(UserError, match="20 levels"):
        form.schedule(21)


def test_formulations_are_settings():
    assert formulations.vp("x0") == formulation("vp_x0") != formulation("vp_eps")
    assert (
        hash(formulations.ddpm("x0", 20)) == hash(formulation("ddpm_x0")) != hash(formulations.ddpm("x0", 4))
    )
    with pytest.raises(UserError, match="vp_eps"):
        formulation("vp_esp")
    with pytest.raises(UserError, match="edm"):
        formulation("?")


@pytest.mark.parametrize("name", ["edm", "vp_eps", "vp_v", "flow", "ddpm_x0"])
def test_levels_of_time_steps(name):
    form, key = formulation(name), jax.random.key(0)
    many = np.asarray(form.levels(key, (50, 40), jnp.float32))
    np.testing.assert_array_equal(form.levels(key, (2000,), jnp.float32), form.levels(key, 2000, jnp.float32))
    # each step draws from what rows draw from, on its own
    rows = np.log(np.asarray(form.levels(jax.random.key(1), 2000, jnp.float32)))
    np.testing.assert_allclose(np.log(many).mean(), rows.mean(), atol=5 * rows.std() / 2000**0.5 * 2**0.5)
    np.testing.assert_allclose(np.log(many).std(), rows.std(), rtol=0.15)
    assert abs(np.corrcoef(np.log(many[:, :-1]).ravel(), np.log(many[:, 1:]).ravel())[0, 1]) < 0.1


def numpy_target(name, x0, noise, sigma):
    """`(what the network sees, what it predicts)`, from the definitions."""
    alpha = 1 / np.sqrt(1 + sigma**2)
    if name == "flow":
        return (x0 + sigma * noise) / (1 + sigma), noise - x0
    if name == "edm":
        c_in = 1 / np.sqrt(sigma**2 + 1)
        skip, out = 1 / (sigma**2 + 1), sigma / np.sqrt(sigma**2 + 1)
        return c_in * (x0 + sigma * noise), (x0 - skip * (x0 + sigma * noise)) / out
    seen = alpha * (x0 + sigma * noise)
    return seen, {"vp_eps": noise, "vp_v": alpha * noise - alpha * sigma * x0, "ddpm_x0": x0}[name]


@pytest.mark.parametrize("name", ["edm", "vp_eps", "vp_v", "flow", "ddpm_x0"])
def test_the_loss_of_a_level_a_time_step_is_that_of_its_definition(name):
    form, (b, t, d) = formulation(name), (4, 3, 3)  # what is aligned from the right would pass unseen
    x0, key = jax.random.normal(jax.random.key(0), (b, t, d)), jax.random.key(1)
    sigma = form.levels(jax.random.key(2), (b, t), jnp.float32).at[:, 0].set(0.0)
    weight = jnp.arange(1.0, 1 + b * t).reshape(b, t)

    def apply(p, x, c_noise):
        return p * jnp.sin(x + c_noise[..., None])

    found, _ = form.loss(key, apply, jnp.float32(0.7), x0, sigma=sigma, weight=weight)
    noise = np.asarray(jax.random.normal(key, x0.shape), float)
    c_noise = np.asarray(form.preconditioning.condition(sigma), float)[..., None]
    wide = np.asarray(sigma, float)[..., None]
    seen, target = numpy_target(name, np.asarray(x0, float), noise, np.where(wide > 0, wide, 1.0))
    error = np.where(wide > 0, (0.7 * np.sin(seen + c_noise) - target) ** 2, 0.0)
    np.testing.assert_allclose(found, (np.asarray(weight)[..., None] * error).mean(), rtol=1e-4)
    # a row of equal levels is a row with that level
    each = jnp.repeat(sigma[:, 1:2], t, 1)
    rows = form.loss(
        key, lambda p, x, c: p * jnp.sin(x + c[:, None, None]), jnp.float32(0.7), x0, sigma=sigma[:, 1]
    )
    np.testing.assert_allclose(form.loss(key, apply, jnp.float32(0.7), x0, sigma=each)[0], rows[0], rtol=1e-6)


def test_a_flow_to_data_is_integrated_from_pure_noise():
    """Euler's `x + v / n` of `v(x, t)` from time 0, and the loss `|v - (x0 - eps)|^2`, in numpy."""
    rng, n, form = np.random.default_rng(0), 5, formulations.flow(TO_DATA)
    z, x0 = rng.normal(size=(2, B, D)).astype(np.float32)

    def v(x, t):
        return np.cos(2 * x + t) if isinstance(x, np.ndarray) else jnp.cos(2 * x + t)

    def apply(params, x, t):
        return v(x, t[:, None])

    sigmas, x = form.schedule(n), z
    found = jax.jit(samplers.euler)(form.denoiser(apply, None), sigmas[0] * z, sigmas)
    for k in range(n):
        x = x + v(x, k / n) / n
    np.testing.assert_allclose(found, x, rtol=1e-5, atol=1e-5)

    sigma = form.levels(jax.random.key(1), B, jnp.float32)
    t = np.asarray(jax.random.uniform(jax.random.key(1), (B,)))[:, None]
    wanted = np.square(v(t * x0 + (1 - t) * z, t) - (x0 - z)).mean()
    np.testing.assert_allclose(form.error(apply, None, jnp.asarray(x0), sigma, z)[0], wanted, rtol=1e-5)


SPACES = ["x0", "eps", "v", "score"]


@pytest.mark.parametrize("kind", SPACES)
@pytest.mark.parametrize("shape", [(), (B,), (B, T), (B, T, D)])
def test_what_is_predicted_and_x0_are_found_from_each_other(kind, shape):
    """By the definitions in numpy, and there and back to 1e-5."""
    sigma = np.geomspace(0.05, 20, max(np.prod(shape, dtype=int), 1)).reshape(shape).astype(np.float32)
    x0, eps = jax.random.normal(jax.random.key(0), (2, B, T, D))
    s = np.asarray(expand(jnp.asarray(sigma), x0), float)
    x, alpha = x0 + jnp.asarray(s, jnp.float32) * eps, 1 / np.sqrt(1 + s**2)
    wanted = {"x0": x0, "eps": eps, "v": alpha * eps - alpha * s * x0, "score": -np.asarray(eps) / s}[kind]
    found = formulations.from_x0(kind, x0, x, jnp.asarray(sigma))
    scale = {"x0": 1, "eps": 1 + 1 / s, "v": 1 + 1 / s, "score": 1 + 1 / s**2}[kind]  # what rounding grows to
    assert (np.abs(found - wanted) / scale).max() < 1e-5
    again = formulations.to_x0(kind, found, x, jnp.asarray(sigma))
    assert (np.abs(again - x0) / (1 + s)).max() < 1e-6
    third = formulations.from_x0(
        "v", formulations.to_x0("eps", eps, x, jnp.asarray(sigma)), x, jnp.asarray(sigma)
    )
    assert (np.abs(third - (alpha * eps - alpha * s * x0)) / (1 + s + 1 / s)).max() < 1e-5


@pytest.mark.parametrize("name", ["edm", "vp_eps", "vp_x0", "vp_v", "flow"])
@pytest.mark.parametrize("space", SPACES)
def test_the_loss_sees_another_quantity_than_the_network_predicts(name, space):
    """The error of that quantity, found from the denoised by its definition; "own" is the loss as it was."""
    x0, noise = jax.random.normal(jax.random.key(0), (2, B, T, D))
    sigma = jnp.asarray(np.geomspace(0.1, 10, B), jnp.float32)
    form, apply = formulation(name), lambda p, x, c: p * jnp.sin(x)
    found = form.in_space(space).error(apply, 0.7, x0, sigma, noise)[0]
    s = np.asarray(sigma, float)[:, None, None]
    x, alpha = x0 + sigma[:, None, None] * noise, 1 / np.sqrt(1 + s**2)
    denoised = np.asarray(form.denoiser(apply, 0.7)(x, sigma), float)
    hat = (np.asarray(x, float) - denoised) / s
    pairs = {"x0": (denoised, x0), "eps": (hat, noise), "score": (hat / s, noise / s)}
    pairs["v"] = (alpha * hat - alpha * s * denoised, alpha * noise - alpha * s * x0)
    one, other = (np.asarray(part, float) for part in pairs[space])
    np.testing.assert_allclose(found, np.mean((one - other) ** 2), rtol=1e-4)
    assert form.in_space("own") is form and form.in_space(space) == form.in_space(space)
    if name == f"vp_{space}":
        assert float(found) == float(form.error(apply, 0.7, x0, sigma, noise)[0])
