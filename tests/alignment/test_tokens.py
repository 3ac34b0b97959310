"""Methods on tokens: what they compute, against numpy; and that they move a model whose laws are exact."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdp.alignment import advantages, token_toy, tokens, toy
from jdp.alignment.dgpo import DGPOConfig, dgpo
from jdp.alignment.gdpo import GDPOConfig, gdpo
from jdp.alignment.mdpo import MDPOConfig, mdpo
from jdp.alignment.models import TokenModel
from jdp.alignment.unigrpo import UniGRPOConfig, shares, unigrpo
from jdp.diffusion.discrete import Unmasking, exact
from jdp.diffusion.sampling import Sampling
from jdp.errors import UserError
from jdp.learning.optimiser import begin
from jdp.learning.ppo import epochs
from jdp.loops import train
from jdp.types import bind

MODEL = token_toy.model(Unmasking(4, "random"))
NOBODY = jnp.zeros((1, 0))
RNG = np.random.default_rng(0)


def test_the_process_advantage_and_its_largest_steps():
    reward = RNG.normal(size=(5, 2, 6)).astype(np.float32)
    expected = np.zeros_like(reward)
    for t in range(5):
        gain = reward[t] - (reward[t - 1] if t else 0) + 1
        raw = gain + (reward[t + 1 :].mean(0) if t < 4 else reward[t])
        spread = raw.std(1, keepdims=True) + 1e-4
        expected[t] = (raw - raw.mean(1, keepdims=True)) / spread
    found, chosen = jax.jit(lambda r: (f := advantages.process(r), advantages.largest(f, 3)))(reward)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    scores = np.abs(expected).sum((1, 2))
    np.testing.assert_array_equal(np.sort(scores[chosen]), np.sort(scores)[-3:])


def test_shares_that_are_masked_rise_evenly_to_all():
    found = np.asarray(shares(jax.random.key(0), 1000, 4))
    np.testing.assert_allclose(np.diff(found, axis=0), np.tile((1 - found[0]) / 3, (3, 1)), atol=1e-6)
    np.testing.assert_allclose(found[-1], 1, rtol=1e-6)
    assert abs(found[0].mean() - 0.5) < 0.03


def _table(logits, tokens, level):
    del level
    return jnp.broadcast_to(logits[None], (len(tokens), *logits.shape))


def test_the_surrogate_of_masked_tokens():
    """Of each state the mean over masked tokens; at ratio 1 its slope is that of `A log p - beta KL`."""
    model = TokenModel(lambda params, condition: bind(_table, params), 4, 3, Unmasking(4))
    state = np.array([[[0, 3, 3, 1], [3, 3, 3, 3]], [[2, 1, 0, 3], [0, 1, 2, 0]]], np.int32)
    target = np.array([[[0, 2, 1, 1], [1, 2, 1, 0]], [[2, 1, 0, 0], [0, 1, 2, 0]]], np.int32)
    advantage, shown = np.array([[1, -2], [0.5, 7]], np.float32), np.zeros((2, 0), np.float32)
    ours, theirs = (RNG.normal(size=(4, 3)).astype(np.float32) for _ in range(2))
    config = UniGRPOConfig(kl_weight=0.5)

    @jax.jit
    def found(params, reference):
        given = (jnp.asarray(x) for x in (shown, state, target, advantage))
        rows = tokens.rows_of(params, *given, model=model)
        settings = {"reference": reference, "config": config, "model": model}
        return rows.log_prob, jax.grad(tokens.loss, has_aux=True)(params, rows, **settings)

    log_prob, (slope, metrics) = found(ours, theirs)
    p, q = (np.exp(x) / np.exp(x).sum(-1, keepdims=True) for x in (ours, theirs))
    gap, masked = np.log(p / q), state == 3
    kl = (p * gap).sum(-1, keepdims=True)
    part = masked / np.maximum(masked.sum(-1, keepdims=True), 1) / 4  # of four states
    up = np.einsum("rml,rmlv->lv", part * advantage[..., None], np.eye(3)[target] - p)
    down = part.sum((0, 1))[:, None] * p * (gap - kl)
    np.testing.assert_allclose(slope, 0.5 * down - up, atol=1e-5)
    np.testing.assert_allclose(metrics["kl"], (part.sum((0, 1)) * kl[:, 0]).sum(), rtol=1e-5)
    expected = np.where(masked, np.log(p)[np.arange(4)[None, None], target], 0)
    np.testing.assert_allclose(log_prob, expected, atol=1e-6)


def test_inner_updates_take_rows_in_their_order():
    """Without shuffling the k-th minibatch is the k-th part: what UniGRPO's shares rely on."""

    def seen(params, row):
        return params * jnp.sum(row), {"approximate_kl": jnp.zeros(()), "row": row[0]}

    config, rows = UniGRPOConfig(minibatches=4), jnp.asarray(np.square(np.arange(8, dtype=np.float32)))
    start = begin(config.optimiser(), jnp.zeros(()))
    run = jax.jit(lambda key: epochs(key, start, rows, seen, config, shuffle=False)[1]["row"])
    assert run(jax.random.key(0)) == np.mean([0, 4, 16, 36])


def test_what_cannot_be_aligned_is_named():
    continuous = toy.model(Sampling(sampler="euler", steps=4))
    with pytest.raises(UserError, match=r"GDPOConfig aligns a model of tokens \(TokenModel\), not a Model"):
        gdpo(GDPOConfig(), continuous)  # pyright: ignore[reportArgumentType]
    with pytest.raises(UserError, match=r"MDPOConfig\.learned is 8, but the sampler takes 4 steps"):
        mdpo(MDPOConfig(), MODEL)


def trained(learner, updates, sign=1.0, batch_size=8, beta=1.0):
    given = token_toy.given(jax.random.key(1), sign)
    state = train(learner, given, key=jax.random.key(0), updates=updates, batch_size=batch_size, seeds=None)
    law = jax.jit(lambda p: exact.law(token_toy.denoiser(p, NOBODY), 4, 3))
    return (token_toy.measured(law(p), beta) for p in (given.params, state.trained.params))


@pytest.mark.slow
def test_gdpo_reaches_the_tilt():
    config = GDPOConfig(kl_weight=0.5, learning_rate=3e-3, antithetic=True)
    before, after = trained(gdpo(config, MODEL), 500, beta=0.5)
    best = token_toy.measured(token_toy.tilted(0.5), 0.5)
    assert after.distance < 0.1 < 0.2 < before.distance
    assert abs(after.reward - best.reward) < 0.04
    assert abs(after.kl - best.kl) < 0.06


@pytest.mark.slow
def test_unigrpo_raises_the_reward_and_stays_near():
    config = UniGRPOConfig(learning_rate=2e-3, kl_weight=1.0)
    before, after = trained(unigrpo(config, MODEL), 200)
    assert after.reward > before.reward + 0.2
    assert after.kl < 1


@pytest.mark.slow
def test_mdpo_raises_the_reward_on_its_samplers_own_states():
    model = token_toy.model(Unmasking(4, "confidence", remask=True))
    before, after = trained(mdpo(MDPOConfig(learning_rate=2e-3, learned=3, kl_weight=1.0), model), 200)
    assert after.reward > before.reward + 0.15
    assert after.kl < 1


@pytest.mark.slow
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_dgpo_goes_where_its_reward_points(sign):
    before, after = trained(dgpo(DGPOConfig(learning_rate=2e-3), MODEL), 60, sign)
    assert sign * (after.reward - before.reward) > 0.25
