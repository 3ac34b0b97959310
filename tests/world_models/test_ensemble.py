"""The ensemble against numpy, a linear-Gaussian system, and its laws: snapshots, elites, bootstraps."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdp import UserError
from jdp.data import batches as batches_of
from jdp.loops.fit import fit
from jdp.types import Spec, Transition, pack
from jdp.world_models.bootstrap import BootstrapDraw, Bootstrapped, bootstrap
from jdp.world_models.ensemble import EnsembleConfig, ensemble, loss, member_network
from jdp.world_models.termination import RULES, never
from jdp.world_models.training import (
    epoch_updates,
    finished,
    holdout_errors,
    keep_best,
    split_holdout,
    train,
    validation,
)

SPEC = Spec(observation_dim=3, action_dim=2)
CONFIG = EnsembleConfig(
    members=4, elites=2, hidden=(32,), decay=(0.0,), learning_rate=3e-3, batch_size=64, epochs=10
)

# s' = s + A s + B a + noise, in units far from 1 and from each other
A = np.array([[-0.3, 0.1, 0.0], [0.0, -0.2, 0.02], [1.0, 0.0, -0.5]], np.float32)
B = np.array([[0.5, 0.0], [0.2, 0.3], [0.0, 4.0]], np.float32)
REWARD = np.array([1.0, -2.0, 0.1], np.float32), np.array([0.5, 0.5], np.float32)
SCALE = np.array([1.0, 1.0, 10.0], np.float32)
OFFSET = np.array([5.0, 0.0, -20.0], np.float32)
NOISE = np.array([0.2, 0.1, 1.0, 0.5], np.float32)  # stds of the next observation and the reward


def means(observation, action):
    centred = observation - OFFSET
    following = observation + centred @ A.T + action @ B.T
    return np.concatenate([following, (centred @ REWARD[0] + action @ REWARD[1])[:, None]], axis=1)


def system(seed, rows):
    rng = np.random.default_rng(seed)
    observation = (OFFSET + SCALE * rng.normal(size=(rows, 3))).astype(np.float32)
    action = rng.uniform(-1, 1, (rows, 2)).astype(np.float32)
    made = (means(observation, action) + NOISE * rng.normal(size=(rows, 4))).astype(np.float32)
    terminal = (observation[:, 0] > OFFSET[0] + 0.5).astype(np.float32)
    return Transition(observation, action, made[:, 3], made[:, :3], terminal)


def taken(data, rows):
    return Transition(*(jnp.asarray(field[rows]) for field in data[:5]))


def fitter(config, rule, training, key):
    """A `fit_epoch` of `train`, as an experiment makes it."""
    keys = jax.random.split(key)
    model = ensemble(config, SPEC, rule)
    table = bootstrap(keys[0], len(training.reward), config.members)
    data = Bootstrapped(pack(training), table)
    draw = batches_of(model.learner.draws, config.batch_size)
    return lambda state, start, stop: fit(
        model.learner.update, draw, state, data, key=keys[1], start=start, stop=stop, batch_axis=1
    )


def trained(config, rule, rows=8000, seed=0):
    data = system(seed, rows)
    keys = jax.random.split(jax.random.key(seed), 3)
    kept, held = split_holdout(keys[0], rows, config)
    training, holdout = taken(data, kept), taken(data, held)
    state = jax.jit(ensemble(config, SPEC, rule).learner.init)(keys[1], training)
    fit_epoch = fitter(config, rule, training, keys[2])
    return train(state, fit_epoch, holdout, rows=len(kept), config=config, spec=SPEC, rule=rule)


@pytest.fixture(scope="module")
def learned():
    return trained(CONFIG, never, rows=16_000)


def fresh(config=CONFIG, rule=never, seed=0, rows=100):
    return ensemble(config, SPEC, rule).learner.init(
        jax.random.key(seed), taken(system(seed, rows), np.arange(rows))
    )


def predictor(config):
    predict = ensemble(config, SPEC, never).predict
    assert predict is not None
    return jax.jit(predict)


def batches(seed, members=CONFIG.members, rows=16):
    return jax.tree.map(
        lambda x: x.reshape(members, rows, *x.shape[1:]),
        taken(system(seed, members * rows), np.arange(members * rows)),
    )


@pytest.mark.slow
def test_an_exact_linear_gaussian_system_is_learned(learned):
    test = system(9, 2000)
    said = predictor(CONFIG)(learned, test.observation, test.action)
    assert said.mean.shape == said.std.shape == (CONFIG.elites, 2000, 4)
    error = np.asarray(said.mean) - means(test.observation, test.action)
    # 12,800 rows, 500 weights: the mean within a quarter of the noise, its std within a tenth.
    assert (np.sqrt(np.mean(error**2, axis=(0, 1))) < 0.25 * NOISE).all()
    np.testing.assert_allclose(np.mean(said.std, axis=(0, 1)), NOISE, rtol=0.1)
    # On rows held out, what is left of the standardised targets is their noise.
    spread = np.asarray(learned.targets.std)
    np.testing.assert_allclose(learned.best_error, np.mean((NOISE / spread) ** 2), rtol=0.15)


def test_steps_are_draws_of_the_system(learned):
    model = ensemble(CONFIG, SPEC, never)
    test = system(10, 20_001)  # not a multiple of the elites
    carry = model.start(jnp.asarray(test.observation)[:, None], jnp.zeros((20_001, 0, 2)))
    step = jax.jit(model.step)
    carry, following, reward, terminal = step(jax.random.key(0), learned, carry, jnp.asarray(test.action))
    np.testing.assert_array_equal(carry, following)
    assert reward.shape == terminal.shape == (20_001,) and not np.any(terminal)
    drawn = np.concatenate([following, reward[:, None]], axis=1)
    left = drawn - means(test.observation, test.action)  # each row has the answer to its own question
    np.testing.assert_allclose(left.mean(axis=0) / NOISE, 0, atol=0.2)
    np.testing.assert_allclose(left.std(axis=0), NOISE, rtol=0.1)
    correlation = np.corrcoef(left.T) - np.eye(4)
    assert np.abs(correlation).max() < 0.1
    # Exactly, they are draws of the mixture of the elites' predictions.
    said = predictor(CONFIG)(learned, test.observation, test.action)
    variance = np.mean(np.square(said.std), axis=0) + np.var(said.mean, axis=0)
    z = (drawn - np.mean(said.mean, axis=0)) / np.sqrt(variance)
    np.testing.assert_allclose(z.mean(axis=0), 0, atol=0.03)  # 4 standard errors
    np.testing.assert_allclose(z.std(axis=0), 1, atol=0.02)
    again = step(jax.random.key(0), learned, jnp.asarray(test.observation), jnp.asarray(test.action))
    np.testing.assert_array_equal(again[1], following)
    other = step(jax.random.key(1), learned, jnp.asarray(test.observation), jnp.asarray(test.action))
    assert not np.any(np.all(np.asarray(other[1]) == np.asarray(following), axis=1))


def constant(state, values, log_variance):
    """Members whose standardised mean is `values[m]` everywhere, in `best` only."""
    network = jax.tree.map(jnp.zeros_like, state.best["network"])
    members, width = network["Dense_1"]["bias"].shape
    bias = np.full((members, width), log_variance, np.float32)
    bias[:, :4] = np.asarray(values)[:, None]
    network["Dense_1"]["bias"] = jnp.asarray(bias)
    low = jnp.full((members, 4), -30.0)
    return state._replace(best={"network": network, "low": low, "high": -low})


def test_each_row_is_stepped_by_one_elite_and_all_as_often():
    state = constant(fresh(), [0.0, 1.0, 2.0, 3.0], log_variance=-20.0)
    state = state._replace(elites=jnp.array([3, 1], jnp.int32))
    model = ensemble(CONFIG, SPEC, never)
    observation = jnp.zeros((5, 3))

    def member(key):
        _, following, reward, _ = model.step(key, state, observation, jnp.zeros((5, 2)))
        changed = state.targets(jnp.concatenate([following, reward[:, None]], axis=1))
        return changed

    seen = np.asarray(jax.jit(jax.vmap(member))(jax.random.split(jax.random.key(0), 4000)))
    assert np.ptp(seen, axis=2).max() < 0.01  # all coordinates of a row are of one member
    which = np.rint(seen[..., 0]).astype(int)
    assert set(np.unique(which)) == {1, 3}
    np.testing.assert_allclose((which == 3).mean(axis=0), 0.5, atol=0.03)  # each row on its own
    assert np.ptp((which == 3).sum(axis=1)) <= 1 + 1e-6  # 5 rows among 2: 2 or 3 each


def test_predict_gives_the_elites_in_order_and_in_the_units_of_the_task():
    state = constant(fresh(), [0.0, 1.0, 2.0, 3.0], log_variance=np.log(0.25))
    state = state._replace(elites=jnp.array([2, 0], jnp.int32))
    observation = jnp.asarray(system(3, 6).observation)
    said = predictor(CONFIG)(state, observation, jnp.zeros((6, 2)))
    mean, std = np.asarray(state.targets.mean), np.asarray(state.targets.std)
    here = np.concatenate([observation, np.zeros((6, 1))], axis=1)
    np.testing.assert_allclose(said.mean[0], here + mean + 2 * std, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(said.mean[1], here + mean, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(said.std, np.broadcast_to(0.5 * std, (2, 6, 4)), rtol=1e-4)


def numpy_loss(params, x, y, terminal, config):
    """The loss of MBPO in ten lines; bounds count by their mean over members."""
    total = 0.0
    for m in range(x.shape[0]):
        p = jax.tree.map(lambda leaf, m=m: leaf[m], params)
        h = x[m] @ p["network"]["Dense_0"]["kernel"] + p["network"]["Dense_0"]["bias"]
        out = h / (1 + np.exp(-h)) @ p["network"]["Dense_1"]["kernel"] + p["network"]["Dense_1"]["bias"]
        mean, lv = out[:, :4], out[:, 4:8]
        lv = p["high"] - np.logaddexp(0, p["high"] - lv)
        lv = p["low"] + np.logaddexp(0, lv - p["low"])
        total += np.mean((mean - y[m]) ** 2 / np.exp(lv)) + np.mean(lv)
        total += config.bound_weight * np.sum(p["high"] - p["low"]) / x.shape[0]
        total += sum(config.decay[i] / 2 * np.sum(p["network"][f"Dense_{i}"]["kernel"] ** 2) for i in (0, 1))
        if out.shape[1] == 9:
            chance = 1 / (1 + np.exp(-out[:, 8]))
            total += -np.mean(terminal[m] * np.log(chance) + (1 - terminal[m]) * np.log(1 - chance))
    return total


@pytest.mark.parametrize("rule", [never, None])
def test_loss_and_update_equal_numpy(rule):
    config = replace(CONFIG, hidden=(8,), decay=(0.3, 0.7), bound_weight=0.2, learning_rate=0.01)
    state = fresh(config, rule)
    rng = np.random.default_rng(0)
    # Bounds near the log-variances, different for each member, so that they matter.
    params = dict(state.params)
    params["low"] = jnp.asarray(rng.uniform(-1.5, -0.5, (4, 4)), jnp.float32)
    params["high"] = jnp.asarray(rng.uniform(0.0, 1.0, (4, 4)), jnp.float32)
    x = rng.normal(size=(4, 16, 5)).astype(np.float32)
    y = rng.normal(size=(4, 16, 4)).astype(np.float32)
    terminal = (rng.random((4, 16)) < 0.5).astype(np.float32)
    wide = jax.tree.map(lambda p: np.asarray(p, np.float64), params)
    network = member_network(config, SPEC, rule)
    gradient_of = jax.jit(jax.value_and_grad(loss, has_aux=True), static_argnames=("config", "network"))
    (value, _), gradient = gradient_of(params, x, y, jnp.asarray(terminal), config=config, network=network)
    np.testing.assert_allclose(value, numpy_loss(wide, x, y, terminal, config), rtol=1e-5)
    for seed in range(3):  # its gradient in random directions by central differences
        rng = np.random.default_rng(seed)
        way = jax.tree.map(lambda p, rng=rng: rng.normal(size=p.shape), wide)
        up, down = (jax.tree.map(lambda p, w, h=h: p + h * w, wide, way) for h in (1e-5, -1e-5))
        slope = numpy_loss(up, x, y, terminal, config) - numpy_loss(down, x, y, terminal, config)
        along = jax.tree.map(lambda g, w: np.sum(np.asarray(g, np.float64) * w), gradient, way)
        np.testing.assert_allclose(sum(jax.tree.leaves(along)), slope / 2e-5, rtol=1e-3)
    # The first step of Adam is lr * sign(gradient).
    state = state._replace(params=params)
    raw, target = state.inputs.inverse(jnp.asarray(x)), state.targets.inverse(jnp.asarray(y))
    batch = Transition(
        observation=raw[..., :3],
        action=raw[..., 3:],
        reward=target[..., 3],
        next_observation=raw[..., :3] + target[..., :3],
        terminal=jnp.asarray(terminal),
    )
    new, metrics = jax.jit(ensemble(config, SPEC, rule).learner.update)(jax.random.key(0), state, batch)
    np.testing.assert_allclose(metrics["loss"], value, rtol=1e-4)
    moved = jax.tree.map(
        lambda n, p, g: np.abs(n - p + 0.01 * np.sign(g))[np.abs(g) > 1e-3].max(initial=0),
        new.params,
        params,
        gradient,
    )
    assert max(jax.tree.leaves(moved)) < 1e-4


def test_targets_and_inputs_are_standardised_and_constants_only_shifted():
    data = system(0, 1000)
    data.observation[:, 1] = 0.1
    data.next_observation[:, 1] = 0.1
    data.action[:, 0] = 0.3
    state = ensemble(CONFIG, SPEC, never).learner.init(jax.random.key(0), taken(data, np.arange(1000)))
    x = np.concatenate([data.observation, data.action], axis=1)
    encoded = np.asarray(state.inputs(jnp.asarray(x)))
    np.testing.assert_allclose(encoded.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(encoded.std(axis=0), [1, 0, 1, 0, 1], atol=1e-4)
    np.testing.assert_array_equal(state.inputs.std[jnp.array([1, 3])], 1)
    assert state.targets.std[1] == 1 and state.targets.mean[1] == 0
    change = np.concatenate([data.next_observation - data.observation, data.reward[:, None]], axis=1)
    np.testing.assert_allclose(state.targets.mean, change.mean(axis=0), rtol=1e-3, atol=1e-5)


def leaf(params):
    return np.asarray(params["low"])[:, 0]


def with_params(state, value):
    return state._replace(params=jax.tree.map(lambda p: jnp.full_like(p, value), state.params))


def test_members_keep_their_best_and_the_lowest_are_elites():
    config = replace(CONFIG, improvement=0.1, patience=2)
    state = fresh(config)

    def epoch(state, value, errors):
        return keep_best(with_params(state, value), jnp.asarray(errors, jnp.float32), config=config)

    state = epoch(state, 1.0, [4.0, 3.0, 2.0, np.nan])
    np.testing.assert_array_equal(leaf(state.best)[:3], 1)
    assert leaf(state.best)[3] == -10 and np.isinf(state.best_error[3])  # diverged: never copied
    np.testing.assert_array_equal(state.elites, [2, 1])
    assert int(state.stale) == 0 and int(state.epoch) == 1
    # Member 1 got better by too little, member 2 worse; member 0 became the best.
    state = epoch(state, 2.0, [1.0, 2.8, 5.0, np.inf])
    np.testing.assert_array_equal(leaf(state.best), [2, 1, 1, -10])
    np.testing.assert_array_equal(state.best_error, [1, 3, 2, np.inf])
    np.testing.assert_array_equal(state.elites, [0, 2])
    assert int(state.stale) == 0 and not finished(state, config)
    np.testing.assert_array_equal(leaf(state.params), 2)  # training goes on from where it was
    state = epoch(state, 3.0, [1.0, 3.0, 2.0, np.nan])
    assert int(state.stale) == 1 and not finished(state, config)
    state = epoch(state, 4.0, [1.0, 3.0, 2.0, np.nan])
    assert int(state.stale) == 2 and finished(state, config)
    np.testing.assert_array_equal(leaf(state.best), [2, 1, 1, -10])
    assert int(epoch(state, 5.0, [0.8, 3.0, 2.0, np.nan]).stale) == 0
    assert finished(fresh(config)._replace(epoch=jnp.int32(400)), config)


def test_validation_measures_the_means_on_the_holdout_and_shares_no_buffer():
    state = fresh(seed=1)
    holdout = taken(system(2, 50), np.arange(50))
    errors = holdout_errors(state, holdout, config=CONFIG, spec=SPEC, rule=never)
    after = jax.jit(validation(CONFIG, SPEC, never))(state, holdout)
    np.testing.assert_allclose(after.best_error, errors, rtol=1e-5)
    np.testing.assert_array_equal(after.elites, np.argsort(errors)[:2])
    # The untrained networks predict, so their errors in the units of the task are known too.
    everyone = state._replace(elites=jnp.arange(4))
    all_config = replace(CONFIG, elites=4)
    said = predictor(all_config)(everyone, holdout.observation, holdout.action)
    true = np.concatenate([holdout.next_observation, holdout.reward[:, None]], axis=1)
    off = (np.asarray(said.mean) - true) / np.asarray(state.targets.std)
    np.testing.assert_allclose(errors, np.mean(off**2, axis=(1, 2)), rtol=1e-3)
    eager = ensemble(CONFIG, SPEC, never).learner.init(jax.random.key(0), holdout)
    for s in (state, eager, after):
        places = [x.unsafe_buffer_pointer() for x in jax.tree.leaves(s)]
        assert len(places) == len(set(places))


def test_members_learn_independently_of_each_other():
    batch = batches(4)
    state = fresh()
    model = ensemble(CONFIG, SPEC, never)
    update = jax.jit(model.learner.update)
    one, _ = update(jax.random.key(0), state, batch)
    other = jax.tree.map(lambda x: x.at[1:].set(x[::-1][1:]), batch)  # other rows for members 1, 2, 3
    two, _ = update(jax.random.key(0), state, other)
    same = jax.tree.map(lambda a, b: np.all(a == b, axis=tuple(range(1, a.ndim))), one.params, two.params)
    kernel = same["network"]["Dense_0"]["kernel"]
    np.testing.assert_array_equal(kernel, [True, False, False, False])
    assert all(leaf[0] for leaf in jax.tree.leaves(same))


def test_states_can_be_vmapped():
    model = ensemble(CONFIG, SPEC, None)
    data = taken(system(0, 100), np.arange(100))
    keys = jax.random.split(jax.random.key(0), 2)
    states = jax.jit(jax.vmap(model.learner.init, in_axes=(0, None)))(keys, data)
    states, _ = jax.jit(jax.vmap(model.learner.update, in_axes=(0, 0, None)))(keys, states, batches(4))
    one, _ = jax.jit(model.learner.update)(keys[1], jax.jit(model.learner.init)(keys[1], data), batches(4))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a[1], b, rtol=1e-3, atol=1e-5), states.params, one.params
    )
    action = jnp.zeros((7, 2))
    answer = jax.jit(jax.vmap(model.step, in_axes=(0, 0, None, None)))(
        keys, states, data.observation[:7], action
    )
    assert answer[1].shape == (2, 7, 3) and answer[3].shape == (2, 7)


def test_a_bootstrap_leaves_out_a_share_of_1_over_e_and_differs_per_member():
    table = np.asarray(bootstrap(jax.random.key(0), 20_000, 7))
    assert table.shape == (7, 20_000) and table.dtype == np.int32
    assert table.min() >= 0 and table.max() < 20_000
    covered = [len(np.unique(row)) / 20_000 for row in table]
    np.testing.assert_allclose(covered, 1 - np.exp(-1), atol=0.01)
    assert len({row.tobytes() for row in table}) == 7
    both = np.intersect1d(table[0], table[1]).size / 20_000
    np.testing.assert_allclose(both, (1 - np.exp(-1)) ** 2, atol=0.01)  # as of independent draws


def test_each_member_draws_from_its_own_bootstrap():
    rows = 40
    data = taken(system(0, rows), np.arange(rows))._replace(reward=jnp.arange(rows, dtype=jnp.float32))
    table = bootstrap(jax.random.key(1), rows, 3)
    draw = BootstrapDraw(3, 2, 3)
    drawn = batches_of(draw, 2000)(jax.random.key(2), Bootstrapped(pack(data), table))
    assert drawn.observation.shape == (3, 2000, 3) and drawn.next_action is None
    for m in range(3):
        assert set(np.asarray(drawn.reward[m], int)) == set(np.asarray(table[m]))
        index = np.asarray(drawn.reward[m], int)
        np.testing.assert_array_equal(drawn.next_observation[m], data.next_observation[index])
    assert batches_of(draw, 8) == batches_of(BootstrapDraw(3, 2, 3), 8)  # one compiled program


def test_the_holdout_is_disjoint_from_training():
    config = replace(CONFIG, holdout_share=0.2, holdout_limit=100)
    for count, held_rows in ((400, 80), (1000, 100), (128, 25)):
        kept, held = split_holdout(jax.random.key(0), count, config)
        assert len(held) == held_rows
        np.testing.assert_array_equal(np.sort(np.concatenate([kept, held])), np.arange(count))
    other = split_holdout(jax.random.key(1), 128, config)[1]
    assert not np.array_equal(held, other)
    assert epoch_updates(6400, CONFIG) == 100 and epoch_updates(6401, CONFIG) == 101


def test_training_goes_on_bit_for_bit_after_an_epoch():
    config = replace(CONFIG, epochs=3)
    data = taken(system(5, 500), np.arange(500))
    training, holdout = (jax.tree.map(lambda x, s=s: x[s], data) for s in (slice(400), slice(400, None)))
    fit_epoch = fitter(config, never, training, jax.random.key(3))

    def run(state, after=None):
        return train(state, fit_epoch, holdout, rows=400, config=config, spec=SPEC, rule=never, after=after)

    saved = []
    whole = run(fresh(config), after=lambda s: saved.append(jax.tree.map(np.array, s)))
    assert [int(s.epoch) for s in saved] == [1, 2, 3]
    again = run(jax.tree.map(jnp.asarray, saved[0]))
    jax.tree.map(np.testing.assert_array_equal, whole, again)
    jax.tree.map(np.testing.assert_array_equal, whole, run(again))  # nothing is left to do


@pytest.mark.slow
def test_a_terminal_head_learns_where_episodes_end():
    config = CONFIG
    state = trained(config, None, rows=6000)
    test = system(11, 4000)
    model = ensemble(config, SPEC, None)
    *_, terminal = jax.jit(model.step)(
        jax.random.key(0), state, jnp.asarray(test.observation), jnp.asarray(test.action)
    )
    assert set(np.unique(terminal)) == {0, 1}
    clear = np.abs(test.observation[:, 0] - OFFSET[0] - 0.5) > 0.4
    assert np.mean(np.asarray(terminal)[clear] == test.terminal[clear]) > 0.97
    np.testing.assert_allclose(np.mean(terminal), np.mean(test.terminal), atol=0.03)


def test_a_rule_ends_what_a_step_leads_to():
    spec = Spec(observation_dim=11, action_dim=3)
    rng = np.random.default_rng(0)
    rows = Transition(
        *(jnp.asarray(rng.normal(size=s), jnp.float32) for s in ((9, 11), (9, 3), 9, (9, 11), 9))
    )
    model = ensemble(CONFIG, spec, RULES["Hopper"])
    state = jax.jit(model.learner.init)(jax.random.key(0), rows)
    carry, action = rows.observation, rows.action
    _, following, _, terminal = jax.jit(model.step)(jax.random.key(0), state, carry, action)
    np.testing.assert_array_equal(terminal, RULES["Hopper"](carry, action, following).astype(jnp.float32))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: EnsembleConfig(elites=8), "ensemble.elites is 8: it must lie between 1 and 7"),
        (lambda: EnsembleConfig(members=0), "ensemble.members is 0: it must be at least 1"),
        (lambda: EnsembleConfig(holdout_share=1.0), "ensemble.holdout_share is 1.0"),
        (lambda: EnsembleConfig(hidden=(64, 64)), "ensemble.decay has 5 values, but members have 3 layers"),
        (lambda: split_holdout(jax.random.key(0), 511, EnsembleConfig()), "511 transitions.*at most 255"),
        (
            lambda: ensemble(CONFIG, Spec(4, 2), never).learner.init(jax.random.key(0), system(0, 8)),
            "observations of 3 and actions of 2 numbers, but the ensemble was made for 4 and 2",
        ),
    ],
)
def test_mistakes_are_said_in_one_line(make, message):
    with pytest.raises(UserError, match=message) as caught:
        make()
    assert "\n" not in str(caught.value)


def test_an_ensemble_that_diverged_is_no_model():
    config = replace(CONFIG, epochs=2)

    def fit_epoch(state, start, stop):
        return with_params(state, jnp.nan)

    with pytest.raises(UserError, match=r"0 of 4 members ever had a finite.*lower ensemble.learning_rate"):
        holdout = taken(system(0, 8), np.arange(8))
        train(fresh(config), fit_epoch, holdout, rows=64, config=config, spec=SPEC, rule=never)


def test_equal_settings_are_the_same_model():
    assert ensemble(CONFIG, SPEC, never) is ensemble(replace(CONFIG), Spec(3, 2), never)
    assert ensemble(CONFIG, SPEC, never).learner != ensemble(CONFIG, SPEC, None).learner
