"""B2-DiffuRL: what branches share, which of them count, and a reward that is rarely earned."""

from functools import partial

import jax
import jax.numpy as jnp
import level_table as table
import numpy as np

from jdp.alignment import advantages, b2_diffurl, chain
from jdp.alignment.b2_diffurl import B2DiffuRLConfig
from jdp.diffusion.transitions import ddim

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
