"""B2-DiffuRL: what branches share, which of them count, and a reward that is rarely earned."""

from functools import partial

import jax
import jax.numpy as jnp
import level_table as table
import numpy as np
import pytest

from jdp.alignment import advantages, b2_diffurl, chain, toy
from jdp.alignment.b2_diffurl import B2DiffuRLConfig
from jdp.diffusion import chains
from jdp.diffusion.sampling import Sampling
from jdp.diffusion.transitions import ddim
from jdp.loops import train
from jdp.types import bind

KEY = jax.random.key(4)
P, K, N = 3, 5, table.SAMPLING.steps
CONFIG = B2DiffuRLConfig(group=K, begin_share=0.5, widening=10, kl_weight=0.5)
SETTINGS = {"config": CONFIG, "model": table.MODEL}


def test_the_split_begins_late_and_falls_to_the_start():
    found = b2_diffurl.split(np.arange(13), **SETTINGS).tolist()
    assert found[0] == N // 2 and found[10:] == [0, 0, 0] and found == sorted(found, reverse=True)
    assert found[4:6] == [2, 1]


def test_only_the_best_and_the_worst_of_a_branch_count_and_only_after_the_split():
    state, first = table.state(memory=jnp.int32(0)), N // 2
    gather = partial(b2_diffurl._collect, **SETTINGS, advantage=advantages.group, step=ddim)
    rows, told = jax.jit(gather)(KEY, state, table.conditions(P))
    score = np.asarray(rows.advantage).reshape(N, P, K)
    np.testing.assert_allclose(score.mean(axis=2), 0, atol=1e-6)
    wanted = np.zeros((N, P, K), bool)
    for i in range(first, N):
        for p in range(P):
            best, worst = np.argmax(score[i, p]), np.argmin(score[i, p])
            wanted[i, p, best] |= score[i, p, best] >= CONFIG.best
            wanted[i, p, worst] |= score[i, p, worst] < CONFIG.worst
    np.testing.assert_allclose(rows.weight, wanted.reshape(-1) / wanted.mean(), rtol=1e-6)
    np.testing.assert_allclose(told["kept"], wanted[first:].mean(), rtol=1e-6)

    states = np.asarray(rows.moves.state).reshape(N, P, K, 2)
    assert np.all(states[: first + 1] == states[: first + 1, :, :1])
    assert np.all(states[first + 1 :, :, 1:] != states[first + 1 :, :, :1])
    np.testing.assert_array_equal(rows.moves.following.reshape(N, P, K, 2)[:-1], states[1:])

    def loss(params):
        return chain.loss(params, rows, reference=state.reference, **SETTINGS)[0]

    slope = jax.jit(jax.grad(loss))(table.PARAMS + 0.05)  # also away from the ratio of 1
    assert np.all(slope[:first] == 0) and np.all(slope[first:] != 0)


RARE = toy.Mixture(toy.FOUR.means, (0.32, 0.33, 0.33, 0.02), toy.FOUR.std)


def _found(x0, condition):
    """1 within three standard deviations of the mode that has 2 % of the weight, 0 elsewhere."""
    del condition
    gap = x0 - jnp.array(RARE.means[-1:])
    return (jnp.sum(jnp.square(gap), axis=-1) < (3 * RARE.std) ** 2).astype(jnp.float32)


@pytest.mark.slow
def test_a_reward_that_is_rarely_earned_is_earned_mostly_after_three_thousand_samples():
    model = toy.model(Sampling(sampler="euler", steps=20), RARE)
    given = toy.given(jax.random.key(1))._replace(judge=bind(_found))
    # One success of five leaves the others half a standard deviation below the mean: they count as well.
    config = B2DiffuRLConfig(learning_rate=1e-3, begin_share=0.9, widening=20, worst=-0.3, epochs=4, clip=0.2)
    learner = b2_diffurl.b2_diffurl(config, model)
    state = train(learner, given, key=jax.random.key(0), updates=40, batch_size=16, seeds=None)
    assert state.memory == 40

    def share(params):
        keys, shown = jax.random.split(KEY), jnp.zeros((2000, 0))
        denoiser, start = model.denoiser(params, shown), model.start(keys[0], 2000)
        x = chains.sample(ddim, denoiser, start, model.sampling.sigmas(), key=keys[1], memory=())
        return _found(x, shown).mean()

    assert share(given.params) < 0.03 and share(state.trained.params) > 0.6
