"""Steps as distributions: marginals in closed form, and densities and divergences of chains by numpy."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdp.diffusion import chain_kl, chain_log_prob, edm, exact, sample, samplers, transitions
from jdp.diffusion.schedules import karras, pyramid
from jdp.networks.conditional_mlp import conditional_mlp, conditioned

STDS = np.array([1.0, 0.3, 0.1])
LEVELS = np.geomspace(8.0, 0.05, 7)
SIGMAS = jnp.asarray([*LEVELS, 0.0], jnp.float32)
STEPS = {
    "ddim": transitions.ddim,
    "ddpm": transitions.ddpm,
    "flow_sde": transitions.flow_sde,
    "dpmpp_2m": transitions.dpmpp_2m,
}


def affine(step, denoiser, sigma, following, **settings):
    """Slope and std of a first step on a linear denoiser, in float64, `[3]` each."""
    x, levels = jnp.ones((1, 3)), jnp.asarray([sigma, following], jnp.float32)
    drawn, _ = step(denoiser, None, x, *levels, **settings)
    return np.asarray(drawn.mean[0], float), np.broadcast_to(np.asarray(drawn.std[0], float), 3)


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("name", ["ddim", "flow_sde", "dpmpp_2m"])
def test_of_a_point_every_step_keeps_the_marginal(name, eta):
    """`D = 0`: a state of variance `sigma^2` becomes one of `sigma'^2`, whatever the noise."""
    for sigma, following in itertools.pairwise(np.asarray(SIGMAS, float)):
        slope, std = affine(STEPS[name], exact.gaussian(0.0, 0.0), sigma, following, eta=eta)
        np.testing.assert_allclose((slope * sigma) ** 2 + std**2, following**2, rtol=2e-5)


def ddpm_variances(levels, s):
    """Of every state, by DDPM's posterior (arXiv 2006.11239, equation 7) in its own coordinate."""
    kept = 1 / (1 + levels**2)  # alpha-bar
    z, out = kept[0] * s**2 + 1 - kept[0], [s**2 + levels[0] ** 2]  # of z = sqrt(alpha-bar) x
    for a, a_next, sigma in zip(kept[:-1], kept[1:], levels[:-1], strict=True):
        alpha, denoised = a / a_next, s**2 / (s**2 + sigma**2) / np.sqrt(a)
        mean = np.sqrt(a_next) * (1 - alpha) / (1 - a) * denoised + np.sqrt(alpha) * (1 - a_next) / (1 - a)
        z = mean**2 * z + (1 - a_next) / (1 - a) * (1 - alpha)
        out.append(z / a_next)
    return np.stack(out)


@pytest.mark.parametrize("name", ["ddim", "ddpm", "flow_sde"])
def test_with_eta_1_the_marginals_are_ddpms(name):
    denoiser, levels = exact.gaussian(0.0, STDS), np.asarray(SIGMAS, float)
    expected = ddpm_variances(levels, STDS)
    variance, found = STDS**2 + levels[0] ** 2, []
    for sigma, following in itertools.pairwise(levels):
        slope, std = affine(STEPS[name], denoiser, sigma, following, eta=1.0)
        variance = slope**2 * variance + std**2
        found.append(variance)
    np.testing.assert_allclose(np.stack(found), expected[1:], rtol=1e-4)
    # and those of chains that are drawn
    x = np.sqrt(STDS**2 + levels[0] ** 2) * np.random.default_rng(0).normal(size=(20_000, 3))
    run = jax.jit(functools.partial(sample, STEPS[name], trace=True))
    chain = run(denoiser, jnp.asarray(x, jnp.float32), SIGMAS, key=jax.random.key(1))
    np.testing.assert_allclose(np.asarray(chain).var(1), expected, rtol=0.05)


