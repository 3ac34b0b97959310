"""Advantages of two levels, of histories and of budgets: identities, numpy references, an exact gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdp.finetune import advantages
from jdp.finetune.advantages import Values
from jdp.learning import ppo
from jdp.tasks.doors import Doors, Tables, exact_values, first_logits, play, success

KEY = jax.random.key(0)
HAE = jax.jit(advantages.hierarchical, static_argnames=("discount", "high_trace", "low_trace"))
GAE = jax.jit(ppo.advantages, static_argnames=("discount", "trace"))
T, N = 12, 3


def rollout(seed=0):
    rng = np.random.default_rng(seed)
    reward, *values = rng.normal(size=(5, T, N)).astype(np.float32)
    terminal = rng.random((T, N)) < 0.15
    ended = terminal | (rng.random((T, N)) < 0.1)
    switch = rng.random((T + 1, N)) < 0.4
    switch[0], switch[1:] = True, switch[1:] | ended
    high, low = Values(*values[:2]), Values(*values[2:])
    # What is reached within an episode is what is acted on next.
    high.there[:-1] = np.where(ended[:-1], high.there[:-1], high.here[1:])
    return reward, high, low, switch, terminal, ended


def by_segments(reward, high, low, switch, terminal, ended, g, high_trace, low_trace):
    """As the paper writes it: one segment after another, from the last to the first."""
    above, below = np.zeros((2, T, N))
    for n in range(N):
        begins = np.flatnonzero(switch[:T, n])
        later = 0.0
        for b, e in reversed(list(zip(begins, [*begins[1:], T], strict=True))):
            last, cut = e - 1, e == T and not (switch[T, n] or ended[T - 1, n])
            if ended[last, n]:
                later = 0.0
            there = 0.0 if terminal[last, n] else (low if cut else high).there[last, n]
            d = e - b
            found = sum(g**i * reward[b + i, n] for i in range(d)) + g**d * there
            above[b, n] = found - high.here[b, n] + g**d * high_trace * later
            later, carried = above[b, n], 0.0
            for t in reversed(range(b, e)):
                after = there if t == last else low.there[t, n]
                delta = reward[t, n] + g * after - low.here[t, n]
                carried = delta + g * low_trace * carried * (t != last)
                below[t, n] = carried
    return above, below


@pytest.mark.parametrize("traces", [(0.8, 0.6), (1.0, 1.0)])
def test_two_levels_are_segments_of_a_semi_markov_process(traces):
    reward, high, low, switch, terminal, ended = rows = rollout()
    flags = {"switch": switch, "terminal": terminal, "ended": ended}
    found = HAE(reward, high, low, **flags, discount=0.9, high_trace=traces[0], low_trace=traces[1])
    above, below = by_segments(*rows, 0.9, *traces)
    np.testing.assert_allclose(found.high.advantage, above, atol=1e-5)
    np.testing.assert_allclose(found.low.advantage, below, atol=1e-5)
    np.testing.assert_allclose(found.high.target, found.high.advantage + high.here, atol=1e-6)
    np.testing.assert_allclose(found.low.target, found.low.advantage + low.here, atol=1e-6)


def test_with_a_decision_at_every_step_the_high_level_is_flat():
    reward, high, low, switch, terminal, ended = rollout(1)
    flags = {"terminal": terminal, "ended": ended}
    found = HAE(reward, high, low, switch=switch | True, **flags, discount=0.9, high_trace=0.7, low_trace=0.3)
    flat = GAE(reward, *high, **flags, discount=0.9, trace=0.7)
    np.testing.assert_allclose(found.high.advantage, flat.advantage, atol=1e-5)


def test_with_one_segment_an_episode_the_low_level_is_flat_and_the_high_one_the_return():
    reward, high, low, _, terminal, _ = rollout(2)
    terminal = terminal & False
    terminal[-1] = True
    switch = np.zeros((T + 1, N), bool)
    switch[0] = switch[-1] = True
    flags = {"terminal": terminal, "ended": terminal}
    found = HAE(reward, high, low, switch=switch, **flags, discount=0.9, high_trace=1.0, low_trace=0.7)
    flat = GAE(reward, *low, **flags, discount=0.9, trace=0.7)
    np.testing.assert_array_equal(found.low.advantage, flat.advantage)  # to the bit
    returned = np.sum(0.9 ** np.arange(T)[:, None] * reward, axis=0)
    np.testing.assert_allclose(found.high.advantage[0], returned - high.here[0], atol=1e-5)
    assert not found.high.advantage[1:].any()


DOORS, EPISODES = Doors(rooms=3, reach=1, slip=0.2), 20_000
LOGITS = jax.tree.map(
    lambda x, k: x + 0.5 * jax.random.normal(k, x.shape),
    first_logits(DOORS),
    Tables(*jax.random.split(jax.random.key(1))),
)


@jax.jit
def gradients(key):
    """What each estimator says of the expected return's gradient, episode by episode; and the truth."""
    walk, exact = play(key, LOGITS, DOORS, EPISODES), exact_values(LOGITS, DOORS)
    through = walk.reward > 0
    high = Values(exact.high[walk.room], jnp.where(through, exact.high[walk.room + 1], 0.0))
    # `there` counts only within a room, for its end belongs to the high level.
    low = Values(
        exact.low[walk.room, walk.named, walk.step, walk.place],
        exact.low[walk.room, walk.named, walk.step + 1, walk.following],
    )
    flags = {"terminal": walk.terminal, "ended": walk.terminal}
    settings = {"discount": 1.0, "high_trace": 1.0, "low_trace": 1.0}
    two = advantages.hierarchical(walk.reward, high, low, switch=walk.switch, **flags, **settings)
    first = walk.switch[:-1]
    flat = ppo.advantages(
        walk.reward,
        jnp.where(first, high.here, low.here),
        jnp.where(walk.switch[1:], high.there, low.there),
        **flags,
        discount=1.0,
        trace=1.0,
    ).advantage

    def score(above, below):
        """`sum_t A_t grad log pi`, of one episode, by tables of one-hot rows."""
        pi, mu = jax.nn.softmax(LOGITS.high)[walk.room], jax.nn.softmax(LOGITS.low)
        mu = mu[walk.named, walk.step, walk.place]
        own = (jax.nn.one_hot(walk.named, DOORS.doors) - pi) * jnp.where(walk.alive & first, above, 0.0)[
            ..., None
        ]
        high = jnp.einsum("tnw,tnr->nrw", own, jax.nn.one_hot(walk.room, DOORS.rooms))
        own = (jax.nn.one_hot(walk.move, 3) - mu) * jnp.where(walk.alive, below, 0.0)[..., None]
        at = walk.named * DOORS.doors + walk.place  # reach is 1
        low = jnp.einsum("tna,tnp->npa", own, jax.nn.one_hot(at, DOORS.doors**2))
        return jnp.concatenate([high.reshape(EPISODES, -1), low.reshape(EPISODES, -1)], axis=1)

    truth = jax.grad(lambda logits: exact_values(logits, DOORS).high[0])(LOGITS)
    truth = jnp.concatenate([x.reshape(-1) for x in truth])
    return score(two.high.advantage, two.low.advantage), score(flat, flat), truth, walk, exact


