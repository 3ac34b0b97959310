"""Caches: the best schedule by brute force, chains by hand, what is computed, and what is not."""

from dataclasses import replace
from functools import partial
from itertools import combinations

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdp import UserError
from jdp.diffusion import caching, samplers, transitions
from jdp.diffusion.caching import CacheSchedule, adaptive, best_steps, bubbled, sample_cached, uniform
from jdp.diffusion.denoiser import edm
from jdp.diffusion.guidance.inpainting import hold
from jdp.diffusion.sampling import Sampling
from jdp.diffusion.schedules import karras
from jdp.networks import NetworkConfig, make
from jdp.networks.branches import branch, branches
from jdp.networks.conditional_mlp import conditional_mlp, conditioned
from jdp.types import bind

SIGMAS = karras(3, 0.1, 5.0)


def shaken(params):
    return jax.tree.map(lambda p: p + 0.2 * jax.random.normal(jax.random.key(9), p.shape), params)


@pytest.fixture(scope="module")
def transformer():
    """A denoiser of plans `[B, 6, 3]` with two branches, and a start."""
    net = make(NetworkConfig("transformer", features=16, blocks=1))
    x = 5.0 * jax.random.normal(jax.random.key(0), (3, 6, 3))
    params = shaken(jax.jit(net.init)(jax.random.key(1), x, jnp.zeros(3)))
    return edm(net.apply, params), x


def program(denoiser, x, schedule):
    return jax.jit(partial(sample_cached, schedule=schedule)).lower(denoiser, x, SIGMAS).compile()


@pytest.fixture(scope="module")
def budgets(transformer):
    """Compiled chains whose three steps compute all branches 1, 2 and 3 times."""
    return {budget: program(*transformer, uniform(2, 3, budget)) for budget in (1, 2, 3)}


def test_the_schedule_is_the_best_of_all_on_20_of_20_random_matrices():
    for seed in range(20):
        s = np.random.default_rng(seed).uniform(-1, 1, (10, 10))
        all_of_them = [(0, *rest) for rest in combinations(range(1, 10), 3)]
        value = [
            sum(s[max(c for c in steps if c <= k), k] for k in range(10) if k not in steps)
            for steps in all_of_them
        ]
        found = best_steps(s, 4)
        assert found == all_of_them[int(np.argmax(value))]
        assert caching.total_similarity(s, found) == pytest.approx(max(value))


def test_the_union_bubbles_up_to_the_most_volatile_feed_forward_branches():
    """Branches: attention 0, feed-forward 1, attention 2, feed-forward 3 and 4."""
    feeds, volatility = np.array([0, 1, 0, 1, 1], bool), np.array([9.0, 1.0, 9.0, 3.0, 2.0])
    steps = [(0, 1), (0, 2), (0, 3), (0, 4), (0, 5)]
    assert bubbled(steps, feeds, volatility, 0) == steps
    assert bubbled(steps, feeds, volatility, 1) == [(0, 1), (0, 2), (0, 3), (0, 4, 5), (0, 5)]
    # those in front take over what the last ones have become; the last one has none behind it
    assert bubbled(steps, feeds, volatility, 3)[1] == (0, 2, 4, 5)
    assert bubbled(steps, feeds, volatility, 3)[4] == (0, 5)


class Line(nn.Module):
    """`x + u(x) + v(x + u(x))` with `u = a x` and `v = b x`."""

    @nn.compact
    def __call__(self, x, c_noise, condition=None):
        a, b = self.param("a", nn.initializers.ones, ()), self.param("b", nn.initializers.ones, ())
        x = x + self.first(x, a)
        return x + self.second(x, b)

    @branch("attention")
    def first(self, x, a):
        return a * x

    @branch("feed_forward")
    def second(self, x, b):
        return b * x


def lines(params, x, sigma):
    del sigma
    return Line().apply({"params": params}, x, None)


A, B, FALL = 0.3, -0.5, 0.5
FALLING = 4.0 * FALL ** jnp.arange(4.0)