@pytest.mark.parametrize("a", [0.4, 0.7, np.sqrt(2)])
def test_the_flow_sde_is_that_of_rectified_flow(a):
    """Its drift and noise are those of Flow-GRPO, where a step is small; there `z = x / (1 + sigma)`."""
    rng, dt = np.random.default_rng(1), 1e-5
    for t in (0.1, 0.5, 0.9):
        z = rng.normal(size=3)
        sigma, following = t / (1 - t), (t - dt) / (1 - t + dt)
        denoised = STDS**2 / (STDS**2 + sigma**2) * z * (1 + sigma)
        v = (z - denoised) / t
        drift = v + a**2 / (2 * (1 - t)) * (z + (1 - t) * v)
        with jax.enable_x64(True):
            denoiser = jax.tree_util.Partial(
                lambda x, sigma: jnp.asarray(STDS**2 / (STDS**2 + float(sigma[0]) ** 2))[None] * x
            )
            x = jnp.asarray(z * (1 + sigma), jnp.float64)[None]
            levels = jnp.asarray([sigma, following], jnp.float64)
            drawn, _ = transitions.flow_sde(denoiser, (), x, *levels, eta=float(a / np.sqrt(2)))
            mean, std = np.asarray(drawn.mean[0]), float(drawn.std[0, 0])
        np.testing.assert_allclose((mean / (1 + following) - z) / -dt, drift, rtol=2e-3, atol=1e-3)
        np.testing.assert_allclose(std / (1 + following), a * np.sqrt(t / (1 - t) * dt), rtol=1e-3)


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("name", ["ddim", "flow_sde"])
def test_the_marginals_of_the_sde_are_those_of_the_data(name, eta):
    levels = np.geomspace(20.0, 0.02, 2001)
    step = jax.jit(jax.vmap(lambda s, t: affine_pair(STEPS[name], s, t, eta)))
    slopes, stds = (np.asarray(a, float) for a in step(*jnp.asarray([levels[:-1], levels[1:]], jnp.float32)))
    variance = STDS**2 + levels[0] ** 2
    for slope, std in zip(slopes, stds, strict=True):
        variance = slope**2 * variance + std**2
    np.testing.assert_allclose(variance, STDS**2 + levels[-1] ** 2, rtol=0.02)


def affine_pair(step, sigma, following, eta):
    drawn, _ = step(exact.gaussian(0.0, STDS), None, jnp.ones((1, 3)), sigma, following, eta=eta)
    return drawn.mean[0], jnp.broadcast_to(drawn.std[0], 3)


def numpy_step(name, s, x, sigma, following, last, eta, floor):
    """`(mean, std)` of one entry of a Gaussian of std s, and what it remembers, in float64."""
    if sigma == following:
        return x, 0.0, (s**2 / (s**2 + sigma**2) * x, sigma)
    denoised, r = s**2 / (s**2 + sigma**2) * x, following / sigma
    d = denoised
    if name == "ddim":
        weight, std = np.sqrt(r**2 * (1 - eta**2 * (1 - r**2))), eta * following * np.sqrt(1 - r**2)
    elif name == "ddpm":
        weight, std = r**2, eta * following * np.sqrt(1 - r**2)
    elif name == "flow_sde":
        weight, std = r ** (1 + eta**2), following * np.sqrt(1 - r ** (2 * eta**2))
    else:
        weight, std = r ** (1 + eta), following * np.sqrt(1 - r ** (2 * eta))
        if last is not None and last[1] > sigma and following > 0:
            ratio = np.log(last[1] / sigma) / np.log(sigma / following)
            d = (1 + 1 / (2 * ratio)) * denoised - last[0] / (2 * ratio)
    return d + weight * (x - d), max(std, floor), (denoised, sigma)


def numpy_terms(name, chain, sigmas, stds, eta, floor):
    """`(log densities, means, stds)`, `[n, B, T, 3]` each."""
    n, out = len(chain) - 1, np.zeros((3, *chain[1:].shape))
    for b, t, d in np.ndindex(chain.shape[1:]):
        last = None
        for k in range(n):
            x, x_next = chain[k, b, t, d], chain[k + 1, b, t, d]
            mean, std, last = numpy_step(
                name, stds[d], x, sigmas[k, 0, t], sigmas[k + 1, 0, t], last, eta, floor
            )
            log = -0.5 * ((x_next - mean) / std) ** 2 - np.log(std * np.sqrt(2 * np.pi)) if std > 0 else 0.0
            out[:, k, b, t, d] = log, mean, std
    return out


# One step after the other, the last two of three held at level 0 or at the level they have.
MATRIX = np.asarray(pyramid(SIGMAS, 3, delay=2)).copy()
MATRIX[:, :, 1] = 0.0


@pytest.fixture(scope="module")
def compiled():
    def densities(denoiser, chain, sigmas, name, eta, std_floor, axes):
        step = STEPS[name]
        return chain_log_prob(step, denoiser, chain, sigmas, eta=eta, std_floor=std_floor, event_axes=axes)

    return jax.jit(densities, static_argnames=("name", "axes"))