@pytest.fixture(scope="module")
def estimates():
    return gradients(KEY)


def test_what_is_played_earns_what_is_expected(estimates):
    walk, exact = estimates[3:]
    returns = np.sum(walk.reward, axis=0)
    np.testing.assert_allclose(returns.mean(), exact.high[0], atol=5 * returns.std() / EPISODES**0.5)
    passed = (returns == DOORS.rooms).mean()
    np.testing.assert_allclose(passed, success(LOGITS, DOORS), atol=5 * (passed / EPISODES) ** 0.5)


def test_both_estimators_are_the_policy_gradient_and_that_of_two_levels_varies_less(estimates):
    two, flat, truth = (np.asarray(x, np.float64) for x in estimates[:3])
    assert np.abs(truth).max() > 0.05
    for found in (two, flat):
        error = found.std(0) / EPISODES**0.5
        assert np.all(np.abs(found.mean(0) - truth) < 5 * error + 1e-6)
    above, below = (slice(0, DOORS.rooms * DOORS.doors), slice(DOORS.rooms * DOORS.doors, None))
    np.testing.assert_array_equal(two[:, above], flat[:, above])  # with a trace of 1 over segments
    assert two[:, below].var(0).sum() < 0.8 * flat[:, below].var(0).sum()  # measured: .74
    assert np.all(two[:, below].var(0) < flat[:, below].var(0) + 1e-3)


def test_macro_and_micro_advantages_are_orthogonal():
    returns = jnp.asarray(np.random.default_rng(0).normal(size=(4, 5, 6)), jnp.float32)
    macro, micro = advantages.macro_micro(returns)
    np.testing.assert_allclose(micro.sum(-1), 0, atol=1e-5)
    np.testing.assert_allclose(jnp.einsum("pg,pge->p", macro, micro), 0, atol=1e-4)
    np.testing.assert_allclose(macro.mean(-1), 0, atol=1e-6)
    assert np.argmax(macro[0]) == np.argmax(returns[0].mean(-1))


