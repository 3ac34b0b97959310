"""Generation: bits, compilations, one agent a block, and the share of rare terminals."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdp.data import Normaliser, experience, to_transitions
from jdp.devices import count_compilations, data_mesh
from jdp.diffusion import edm, exact, samplers
from jdp.diffusion.guidance import policy_guided
from jdp.diffusion.schedules import karras
from jdp.networks import NetworkConfig, make
from jdp.synthesis import SamplerConfig, generate, target_log_prob, target_policy
from jdp.types import Normal, bind

O, A, T = 2, 1, 8  # noqa: E741
D = O + A + 2
NORMALISER = Normaliser(
    mean=np.array([0.3, -1.0, 0.2, 2.0, 0.0], np.float32),
    std=np.array([2.0, 0.5, 1.5, 3.0, 1.0], np.float32),
    observation_dim=O,
    action_dim=A,
)
CONFIG = SamplerConfig(steps=6, sigma_max=20.0, batch=16)
NET = make(NetworkConfig("mixer", features=8, blocks=1))


def _deterministic(params, observation):
    mean = jnp.tanh(observation @ params)
    return Normal(mean, jnp.zeros_like(mean))


def _stochastic(params, observation):
    mean = jnp.tanh(observation @ params)
    return Normal(mean, jnp.full_like(mean, 0.02))


@pytest.fixture(scope="module")
def denoiser():
    params = NET.init(jax.random.key(0), jnp.zeros((2, T, D)), jnp.zeros(2))
    return edm(
        NET.apply, jax.tree.map(lambda p: p + 0.1 * jax.random.normal(jax.random.key(1), p.shape), params)
    )


def guided(denoiser, actors):
    policy = target_policy(_deterministic, actors, NORMALISER)
    return policy_guided(denoiser, policy, observation_dim=O, action_dim=A)


def actors(seed, count=2):
    return jax.random.normal(jax.random.key(seed), (count, O, A))


def make_set(key, denoiser, count=20, agents=2, **options):
    return generate(
        jax.random.key(key), denoiser, CONFIG, count=count, length=T, channels=D, agents=agents, **options
    )


def test_one_key_makes_one_set_and_regeneration_compiles_nothing(denoiser):
    first, second = guided(denoiser, actors(0)), guided(denoiser, actors(1))
    one = make_set(3, first)
    assert one.shape == (2, 20, T, D)
    counted = count_compilations()
    np.testing.assert_array_equal(make_set(3, first), one)
    assert not np.array_equal(make_set(3, second), one)  # a new policy, another set
    other_key = make_set(4, first)
    assert counted.count == 0
    assert not np.isclose(other_key, one).any(axis=-1).all()
    # No trajectory occurs twice: batches and agents have noise of their own.
    assert len(np.unique(one.reshape(40, -1).round(4), axis=0)) == 40


def test_the_last_batch_is_cut(denoiser):
    """Eight a batch and agent: 20 are the first 20 of 24."""
    d = guided(denoiser, actors(0))
    np.testing.assert_array_equal(make_set(3, d, count=20), make_set(3, d, count=24)[:, :20])


def test_each_agent_guides_its_own_block(denoiser):
    x = 3 * jax.random.normal(jax.random.key(5), (16, T, D))
    sigma = jnp.exp(jnp.linspace(-2.0, 3.0, 16))
    states = actors(0)
    for build in (
        lambda d, s: guided(d, s),
        lambda d, s: policy_guided(
            d,
            target_policy(_stochastic, s, NORMALISER),
            observation_dim=O,
            action_dim=A,
            at="denoised_stopped",
        ),
    ):
        together = build(denoiser, states)(x, sigma)
        for s in range(2):
            block = slice(8 * s, 8 * s + 8)
            alone = build(denoiser, states[s : s + 1])(x[block], sigma[block])
            np.testing.assert_allclose(together[block], alone, rtol=1e-3, atol=1e-4)
        swapped = build(denoiser, states[::-1])(x, sigma)
        assert np.abs(np.asarray(swapped - together)).max() > 1e-2


def test_the_target_policy_in_normalised_coordinates():
    """`u = arctanh(mu)`, standardised; a std in action space to first order; one chosen for std 0."""
    s = np.random.default_rng(0).normal(size=(4, T, O)).astype(np.float32)
    w = np.array([[0.2], [-0.3]], np.float32)
    mu = np.tanh((s * NORMALISER.std[:O] + NORMALISER.mean[:O]) @ w)
    for act, expected in [
        (_deterministic, 0.7),
        (_stochastic, 0.02 / (1 - np.minimum(np.abs(mu), 0.9) ** 2) / 1.5),
    ]:
        found = target_policy(act, jnp.asarray(w)[None], NORMALISER, 0.7)(jnp.asarray(s))
        np.testing.assert_allclose(found.mean, (np.arctanh(mu) - 0.2) / 1.5, rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(found.std, expected + 0 * mu, rtol=1e-3)
    saturated = target_policy(_deterministic, jnp.asarray(1e4 * w)[None], NORMALISER)(jnp.asarray(s)).mean
    edge = np.arctanh(0.999)
    np.testing.assert_allclose(
        np.sort(np.unique(np.asarray(saturated).round(2))),
        ((np.array([-edge, edge]) - 0.2) / 1.5).round(2),
        atol=0.011,
    )
    a = 0.5 * s[..., :A]
    found = target_log_prob(_stochastic, jnp.asarray(w)[None], NORMALISER)(jnp.asarray(s), jnp.asarray(a))
    z = (np.tanh(a * 1.5 + 0.2) - mu)[..., 0] / 0.02
    np.testing.assert_allclose(found, -0.5 * z**2 - np.log(0.02 * np.sqrt(2 * np.pi)), rtol=1e-3, atol=1e-3)


def test_generation_begins_at_the_initial_observations(denoiser):
    initial = np.random.default_rng(0).normal(size=(20, O)).astype(np.float32)
    made = make_set(3, guided(denoiser, actors(0)), initial=initial)
    np.testing.assert_allclose(made[:, :, 0, :O], np.broadcast_to(initial, (2, 20, O)), atol=1e-5)


def test_eight_devices_make_what_one_makes(denoiser):
    d = guided(denoiser, actors(0))
    np.testing.assert_allclose(make_set(3, d, mesh=data_mesh()), make_set(3, d), rtol=1e-3, atol=1e-3)


def test_progress_ends_at_the_whole():
    seen = []
    make_set(0, exact.gaussian(0.0, 1.0), progress=lambda done, total: seen.append((done, total)))
    assert seen == [(16, 40), (32, 40), (40, 40)]


# --- a terminal flag ----------------------------------------------------------------------------


def share_of_ones(sigmas, p):
    """Share of starts that end at 1, exactly: the ODE in one dimension keeps the order of its starts."""
    z = np.linspace(-6.0, 6.0, 24_001)
    denoiser = exact.mixture(np.array([1 - p, p]), np.array([[0.0], [1.0]]), np.zeros(2))
    x = jnp.asarray(float(sigmas[0]) * z[:, None], jnp.float32)
    final = np.asarray(jax.jit(samplers.dpmpp_2m)(denoiser, x, sigmas))[:, 0]
    assert (np.minimum(np.abs(final), np.abs(final - 1)) < 0.02).mean() > 0.999  # points, and nothing between
    ones = final > 0.5
    assert (np.diff(ones.astype(int)) >= 0).all()
    return 0.5 * math.erfc(z[ones.argmax()] / math.sqrt(2))


@pytest.mark.parametrize("p", [0.5, 0.1, 0.01, 0.002])
def test_a_flag_keeps_its_share_through_sampling(p):
    np.testing.assert_allclose(share_of_ones(karras(64, 0.002, 80.0), p) / p, 1.0, atol=0.03)


@pytest.mark.parametrize(("p", "kept"), [(0.5, 0.980), (0.1, 0.973), (0.01, 0.917), (0.002, 0.857)])
@pytest.mark.parametrize("spread", [1.0, 10.4])
def test_what_the_default_sampler_costs_a_rare_flag(p, kept, spread):
    """The price of 20 steps from level 20, which a change of the defaults may only lower."""
    share = share_of_ones(SamplerConfig().for_windows(spread).sigmas(), p) / p
    assert kept - 0.01 < share < 1.01


def _flagged(flag, x, sigma):
    clean = exact.gaussian(0.0, 1.0)(x[..., :-1], sigma)
    return jnp.concatenate([clean, flag(x[..., -1:], sigma)], axis=-1)


def test_terminals_keep_their_rate_through_sampling_and_unstacking():
    """A flag of probability p at each step: p is the hazard of every transition before the last."""
    p, count = 0.05, 4_000
    flag = exact.mixture(np.array([1 - p, p]), np.array([[0.0], [1.0]]), np.zeros(2))
    config = SamplerConfig(sigma_max=20.0, batch=4_000)
    x = generate(jax.random.key(0), bind(_flagged, flag), config, count=count, length=T, channels=D)[0]
    transitions, cuts = to_transitions(experience(x, NORMALISER))
    ended = (x[..., -1] > 0.5).any(-1).sum()
    assert transitions.terminal.sum() == ended == count - cuts.sum()  # each fragment ends once
    error = np.sqrt(count * 0.95**T * (1 - 0.95**T))
    assert abs(ended - count * (1 - 0.95**T)) < 4 * error + 0.1 * count * (1 - 0.95**T) * p
