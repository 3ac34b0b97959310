"""Diffusion steps: histories, coordinates, two modes kept, deterministic systems learnt, one program."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdp.data import Origin, batches
from jdp.data.episodes import make_episodes
from jdp.errors import UserError
from jdp.loops.fit import fit
from jdp.networks.two_hot import from_two_hot, two_hot
from jdp.runs.settings import from_dict
from jdp.types import Spec, Transition
from jdp.world_models.diffusion_step import DiffusionStepConfig, diffusion_step
from jdp.world_models.history import History, HistoryDraw, histories

SPEC = Spec(observation_dim=1, action_dim=1)
ORIGIN = Origin("hand-made", "file", "", "", 0, "")
TINY = DiffusionStepConfig(features=64, blocks=2, steps=1_500, learning_rate=3e-3, ema=0.99)


def episodes(observations, actions, following, ends, terminals=None):
    """Rows `[N, 1]` and where episodes end `[N]`."""
    terminals = np.zeros(len(ends), bool) if terminals is None else terminals
    fields = [np.asarray(f, np.float32).reshape(-1, 1) for f in (observations, actions, following)]
    reward = fields[0][:, 0] * 10
    return make_episodes(
        fields[0], fields[1], reward, fields[2], terminals, ends & ~terminals, spec=SPEC, origin=ORIGIN
    )


def train(config, data, rule=None, spec=SPEC):
    model, rows = diffusion_step(config, spec, rule), jax.tree.map(jnp.asarray, histories(data))
    draw = batches(model.learner.draws, config.batch_size)
    state = model.learner.init(jax.random.key(0), model.learner.draws.view(rows))
    return model, fit(
        model.learner.update, draw, state, rows, key=jax.random.key(1), stop=config.steps, chunk=5_000
    )


# --- two-hot -------------------------------------------------------------------------------------


@pytest.mark.parametrize("bins", [2, 3, 41, 256])
def test_two_hot_loses_nothing(bins):
    edges = np.linspace(-1, 1, bins)
    value = np.concatenate([np.random.default_rng(0).uniform(-1, 1, 2_000), edges, [0.0]])
    value = jnp.asarray(value, jnp.float32).reshape(-1, 1)
    weights = two_hot(value, bins)
    assert weights.shape == (*value.shape, bins)
    np.testing.assert_allclose(from_two_hot(weights), value, atol=1e-6)
    w = np.asarray(weights)
    assert (w >= 0).all() and ((w > 0).sum(-1) <= 2).all()
    np.testing.assert_allclose(w.sum(-1), 1, atol=1e-6)
    gap = np.abs(np.asarray(value, float)[..., None] - edges)
    assert (gap[w > 1e-5] <= 2 / (bins - 1) + 1e-6).all()  # the two nearest bins
    np.testing.assert_allclose(from_two_hot(two_hot(jnp.float32(3.0), bins)), 1.0)  # the end


# --- histories -----------------------------------------------------------------------------------

O6 = np.arange(1.0, 7.0)
A6 = np.arange(1.0, 7.0) / 10
ENDS = np.array([False, False, True, False, False, True])  # two episodes of three steps
SUCCESSORS = np.array([2.0, 3.0, 90.0, 5.0, 6.0, 91.0])


@pytest.mark.parametrize("history", [1, 2, 4])
def test_histories_stay_within_their_episode(history):
    terminals = np.array([False, False, True, False, False, False])
    data = histories(episodes(O6, A6, SUCCESSORS, ENDS, terminals))
    assert len(data.at) == 6
    draw = HistoryDraw(1, 1, history)
    made = draw.take(data, draw.located(draw.tables(data), jnp.arange(6)))
    seen = draw.view(data)
    np.testing.assert_array_equal(seen.observation, made.observations[:, -1])
    np.testing.assert_array_equal(seen.action, made.actions[:, -1])
    for row in range(6):
        first = 0 if row < 3 else 3
        past = [row - k for k in range(history - 1, -1, -1)]
        np.testing.assert_array_equal(made.observations[row, :, 0], [O6[max(p, first)] for p in past])
        expected = np.asarray([A6[p] if p >= first else 0 for p in past], np.float32)
        np.testing.assert_array_equal(made.actions[row, :, 0], expected)
    np.testing.assert_array_equal(made.next_observation[:, 0], SUCCESSORS)
    np.testing.assert_array_equal(made.terminal, terminals)
    np.testing.assert_array_equal(made.reward, 10 * O6)


def test_steps_without_a_successor_are_left_out():
    data = episodes(O6, A6, SUCCESSORS, ENDS)
    data = dataclasses.replace(data, next_valid=~ENDS)
    found = histories(data)
    np.testing.assert_array_equal(found.at, [0, 1, 3, 4])
    np.testing.assert_array_equal(found.first, [0, 0, 3, 3])


def test_a_draw_is_uniform_over_the_steps():
    data = histories(episodes(O6, A6, SUCCESSORS, ENDS))
    draw = HistoryDraw(1, 1, 2)
    batch = batches(draw, 6_000)(jax.random.key(0), jax.tree.map(jnp.asarray, data))
    counts = np.bincount(np.asarray(batch.observations[:, -1, 0], int), minlength=7)[1:]
    np.testing.assert_allclose(counts / 1_000, 1, atol=0.15)
    assert batches(draw, 4) == batches(HistoryDraw(1, 1, 2), 4)
    located = draw.locate(jax.random.key(1), draw.tables(data), 50)  # the halves, of rows in files
    on_host = draw.take(data, jax.tree.map(np.asarray, located))
    assert all(isinstance(x, np.ndarray) for x in on_host)
    on_device = draw.take(jax.tree.map(jnp.asarray, data), located)
    jax.tree.map(np.testing.assert_array_equal, on_host, on_device)


# --- the carry -----------------------------------------------------------------------------------


def perturbed(state):
    """The output layer begins at zero, which would hide what the network sees."""
    noisy = jax.tree.map(
        lambda p: p + 0.2 * jax.random.normal(jax.random.key(5), p.shape), state.training.ema
    )
    return state._replace(training=state.training._replace(ema=noisy))


@pytest.mark.parametrize("bins", [0, 5])
def test_the_carry_shifts_and_the_model_sees_all_of_it(bins):
    config = dataclasses.replace(TINY, history=3, action_bins=bins, features=16)
    model, rng = diffusion_step(config, SPEC), np.random.default_rng(0)
    o, a = (jnp.asarray(rng.uniform(-1, 1, (4, n, 1)), jnp.float32) for n in (3, 3))
    batch = History(o, a, o[:, 0, 0], o[:, 1], jnp.zeros(4))
    state = perturbed(model.learner.init(jax.random.key(0), batch))
    step, key = jax.jit(model.step), jax.random.key(1)
    carry, following, reward, terminal = step(key, state, model.start(o, a[:, :2]), a[:, 2])
    np.testing.assert_array_equal(carry.observations, jnp.stack([o[:, 1], o[:, 2], following], axis=1))
    np.testing.assert_array_equal(carry.actions, a[:, 1:])
    assert following.shape == (4, 1) and reward.shape == terminal.shape == (4,)
    again, second, _, _ = step(key, state, carry, a[:, 0])
    np.testing.assert_array_equal(again.observations[:, -1], second)
    np.testing.assert_array_equal(again.actions, jnp.stack([a[:, 2], a[:, 0]], axis=1))
    for k in range(3):  # every observation and action of the history matters
        moved = step(key, state, model.start(o.at[:, k].add(0.1), a[:, :2]), a[:, 2])[2]
        assert (np.asarray(moved) != np.asarray(reward)).all()
        b = a.at[:, k].multiply(0.5)
        moved = step(key, state, model.start(o, b[:, :2]), b[:, 2])[2]
        assert (np.asarray(moved) != np.asarray(reward)).all()


def test_new_weights_and_seeds_compile_one_program():
    model, data = diffusion_step(TINY, SPEC), linear_rows(64)
    states = [model.learner.init(jax.random.key(k), data) for k in range(3)]
    traces, carry = [], model.start(data.observation[:, None], jnp.zeros((64, 0, 1)))

    def counted(*args):
        traces.append(1)
        return model.step(*args)

    program = jax.jit(counted)
    for k, state in enumerate(states):
        program(jax.random.key(k), state, carry, data.action)
    assert len(traces) == 1
    assert diffusion_step(TINY, SPEC) is model
    both = jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)
    out = jax.vmap(model.step, in_axes=(None, 0, None, None))(jax.random.key(0), both, carry, data.action)
    assert out[1].shape == (3, 64, 1)


# --- coordinates ---------------------------------------------------------------------------------


def linear_rows(count):
    rng = np.random.default_rng(2)
    o, a = rng.normal(2, 3, (count, 1)), rng.uniform(-1, 1, (count, 1))
    fields = (o, a, 7 * a[:, 0], o + 0.1 * a, np.zeros(count))
    return Transition(*(jnp.asarray(f, jnp.float32) for f in fields))


def ends(observation, action, following):
    return following[:, 0] + action[:, 0] > observation[:, 0]


def test_statistics_and_terminals():
    data = linear_rows(5_000)
    model = diffusion_step(TINY, SPEC, ends)
    state = model.learner.init(jax.random.key(0), data)
    s, o, a = state.statistics, np.asarray(data.observation), np.asarray(data.action)
    np.testing.assert_allclose([s.observation_mean[0], s.observation_std[0]], [o.mean(), o.std()], rtol=1e-4)
    np.testing.assert_allclose(s.delta_std[0], 0.1 * a.std(), rtol=1e-3)
    np.testing.assert_allclose([s.reward_mean, s.reward_std], [7 * a.mean(), 7 * a.std()], rtol=1e-3)
    start = model.start(data.observation[:, None], jnp.zeros((5_000, 0, 1)))
    _, following, _, terminal = model.step(jax.random.key(1), state, start, data.action)
    np.testing.assert_array_equal(terminal, ends(data.observation, data.action, following))
    assert terminal.dtype == jnp.float32
    constant = data._replace(reward=jnp.full(5_000, 4.0))  # a constant channel keeps a unit scale
    assert float(model.learner.init(jax.random.key(0), constant).statistics.reward_std) == 1.0


def test_mistakes():
    model = diffusion_step(dataclasses.replace(TINY, history=2), SPEC)
    data = linear_rows(8)
    state = model.learner.init(jax.random.key(0), data)  # transitions are enough for the statistics
    with pytest.raises(UserError, match="HistoryDraw"):
        model.learner.update(jax.random.key(0), state, data)
    with pytest.raises(UserError, match="begins with 2"):
        model.start(data.observation[:, None], jnp.zeros((8, 0, 1)))
    for wrong in ({"sampler": "dream"}, {"sampling_steps": 1}, {"action_bins": 1}, {"history": 0}):
        with pytest.raises(UserError, match="DiffusionStepConfig"):
            DiffusionStepConfig(**wrong)


# --- what is learnt ------------------------------------------------------------------------------


@pytest.mark.slow
def test_two_outcomes_stay_two():
    """`o' = o + 1 or o - 1` with equal chance: DIAMOND's reason for diffusion (arXiv 2405.12399)."""
    rng, count = np.random.default_rng(0), 20_000
    o = rng.normal(size=count)
    jump = rng.choice([-1.0, 1.0], count)
    following = o + jump + 0.05 * rng.normal(size=count)
    data = episodes(o, rng.uniform(-1, 1, count), following, np.ones(count, bool))
    _, state = train(TINY, data)
    n = 4_000
    seen = jnp.asarray(rng.normal(size=(n, 1, 1)), jnp.float32)
    for steps, tolerance, between in ((5, 0.06, 0.05), (10, 0.03, 0.01)):  # few steps blur the gap a little
        model = diffusion_step(dataclasses.replace(TINY, sampling_steps=steps), SPEC)
        carry = model.start(seen, jnp.zeros((n, 0, 1)))
        out = jax.jit(model.step)(jax.random.key(3), state, carry, jnp.zeros((n, 1)))
        moved = np.asarray(out[1] - seen[:, -1])[:, 0]
        shares = [np.mean(np.abs(moved - mode) < 0.25) for mode in (-1, 1)]
        np.testing.assert_allclose(shares, 0.5, atol=tolerance)
        assert np.mean(np.abs(moved) < 0.5) < between
    # A Gaussian of the same moments: its mean lies where nothing ever lands, and so does much else.
    change = following - o
    gaussian = rng.normal(change.mean(), change.std(), n)
    assert abs(change.mean()) < 0.05
    assert np.mean(np.abs(gaussian) < 0.5) > 0.3 and np.mean(np.abs(np.abs(gaussian) - 1) < 0.25) < 0.4