def group_by_group(returns, state, task, depth, power, whole):
    """As the paper writes it, with dictionaries of histories."""
    steps, episodes = returns.shape
    found, weights = np.zeros_like(returns), np.zeros_like(returns)
    for k in range(0 if whole else 1, depth + 1):
        groups = {}
        for t in range(steps):
            for n in range(episodes):
                history = tuple(state[t - i, n] if t >= i else -1 for i in range(k))
                if k or t == 0:
                    groups.setdefault((task[n], history), []).append((t, n))
        for members in groups.values():
            rows = np.array([returns[m] for m in members])
            for m, value in zip(members, rows, strict=True):
                at = (slice(None), m[1]) if k == 0 else m
                if len(members) > 1:
                    weights[at] += (k + 1) ** power
                    found[at] += (k + 1) ** power * (value - rows.mean()) / (rows.std() + 1e-6)
    return found / np.where(weights > 0, weights, 1)


HGPO = jax.jit(advantages.by_history, static_argnames=("depth", "power", "whole"))


@pytest.mark.parametrize(("depth", "whole"), [(3, False), (2, True)])
def test_histories_are_compared_with_their_like(depth, whole):
    rng = np.random.default_rng(0)
    returns = rng.normal(size=(5, 8)).astype(np.float32)
    state, task = rng.integers(0, 3, (5, 8)), rng.integers(0, 2, 8)
    found = HGPO(returns, state, task, depth=depth, power=1.0, whole=whole)
    np.testing.assert_allclose(found, group_by_group(returns, state, task, depth, 1.0, whole), atol=1e-4)


def test_without_histories_it_is_the_advantage_of_whole_episodes():
    returns = np.random.default_rng(0).normal(size=(4, 6)).astype(np.float32)
    found = HGPO(returns, np.zeros((4, 6), int), np.zeros(6, int), depth=0, whole=True)
    wanted = (returns[0] - returns[0].mean()) / returns[0].std()
    np.testing.assert_allclose(found, np.broadcast_to(wanted, (4, 6)), rtol=1e-4)


def test_where_what_came_before_decides_history_takes_the_bias_away():
    """Two first states, then one and the same: what it is worth depends on where one came from."""
    first = np.tile([0, 1], 8)
    luck = np.tile([1.0, 1.0, -1.0, -1.0], 4).astype(np.float32)  # of the second move
    returns = np.stack([np.zeros(16), 4.0 * first + luck]).astype(np.float32)
    state = np.stack([first, np.full(16, 2)])
    flat, deep = (HGPO(returns, state, np.zeros(16, int), depth=k)[1] for k in (1, 2))
    wanted = luck  # of standard deviation 1 beside those of its history
    assert np.abs(deep - wanted).mean() < np.abs(flat - wanted).mean()
    spread = (4 * first + luck).std()
    np.testing.assert_allclose(deep, 0.4 * (4 * first + luck - 2) / spread + 0.6 * luck, rtol=1e-4)


def test_of_budgets_that_suffice_the_smaller_is_worth_more():
    budget = jnp.array([1.0, 4.0, 8.0])
    worth = advantages.budget_reward(jnp.ones(3), budget, budget, longest=16)
    np.testing.assert_allclose(worth, np.cos(np.pi * np.array([1, 4, 8]) / 32), rtol=1e-6)
    beyond = advantages.budget_reward(jnp.ones(()), jnp.array(6.0), budget[1], longest=16, excess=0.1)
    np.testing.assert_allclose(beyond, np.cos(np.pi * 6 / 32) - 0.2, rtol=1e-6)
    success = jnp.array([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0]])
    found = advantages.by_budget(success * worth[:, None], worth)
    # What fails is worth less by all; what always succeeds stands at its worth.
    np.testing.assert_allclose(found[0], -worth[0], rtol=1e-6)
    np.testing.assert_allclose(found[1], -worth[1] / 2 + np.float32([1, -1]), rtol=1e-3)
    np.testing.assert_allclose(found[2], 0, atol=1e-6)


def test_rewards_of_steps_stand_beside_the_groups_advantage():
    returns, steps = jnp.array([1.0, 3.0]), jnp.array([[0.5, 0.0], [0.0, -0.5]])
    found = advantages.with_step_rewards(returns, steps)
    np.testing.assert_allclose(found, [[-0.5, 1.0], [-1.0, 0.5]], atol=1e-3)