@pytest.mark.parametrize("floor", [0.0, 0.1])
@pytest.mark.parametrize("name", list(STEPS))
def test_the_density_of_a_chain_is_a_numpy_recursion(compiled, name, floor):
    denoiser, sigmas, eta = exact.gaussian(0.0, STDS), jnp.asarray(MATRIX), 0.6
    x = 8.0 * jax.random.normal(jax.random.key(0), (2, 3, 3))
    run = jax.jit(functools.partial(sample, STEPS[name], trace=True))
    chain = run(denoiser, x, sigmas, key=jax.random.key(1), eta=eta, std_floor=floor)
    wide = np.asarray(chain, float)
    log, mean, std = numpy_terms(name, wide, np.asarray(sigmas, float), STDS, eta, floor)
    found = compiled(denoiser, chain, sigmas, name, eta, floor, ())
    assert found.shape == log.shape == (len(MATRIX) - 1, 2, 3, 3)
    np.testing.assert_allclose(found, log, rtol=2e-3, atol=4e-3)
    np.testing.assert_array_equal(found[:, :, 1], 0.0)  # held at 0: nowhere a density
    np.testing.assert_array_equal(wide[:, :, 1], np.broadcast_to(x[:, 1], wide[:, :, 1].shape))
    # and the chain was drawn from just these: standardised, it is standard normal noise
    noise = np.stack(
        [jax.random.normal(k, x.shape) for k in jax.random.split(jax.random.key(1), len(MATRIX) - 1)]
    )
    np.testing.assert_allclose(wide[1:], mean + std * noise, rtol=1e-4, atol=2e-4)
    whole = compiled(denoiser, chain, sigmas, name, eta, floor, (-2, -1))
    np.testing.assert_allclose(whole, log.sum((2, 3)), rtol=2e-3, atol=4e-3)
    if floor:  # the step to level 0 has a density too
        assert (np.asarray(found)[len(SIGMAS) - 2, :, 0] != 0).all()


@pytest.mark.parametrize("name", list(STEPS))
def test_divergence_of_chains(name):
    """Its closed form at every state, and the mean log ratio of many draws from there."""
    ours, theirs, eta = exact.gaussian(0.0, STDS), exact.gaussian(0.3, 1.2 * STDS), 0.6
    x = 8.0 * jax.random.normal(jax.random.key(0), (2, 1, 3))
    sigmas = SIGMAS[2:]
    chain = sample(STEPS[name], ours, x, sigmas, key=jax.random.key(1), eta=eta, trace=True)
    found = chain_kl(STEPS[name], ours, theirs, chain, sigmas, eta=eta, event_axes=())
    memory = [None, None]
    for k, (sigma, following) in enumerate(itertools.pairwise(sigmas)):
        steps = [
            STEPS[name](d, m, chain[k], sigma, following, eta=eta)
            for d, m in zip((ours, theirs), memory, strict=True)
        ]
        (p, q), memory = [s[0] for s in steps], [s[1] for s in steps]
        std = np.asarray(p.std, float)
        gap = np.square(np.asarray(p.mean - q.mean, float))
        expected = np.where(std > 0, gap / (2 * np.where(std > 0, std, 1.0) ** 2), 0.0)
        np.testing.assert_allclose(found[k], expected, rtol=1e-4, atol=1e-6)
    mine, other = (STEPS[name](d, None, chain[0], *sigmas[:2], eta=eta)[0] for d in (ours, theirs))
    draws = jax.vmap(mine.sample)(jax.random.split(jax.random.key(2), 50_000))
    ratio = jax.vmap(lambda x: mine.log_prob(x, event_axes=()) - other.log_prob(x, event_axes=()))(draws)
    np.testing.assert_allclose(ratio.mean(0), found[0], atol=0.02 + 0.02 * float(found[0].max()))
    total = chain_kl(STEPS[name], ours, theirs, chain, sigmas, eta=eta, event_axes=(-2, -1), summed=True)
    np.testing.assert_allclose(total, found.sum((0, 2, 3)), rtol=1e-5)
    np.testing.assert_array_equal(chain_kl(STEPS[name], ours, ours, chain, sigmas, eta=eta), 0.0)


