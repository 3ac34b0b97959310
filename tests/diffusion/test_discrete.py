"""Masked diffusion on a distribution over all sequences of few tokens, whose conditionals are exact."""

from itertools import pairwise, permutations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jdp import networks
from jdp.diffusion import chains
from jdp.diffusion.discrete import (
    Unmasking,
    denoiser,
    exact,
    likelihood,
    losses,
    masking,
    transitions,
    unmask,
)
from jdp.errors import UserError
from jdp.types import Bound

L, V = 4, 3
RNG = np.random.default_rng(0)
PRIOR = RNG.dirichlet(np.full(V**L, 0.3)).astype(np.float32)
P = PRIOR.reshape((V,) * L)
EXACT = exact.conditionals(jnp.asarray(PRIOR), L, V)
BEST = np.argsort(PRIOR)[-8:]
KEY = jax.random.key(0)
STEP = Bound(transitions.step, (("mask", V),))
EMPTY = np.full((64, L), V, np.int32)


def index(tokens):
    return np.asarray(tokens) @ V ** np.arange(L - 1, -1, -1)


def shares(tokens):
    return np.bincount(index(tokens), minlength=V**L) / len(tokens)


def _inexact(tokens, level):
    """Conditionals of no distribution: tokens are judged by what stands beside them."""
    beside = jnp.roll(jax.nn.one_hot(tokens, V), 1, axis=-2)
    return 2 * beside + jnp.arange(V, dtype=jnp.float32)[None, None] * level[..., None, None]


@jax.jit
def probabilities(tokens):
    """`[..., L, V]` of what is masked, of both denoisers."""
    return [masking.predicted(of, tokens, V).mean for of in (EXACT, _inexact)]


def chances(of, state, tokens):
    """`[..., L]`, of tokens where `state` is masked, 1 elsewhere."""
    found = np.asarray(probabilities(state)[of])
    each = np.take_along_axis(found, np.minimum(tokens, V - 1)[..., None], -1)[..., 0]
    return np.where((np.asarray(state) == V) & (np.asarray(tokens) < V), each, 1)


def test_conditionals_are_those_of_the_table():
    found = probabilities(np.where(np.arange(L)[None] % 2 == 0, V, np.array([[0, 1, 0, 2]])))[0][0]
    np.testing.assert_allclose(found[0], P[:, 1, :, 2].sum(1) / P[:, 1, :, 2].sum(), rtol=1e-5)
    np.testing.assert_allclose(found[2], P[:, 1, :, 2].sum(0) / P[:, 1, :, 2].sum(), rtol=1e-5)


@jax.jit
def bounds(key, rows, same):
    """Exact with all masks, and estimates for one sequence many times, of conditionals that are not."""
    draws = {
        "monte carlo": likelihood.monte_carlo(key, same.shape, 6),
        "nodes": likelihood.quadrature(key, same.shape, 3),
        "pairs": likelihood.quadrature(key, same.shape, 3, antithetic=True),
        "counts": likelihood.counted(key, same.shape, 3),
        "pairs of counts": likelihood.counted(key, same.shape, 3, antithetic=True),
    }
    found = {name: likelihood.elbo(_inexact, same, masks, V) for name, masks in draws.items()}
    truth = likelihood.elbo(_inexact, same[:1], likelihood.enumerated((1, L), 3), V)[0]
    return likelihood.elbo(EXACT, rows, likelihood.enumerated(rows.shape, 3), V), truth, found


def test_bounds():
    """Three nodes and all masks give the log probability; every way to draw masks is unbiased.

    Also where the bound is not tight; pairs are less noisy than masks that know nothing of each other.
    """
    rows = np.stack(np.unravel_index(BEST, (V,) * L), axis=1)
    exactly, truth, found = bounds(KEY, rows, np.tile(np.array([[0, 2, 1, 1]]), (4096, 1)))
    np.testing.assert_allclose(exactly, np.log(PRIOR[BEST]), atol=1e-4)
    noise = {name: np.std(bound) for name, bound in found.items()}
    for name, bound in found.items():
        assert abs(np.mean(bound) - truth) < (6 if name == "monte carlo" else 4) * noise[name] / 64, name
    assert noise["pairs"] < 0.8 * noise["nodes"]
    assert noise["pairs of counts"] < 0.7 * noise["nodes"]


def test_steps_are_distributions_and_the_posterior_is_bayes():
    """`q(s | t, 0)` is `q(t | s) q(s | 0) / q(t | 0)`, and two steps forward are one."""
    forward = jax.jit(lambda x, a, b: transitions.forward(x, a, b, V).mean)
    x0, every, s, t = jnp.array([1, 0, 2, 2]), jnp.arange(V + 1), jnp.float32(0.3), jnp.float32(0.8)
    to_s, to_t, rows = (np.asarray(forward(*of)) for of in ((x0, s * 0, s), (x0, s * 0, t), (every, s, t)))
    np.testing.assert_allclose(rows.sum(-1), 1, rtol=1e-6)
    np.testing.assert_allclose(to_t, to_s @ rows, atol=1e-6)
    now = jnp.array([V, 0, V, 2])
    found = jax.jit(lambda x: transitions.posterior(x, x0, t, s, V).mean)(now)
    bayes = rows[:, np.asarray(now)].T * to_s
    np.testing.assert_allclose(found, bayes / bayes.sum(-1, keepdims=True), atol=1e-6)


