"""Un-stacking and drawing against slow loops."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdp.data import (
    Normaliser,
    PoolDraw,
    TransitionDraw,
    WindowDraw,
    batches,
    experience,
    pool,
    to_transitions,
)
from jdp.data.draws import WindowRows
from jdp.data.pools import seed_axes
from jdp.types import Transition

O, A, T, S, M = 2, 1, 6, 2, 40  # noqa: E741
NORMALISER = Normaliser(
    mean=np.array([0.3, -1.0, 0.2, 2.0, 0.0], np.float32),
    std=np.array([2.0, 0.5, 1.5, 3.0, 1.0], np.float32),
    observation_dim=O,
    action_dim=A,
)


def made(seed=0, rate=0.15, shape=(S, M)):
    """Normalised trajectories with flags near 0 and 1."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(*shape, T, O + A + 2)).astype(np.float32)
    x[..., -1] = (rng.random(x.shape[:-1]) < rate) + 0.1 * x[..., -1]
    return x


def draw_batches(data, *, agents, minibatches, batch_size, real_share):
    draw = PoolDraw(TransitionDraw(O, A, minibatches), real_share)
    return batches(draw, batch_size, agents, seed_axes(data))


def slow_transitions(x):
    """One trajectory `[T, D]`: rows (o, a, r, o', terminal) and the time-limit marks."""
    mean, std = NORMALISER.mean.astype(float), NORMALISER.std.astype(float)
    rows, cuts = [], []
    for t in range(T):
        u = x[t] * std + mean
        terminal = x[t, -1] > 0.5
        if t == T - 1 and not terminal:
            cuts[-1] = True  # the step before ended the fragment
            break
        following = u[:O] if t == T - 1 else x[t + 1, :O] * std[:O] + mean[:O]
        rows.append([*u[:O], *np.tanh(u[O : O + A]), u[O + A], *following, float(terminal)])
        cuts.append(False)
        if terminal:
            break
    return rows, cuts


@pytest.mark.parametrize("rate", [0.0, 0.15, 0.9])
def test_transitions_equal_a_slow_loop(rate):
    x = made(rate=rate)[0]
    transitions, cuts = to_transitions(experience(x, NORMALISER))
    slow = [slow_transitions(row) for row in x]
    expected = np.array([row for rows, _ in slow for row in rows])
    found = np.concatenate([np.reshape(f, (len(f), -1)) for f in transitions[:5]], axis=-1)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(cuts, [c for _, row in slow for c in row])


def test_what_follows_a_terminal_is_no_experience():
    x = np.zeros((5, T, O + A + 2), np.float32)
    x[1, 2:, -1] = 1.0  # the flag stays up, as in the padded windows
    x[2, 0, -1] = 1.0
    x[3, -1, -1] = 1.0
    x[4, 3, -1] = 0.51
    x[4, 4, -1] = 0.49
    found = experience(x, NORMALISER)
    np.testing.assert_array_equal(found.valid.sum(-1), [T - 1, 3, 1, T, 4])
    np.testing.assert_array_equal(found.terminal.sum(-1), [0, 1, 1, 1, 1])
    np.testing.assert_array_equal(found.terminal.argmax(-1)[1:], [2, 0, T - 1, 3])
    assert (np.diff(found.valid.astype(int), axis=-1) <= 0).all()  # a prefix


def real_rows(n=50):
    """Real transitions whose reward is below -100; synthetic rewards are far above."""
    rng = np.random.default_rng(1)
    o, a = rng.normal(size=(n, O)).astype(np.float32), rng.normal(size=(n, A)).astype(np.float32)
    return Transition(o, a, -100 - np.arange(n, dtype=np.float32), o + 1, np.zeros(n, np.float32))


@pytest.fixture(scope="module")
def marked():
    """A pool whose synthetic reward is `1000 (s + 1) + row`, and the valid rewards of each agent."""
    found = experience(made(), NORMALISER)
    reward = 1000.0 * (1 + np.arange(S))[:, None, None] + np.arange(M * T).reshape(1, M, T)
    found = found._replace(reward=reward.astype(np.float32))
    return pool(real_rows(), found), [set(found.reward[s][found.valid[s]].tolist()) for s in range(S)]