def test_a_chain_of_three_steps_by_hand():
    """`x' = D + (x - D) / 2`, the first branch computed in steps 0 and 2, the second in 0 and 1."""
    schedule, x = CacheSchedule(((True, True), (False, True), (True, False))), 2.0
    wanted, u, v = [x], 0.0, 0.0
    for fresh in schedule.fresh:
        u = A * x if fresh[0] else u
        v = B * (x + u) if fresh[1] else v
        denoised = x + u + v
        x = denoised + FALL * (x - denoised)
        wanted.append(x)
    own = bind(lines, {"a": jnp.array(A), "b": jnp.array(B)})
    chain = sample_cached(own, jnp.full((1, 1), 2.0), FALLING, schedule=schedule, trace=True)
    np.testing.assert_allclose(chain[:, 0, 0], wanted, rtol=1e-6)


def test_a_profile_of_lines():
    """All outputs are parallel: cosines are 1 or -1; the mean gap of `a x_k` over all pairs is known."""
    own = bind(lines, {"a": jnp.array(A), "b": jnp.array(-2.9)})
    x = 2.0 * jnp.ones((2, 3))
    chain = np.asarray(samplers.euler(own, x, FALLING, trace=True))[:-1, 0, 0]  # its sign changes
    found = caching.profile(own, x, FALLING)
    np.testing.assert_allclose(
        found.similarity, np.broadcast_to(np.sign(np.outer(chain, chain)), (2, 3, 3)), rtol=1e-6
    )
    gaps = np.abs(chain[:, None] - chain[None])[~np.eye(3, dtype=bool)].mean()
    np.testing.assert_allclose(found.volatility, [A * gaps, 2.9 * (1 + A) * gaps], rtol=1e-5)
    np.testing.assert_array_equal(found.feeds, [False, True])


def test_computing_everything_is_the_chain_without_a_cache(transformer, budgets):
    """The same program to the last operation, so the same bits; and what the scanned sampler gives."""

    def unrolled(denoiser, x, sigmas):
        for k in range(3):
            x = transitions.ddim(denoiser, (), x, sigmas[k], sigmas[k + 1], eta=0.0)[0].mean
        return x

    cached = partial(sample_cached, schedule=uniform(2, 3, 3))
    traced = (str(jax.make_jaxpr(f)(*transformer, SIGMAS)) for f in (cached, unrolled))
    assert next(traced) == next(traced)
    found, wanted = budgets[3](*transformer, SIGMAS), jax.jit(samplers.euler)(*transformer, SIGMAS)
    np.testing.assert_allclose(found, wanted, atol=1e-5)


@pytest.mark.parametrize("name", ["transformer", "mlp"])
def test_the_parameters_of_a_network_are_those_of_one_that_skips(transformer, name):
    """And they are named as they always were: trained models load."""
    x, condition = jnp.ones((2, 6, 3)), None
    if name == "transformer":
        net, dense = make(NetworkConfig("transformer", features=16, blocks=2)), 6
    else:
        net, x, condition, dense = conditional_mlp(16, 2), x[:, 0], jnp.ones((2, 1)), 7
    count = 4 if name == "transformer" else 2
    params = jax.eval_shape(net.init, jax.random.key(0), x, jnp.zeros(2), condition)
    taken = [jax.ShapeDtypeStruct((2, 6, 16) if name == "transformer" else (2, 16), jnp.float32)] * count

    def skipping(x, *taken):
        with branches([False] * count, taken):
            return net.init(jax.random.key(0), x, jnp.zeros(2), condition)

    kept = jax.eval_shape(skipping, x, *taken)["params"]
    named = params["params"]
    assert {f"Dense_{i}" for i in range(dense)} == {key for key in named if key.startswith("Dense")}
    assert jax.tree.leaves(kept[f"Dense_{dense - 1}"]) == jax.tree.leaves(named[f"Dense_{dense - 1}"])
    assert set(kept) < set(named)  # what is skipped is not even made


def test_what_is_skipped_is_not_in_the_program(budgets):
    """Operations fall in proportion to the branches that are computed."""
    one, two, three = (budgets[k].cost_analysis()["flops"] for k in (1, 2, 3))
    assert three - two == pytest.approx(two - one, rel=0.02)
    assert one < 0.5 * three


def test_the_more_is_computed_the_nearer_it_comes(transformer, budgets):
    one, two, three = (budgets[k](*transformer, SIGMAS) for k in (1, 2, 3))
    assert jnp.abs(one - three).mean() > jnp.abs(two - three).mean() > 1e-3
    found = jax.jit(caching.profile)(*transformer, SIGMAS)
    assert adaptive(found, 3) == uniform(2, 3, 3) and adaptive(found, 1) == uniform(2, 3, 1)
    np.testing.assert_allclose(np.diagonal(found.similarity, axis1=1, axis2=2), 1.0, rtol=1e-5)