@pytest.mark.slow
def test_a_deterministic_system_of_second_order_is_learnt():
    """Of a position alone, with hidden velocity: two observations determine the next."""
    rng, length, runs = np.random.default_rng(1), 20, 400
    a = rng.uniform(-1, 1, (runs, length))
    o, v = rng.normal(size=runs), np.zeros(runs)  # at rest, as a repeated observation says
    rows = []
    for t in range(length):
        v = 0.8 * v + 0.5 * a[:, t]
        rows.append((o, a[:, t], o + v))
        o = o + v
    o, a, following = (np.stack(column, axis=1) for column in zip(*rows, strict=True))
    last = np.tile(np.arange(length) == length - 1, runs)
    data = episodes(o.ravel(), a.ravel(), following.ravel(), last)
    config = dataclasses.replace(TINY, history=2, steps=2_500)
    model, state = train(config, data)
    f32 = lambda x: jnp.asarray(x, jnp.float32)  # noqa: E731
    past, taken = f32(o[:, 4:6, None]), f32(a[:, 4:6, None])
    carry, step = model.start(past, taken[:, :1]), jax.jit(model.step)
    spread = (following - o).std()
    carry, found, reward, _ = step(jax.random.key(4), state, carry, taken[:, 1])
    error = np.asarray(found[:, 0]) - following[:, 5]
    assert np.sqrt(np.mean(error**2)) < 0.05 * spread
    np.testing.assert_allclose(
        np.sqrt(np.mean((np.asarray(reward) - 10 * o[:, 5]) ** 2)) / o.std() / 10, 0, atol=0.05
    )
    for t in (6, 7, 8):  # rolled on from its own predictions
        carry, found, _, _ = step(jax.random.key(t), state, carry, f32(a[:, t, None]))
    error = np.asarray(found[:, 0]) - following[:, 8]
    assert np.sqrt(np.mean(error**2)) < 0.2 * spread


@pytest.mark.slow
def test_a_rare_terminal_is_generated():
    """Without a rule the flag is drawn with the step: 1 where the position passes 1."""
    rng, count = np.random.default_rng(0), 20_000
    o, a = rng.uniform(-1, 1, count), rng.uniform(-1, 1, count)
    following = o + 0.3 * a
    terminal = following > 0.9
    data = episodes(o, a, following, np.ones(count, bool), terminal)
    model, state = train(TINY, data)
    clear = np.abs(following - 0.9) > 0.1
    o, a, truth = o[clear][:4_000, None], a[clear][:4_000, None], terminal[clear][:4_000]
    carry = model.start(jnp.asarray(o[:, None], jnp.float32), jnp.zeros((4_000, 0, 1)))
    found = jax.jit(model.step)(jax.random.key(3), state, carry, jnp.asarray(a, jnp.float32))[3]
    assert 0.01 < truth.mean() < 0.2
    assert np.mean(np.asarray(found) != truth) < 0.01


def test_settings_of_older_runs_are_read_by_their_names_of_today():
    found = from_dict(DiffusionStepConfig, {"hidden": 32, "sampler_steps": 7, "blocks": 1})
    assert found == DiffusionStepConfig(features=32, sampling_steps=7, blocks=1)