@pytest.mark.parametrize("share", [0.0, 0.25, 0.5, 1.0])
def test_batches_hold_exact_shares_of_each_agents_own_rows(marked, share):
    data, valid = marked
    draw = draw_batches(data, agents=S, minibatches=3, batch_size=64, real_share=share)
    rewards = []
    run = jax.jit(draw)
    for i in range(20):
        batch = run(jax.random.key(i), data)
        assert batch.observation.shape == (S, 3 * 64, O)
        rewards.append(np.asarray(batch.reward).reshape(S, 3, 64))
    reward = np.stack(rewards)
    np.testing.assert_array_equal((reward < 0).sum(-1), round(share * 64))  # in every minibatch
    for s in range(S):
        drawn = set(reward[:, s][reward[:, s] > 0].tolist())
        assert drawn <= valid[s]  # its own, never an unfilled row (whose reward is 0)
        assert share == 1.0 or len(drawn) > 0.95 * len(valid[s])  # and all of them
    assert not (reward == 0).any()
    assert share == 0.0 or not np.array_equal(reward[0, 0], reward[0, 1])  # agents draw for themselves


def test_the_rows_of_a_batch_stay_whole(marked):
    data, _ = marked
    draw = draw_batches(data, agents=S, minibatches=1, batch_size=32, real_share=1.0)
    batch = jax.jit(draw)(jax.random.key(0), data)
    row = np.asarray(-100 - batch.reward).astype(int)
    for drawn, real in zip(jax.tree.leaves(batch), jax.tree.leaves(real_rows()), strict=True):
        np.testing.assert_array_equal(drawn, real[row])


def test_one_set_serves_all_agents_and_none_is_needed(marked):
    data, valid = marked
    shared = data._replace(synthetic=data.synthetic[0], sizes=data.sizes[0])
    draw = draw_batches(shared, agents=3, minibatches=1, batch_size=64, real_share=0.5)
    reward = np.asarray(jax.jit(draw)(jax.random.key(0), shared).reward)
    assert reward.shape == (3, 64) and set(reward[reward > 0].tolist()) <= valid[0]
    real = pool(real_rows())
    only = draw_batches(real, agents=3, minibatches=1, batch_size=64, real_share=1.0)
    assert (np.asarray(jax.jit(only)(jax.random.key(0), real).reward) <= -100).all()
    one = experience(made(shape=(1, M)), NORMALISER)  # a set of one agent serves all
    assert seed_axes(pool(real_rows(), one)) == (None, None, None)


def test_regeneration_keeps_every_shape():
    few, many = (
        pool(real_rows(), experience(made(seed, rate), NORMALISER)) for seed, rate in [(0, 0.9), (1, 0.0)]
    )
    assert few.synthetic.shape == many.synthetic.shape == (S, M * T, 2 * O + A + 2)
    assert (few.sizes < many.sizes).all() and (many.sizes == M * (T - 1)).all()


def test_windows_equal_brute_force():
    rows = np.arange(40, dtype=np.float32)[:, None]
    starts, last = np.array([0, 3, 7, 20], np.int32), np.array([9, 9, 9, 22], np.int32)
    expected = {tuple(min(s + t, e) for t in range(T)) for s, e in zip(starts, last, strict=True)}
    draw = batches(WindowDraw(T), 64)
    found = np.asarray(draw(jax.random.key(0), WindowRows(*map(jnp.asarray, (rows, starts, last)))))
    assert found.shape == (64, T, 1)
    assert {tuple(int(v) for v in window[:, 0]) for window in found} == expected


def test_equal_draws_are_the_same_program(marked):
    options = dict(agents=S, minibatches=1, batch_size=32, real_share=0.5)
    one, other = (draw_batches(marked[0], **options) for _ in range(2))
    assert one == other and hash(one) == hash(other)
    assert batches(WindowDraw(T), 4) == batches(WindowDraw(T), 4)


def test_minibatches_follow_one_another_and_depend_on_the_key_alone(marked):
    """What a draw locates on the host is what it takes on the devices."""
    data, _ = marked
    draw = PoolDraw(TransitionDraw(O, A, 2), 0.25)
    own = data._replace(synthetic=data.synthetic[0], sizes=data.sizes[0])
    located = draw.locate(jax.random.key(3), draw.tables(own), 8)
    assert located.real.shape == (4,) and located.synthetic.shape == (12,)
    batch = batches(draw, 8)(jax.random.key(3), own)
    rewards = np.asarray(batch.reward).reshape(2, 8)
    np.testing.assert_array_equal(rewards[:, :2].reshape(-1), -100.0 - np.asarray(located.real))
    assert (rewards[:, 2:] > 0).all()