@pytest.mark.parametrize("name", ["dpmpp_2m", "dpmpp_2m_sde", "ddpm", "flow_sde", "euler"])
def test_every_cached_sampler_is_its_plain_one(name):
    """With held entries around the denoiser; the draws are of the same keys."""
    own, x = bind(lines, {"a": jnp.array(A), "b": jnp.array(B)}), jnp.ones((3, 6, 3))
    held = hold(own, jnp.zeros_like(x), jnp.zeros_like(x, bool).at[:, 0].set(True))
    sampling = Sampling(name, 3, 0.1, 5.0, eta=0.5)
    cached = caching.with_cache(sampling, uniform(2, 3, 3))
    assert cached == caching.with_cache(sampling, uniform(2, 3, 3)) and cached != sampling

    @jax.jit
    def drawn(key):
        """All of the chain, and the end of it alone, of a warm start."""
        last = [s.function()(held, x, SIGMAS[1:], key=key) for s in (cached, sampling)]
        return [s.draw(key, held, x.shape) for s in (cached, sampling)], last

    for found, wanted in drawn(jax.random.key(3)):
        np.testing.assert_allclose(found, wanted, atol=2e-5)
        assert np.abs(found).max() > 0.1


def test_wrong_schedules_are_told(transformer):
    denoiser, x = transformer
    for count in (1, 3):
        with pytest.raises(UserError, match=f"of {count} branches, and this network has 2"):
            jax.eval_shape(
                lambda x, n=count: sample_cached(denoiser, x, SIGMAS, schedule=uniform(n, 3, 2)), x
            )
    with pytest.raises(UserError, match="of 2 steps, and the sampler takes 3"):
        sample_cached(denoiser, x, SIGMAS, schedule=uniform(2, 2, 2))
    with pytest.raises(UserError, match="its first computes all"):
        CacheSchedule(((True, False), (True, True)))
    with pytest.raises(UserError, match="sampler heun is not cached"):
        caching.with_cache(replace(Sampling(), sampler="heun"), uniform(4, 4, 4))
    mixer = make(NetworkConfig("mixer", features=8, blocks=1))
    other = edm(mixer.apply, jax.eval_shape(mixer.init, jax.random.key(0), x, jnp.zeros(3)))
    with pytest.raises(UserError, match="no branches to cache"):
        jax.eval_shape(lambda d: caching.profile(d, x, SIGMAS), other)
    with pytest.raises(UserError, match="budget"):
        adaptive(caching.Profile(jnp.ones((1, 4, 4)), jnp.ones(1), jnp.ones(1, bool)), 5)


def through(denoiser, x, sigma):
    denoised, transposed = jax.vjp(lambda x: denoiser(x, sigma), x)
    return denoised + transposed(denoised)[0]


def test_a_denoiser_that_is_differentiated_cannot_be_cached():
    own = bind(through, bind(lines, {"a": jnp.array(A), "b": jnp.array(B)}))
    with pytest.raises(UserError, match="leave out the guide that differentiates the denoiser, or the cache"):
        sample_cached(own, jnp.ones((1, 1)), SIGMAS, schedule=uniform(2, 3, 1))


def test_a_conditional_mlp_is_cached_too():
    """Of its 3 * (5 + 3 * 2) matrix products, two steps save 2 * 3 for each block that they skip."""
    net, x, seen = conditional_mlp(16, 2), jnp.ones((3, 2)), jnp.linspace(0.0, 1.0, 3)[:, None]
    params = jax.eval_shape(net.init, jax.random.key(0), x, jnp.zeros(3), seen)

    def products(schedule):
        def chain(params, x):
            return sample_cached(edm(conditioned(net.apply), (params, seen)), x, SIGMAS, schedule=schedule)

        return str(jax.make_jaxpr(chain)(params, x)).count("dot_general")

    assert products(uniform(2, 3, 3)) == 33 and products(uniform(2, 3, 1)) == 33 - 12
    assert products(CacheSchedule(((True, True), (True, False), (False, True)))) == 33 - 6