def test_a_step_can_be_learned_from_alone_and_held_entries_give_no_gradient():
    net = conditional_mlp(8, 1, groups=(0, 2))
    x, condition = jax.random.normal(jax.random.key(0), (5, 4)), jnp.ones((5, 2))
    params = net.init(jax.random.key(1), x, x, condition)
    params = jax.tree.map(lambda p: p + 0.3 * jax.random.normal(jax.random.key(2), p.shape), params)
    sigmas = karras(4, 0.1, 8.0)[:, None, None] * jnp.array([[0.0, 0.0, 1.0, 1.0]])[None]
    sigmas = jnp.broadcast_to(sigmas, (5, 5, 4))
    denoiser = edm(conditioned(net.apply), (params, condition))
    chain = sample(transitions.ddim, denoiser, 8 * x, sigmas, key=jax.random.key(3), trace=True)
    np.testing.assert_array_equal(chain[:, :, :2], np.broadcast_to(8 * x[:, :2], (5, 5, 2)))

    def each(params):
        denoiser = edm(conditioned(net.apply), (params, condition))
        return chain_log_prob(transitions.ddim, denoiser, chain, sigmas)

    def alone(params, k):
        denoiser = edm(conditioned(net.apply), (params, condition))
        drawn, memory = transitions.ddim(denoiser, (), chain[k], sigmas[k], sigmas[k + 1])
        assert memory == ()
        return drawn.log_prob(chain[k + 1]).sum()

    slopes = [jax.jit(jax.grad(lambda p, k=k: each(p)[k].sum()))(params) for k in range(4)]
    for k, slope in enumerate(slopes):
        leaves = jax.tree.leaves(slope)
        assert all(np.isfinite(leaf).all() for leaf in leaves)
        assert any(np.any(leaf) for leaf in leaves) == (k < 3)  # the last step has no noise
        for a, b in zip(leaves, jax.tree.leaves(jax.grad(alone)(params, k)), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4 * np.abs(b).max() + 1e-6)


def test_a_mask_leaves_entries_out_and_memory_goes_on_in_the_middle():
    denoiser, x = exact.gaussian(0.0, STDS), 8 * jax.random.normal(jax.random.key(0), (4, 3))
    chain = sample(transitions.dpmpp_2m, denoiser, x, SIGMAS, key=jax.random.key(1), trace=True)
    every = chain_log_prob(transitions.dpmpp_2m, denoiser, chain, SIGMAS, event_axes=())
    mask = jnp.array([[True, False, True]])
    some = chain_log_prob(transitions.dpmpp_2m, denoiser, chain, SIGMAS, mask=mask)
    np.testing.assert_allclose(some, every[..., 0] + every[..., 2], rtol=1e-5, atol=1e-5)
    memory = None
    for k in range(3):
        _, memory = transitions.dpmpp_2m(denoiser, memory, chain[k], SIGMAS[k], SIGMAS[k + 1])
    rest = chain_log_prob(transitions.dpmpp_2m, denoiser, chain[3:], SIGMAS[3:], event_axes=(), memory=memory)
    np.testing.assert_allclose(rest, every[3:], rtol=1e-4, atol=1e-4)
    # with a memory of nothing it would begin anew
    fresh = chain_log_prob(transitions.dpmpp_2m, denoiser, chain[3:], SIGMAS[3:], event_axes=())
    assert not np.allclose(fresh[0], every[3], rtol=1e-2)


def test_samplers_draw_from_the_steps():
    denoiser, x, key = (
        exact.gaussian(0.0, STDS),
        8 * jax.random.normal(jax.random.key(0), (4, 3)),
        jax.random.key(1),
    )
    run = jax.jit(sample, static_argnames=("step", "trace"))
    pairs = [
        (samplers.ddpm, transitions.ddpm, {}, {"eta": 1.0}),
        (samplers.flow_sde, transitions.flow_sde, {"noise": 1.0}, {"eta": 0.5**0.5}),
        (samplers.euler, transitions.ddim, {"eta": 0.4}, {"eta": 0.4}),
        (samplers.dpmpp_2m_sde, transitions.dpmpp_2m, {}, {"eta": 1.0}),
        (samplers.euler, transitions.ddim, {}, {"eta": 0.0}),
    ]
    for sampler, step, given, settings in pairs:
        found = jax.jit(functools.partial(sampler, **given, trace=True))(denoiser, x, SIGMAS, key=key)
        expected = run(step, denoiser, x, SIGMAS, key=key, trace=True, **settings)
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    with pytest.raises(ValueError, match="key"):
        samplers.euler(denoiser, x, SIGMAS, eta=0.5)
