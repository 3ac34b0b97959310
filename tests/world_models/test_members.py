"""Members of an ensemble against numpy: their loss, their rows, their bootstraps."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from linear_system import CONFIG, SPEC, batches, fresh, system, taken

from jdp.data import batches as batches_of
from jdp.types import Transition, pack
from jdp.world_models.bootstrap import BootstrapDraw, Bootstrapped, bootstrap
from jdp.world_models.ensemble import ensemble, member_network
from jdp.world_models.members import loss
from jdp.world_models.termination import never


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
    fixed = {"network": network, "bound_weight": config.bound_weight, "decay": config.decay}
    gradient_of = jax.jit(jax.value_and_grad(loss, has_aux=True), static_argnames=tuple(fixed))
    (value, _), gradient = gradient_of(params, x, y, jnp.asarray(terminal), **fixed)
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