@jax.jit
def chain_of(key, given):
    levels = jnp.linspace(1.0, 0.0, 5)
    chain = chains.sample(STEP, EXACT, given, levels, key=key, memory=(), trace=True)
    return chain, chains.chain_log_prob(STEP, EXACT, chain, levels, memory=(), summed=True)


def test_chains_of_the_library_draw_tokens():
    """A chain's probability is that of its tokens times that of when they are shown; what is given stays."""
    given = np.where(np.arange(L)[None] == 0, 2, EMPTY)
    chain, found = (np.asarray(x) for x in chain_of(KEY, given))
    assert (chain[-1] < V).all()
    assert (chain[:, :, 0] == 2).all()
    assert ((chain[:-1] == V) | (chain[:-1] == chain[1:])).all()
    when = 3 * np.log(1 / 4)  # each of three tokens in one of four steps, all alike
    tokens = sum(np.log(chances(0, now, then)).sum(-1) for now, then in pairwise(chain))
    np.testing.assert_allclose(found, tokens + when, rtol=1e-4)


def test_the_law_of_random_orders():
    """Against all orders, written out, for conditionals of no distribution; of exact ones it is the prior."""
    prior, found = jax.jit(lambda: (exact.law(EXACT, L, V), exact.law(_inexact, L, V)))()
    np.testing.assert_allclose(prior, PRIOR, atol=1e-6)
    np.testing.assert_allclose(found.sum(), 1, rtol=1e-5)
    row, orders = np.array([2, 0, 1, 1]), np.array(list(permutations(range(L))))
    state, total = np.full((24, L), V), np.ones(24)
    for places in orders.T:
        following = np.where(places[:, None] == np.arange(L)[None], row[None], state)
        total, state = total * chances(1, state, following).prod(-1), following
    np.testing.assert_allclose(found[index(row)], total.mean(), rtol=1e-5)


def test_running_confidence_masks_again_what_was_shown():
    """What is left masked has the lowest of the highest scores ever seen, by a ten-line reference."""
    draw = jax.jit(unmask, static_argnums=(1, 3, 4))
    chain = draw(KEY, _inexact, EMPTY, Unmasking(4, remask=True), V)
    best = np.zeros(EMPTY.shape)
    for k, (state, x0) in enumerate(zip(chain.states, chain.predictions, strict=False)):
        best = np.where(state == V, np.maximum(best, chances(1, state, x0)), best)
        expected = np.array(x0)
        np.put_along_axis(expected, np.argsort(best, axis=1, kind="stable")[:, : L - 1 - k], V, axis=1)
        np.testing.assert_array_equal(chain.states[k + 1], expected)
    hidden = np.asarray(chain.states) == V
    assert (~hidden[:-1] & hidden[1:]).any()
    hidden = np.asarray(draw(KEY, _inexact, EMPTY, Unmasking(4), V).states) == V
    assert not (~hidden[:-1] & hidden[1:]).any()
    np.testing.assert_array_equal(hidden.sum(-1)[:, 0], [4, 3, 2, 1, 0])


@pytest.mark.slow
@pytest.mark.parametrize("order", ["random", "entropy"])
def test_one_token_a_step_draws_exactly(order):
    draws = 40_000
    found = shares(unmask(KEY, EXACT, jnp.full((draws, L), V), Unmasking(L, order), V).tokens)
    expected, common = draws * PRIOR, draws * PRIOR > 5
    chi2 = np.sum((draws * found - expected)[common] ** 2 / expected[common])
    freedom = common.sum() - 1
    assert chi2 < freedom + 4 * np.sqrt(2 * freedom), (chi2, freedom)
    assert 0.5 * np.abs(found - PRIOR).sum() < 0.03


@pytest.mark.slow
def test_a_transformer_learns_the_conditionals():
    network = networks.make(networks.NetworkConfig("transformer", features=32, blocks=2))
    params, optimiser = denoiser.init(KEY, network, L, V), optax.adam(optax.cosine_decay_schedule(5e-3, 600))

    def apply(params, tokens, level):
        return denoiser.of_network(network, params, V)(tokens, level)

    def update(carry, key):
        params, state = carry
        rows, noise = jax.random.split(key)
        x0 = exact.sequences(L, V)[jax.random.choice(rows, V**L, (256,), p=jnp.asarray(PRIOR))]
        slope = jax.grad(lambda p: losses.masked_cross_entropy(noise, apply, p, x0, mask=V)[0])(params)
        with jax.numpy_dtype_promotion("standard"):
            change, state = optimiser.update(slope, state)
        return (optax.apply_updates(params, change), state), None

    keys = jax.random.split(jax.random.key(1), 600)
    (params, _), _ = jax.lax.scan(update, (params, optimiser.init(params)), keys)
    found = exact.law(denoiser.of_network(network, params, V), L, V)
    assert 0.5 * np.abs(found - PRIOR).sum() < 0.1


def test_a_cold_denoiser_is_greedy():
    cold = denoiser.tempered(EXACT, 1e-3)
    found = jax.jit(lambda x: masking.predicted(cold, x, V).mean)(EMPTY)
    np.testing.assert_array_equal(found.argmax(-1), probabilities(EMPTY)[0].argmax(-1))
    np.testing.assert_allclose(found.max(-1), 1, rtol=1e-6)


def test_orders_have_names():
    with pytest.raises(UserError, match=r"Unmasking\.order is 'sure': choose one of confidence, entropy"):
        Unmasking(order="sure")  # pyright: ignore[reportArgumentType]
