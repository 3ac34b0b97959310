"""Losses against numpy, targets the right way up, and the gradient through Diffusion-QL's chain."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from policy_batches import GOALS, ROWS, TINY, programs, segments, shaken

from jdp.learning.candidates import repeated
from jdp.policies import actions
from jdp.policies.dql import next_value, q_loss
from jdp.policies.relabelled import imitated, transitions
from jdp.types import named_keys

dql, edp, fql = (__import__(f"jdp.policies.{n}", fromlist=["_"]) for n in ("dql", "edp", "fql"))


def begun(name, **changes):
    """A config, a state, a batch as a step of the task, and which rows are imitated."""
    config, state = replace(TINY[name], **changes), programs(name).state
    batch = segments(0)
    if name != "fql":
        state = state._replace(actor=state.actor._replace(params=shaken(state.actor.params)))
    step = jax.jit(transitions, static_argnums=(2, 3))(batch, state.standardise, GOALS, config)
    return config, state, batch, step, imitated(batch, GOALS)


@pytest.mark.parametrize("name", ["dql", "idql", "edp", "fql"])
def test_targets_move_by_tau_and_terminals_end_the_task(name):
    _, state, batch, _, _ = begun(name)
    batch = batch._replace(distance=np.ones(ROWS, np.int32))  # every next row is the goal
    new, metrics = programs(name).update(jax.random.key(1), state, batch)
    old, online, target = (
        t["Dense_1"]["kernel"] for t in (state.target_critic, new.critic.params, new.target_critic)
    )
    np.testing.assert_allclose(target, 0.9 * old + 0.1 * online, rtol=1e-5, atol=1e-7)
    assert np.abs(online - old).max() > 1e-3  # the critics moved, so the test tells
    assert metrics["target_mean"] == 0.0  # reward 0, and nothing is bootstrapped


@pytest.mark.parametrize("coin", [True, False])
def test_the_coin_swaps_the_critics(coin):
    rng = np.random.default_rng(0)
    q, keep = rng.normal(size=(2, 12)).astype(np.float32), np.arange(12) % 3 > 0
    one, other = (q[0], q[1]) if coin else (q[1], q[0])
    wanted = -one[keep].mean() / np.abs(other[keep]).mean()
    assert q_loss(jnp.array(coin), jnp.asarray(q), jnp.asarray(keep)) == pytest.approx(wanted, rel=1e-5)
    slope = jax.grad(lambda q: q_loss(jnp.array(coin), q, jnp.asarray(keep)))(jnp.asarray(q))
    expected = np.zeros_like(q)
    expected[0 if coin else 1, keep] = -1 / keep.sum() / np.abs(other[keep]).mean()
    np.testing.assert_allclose(slope, expected, rtol=1e-5, atol=1e-8)


def test_the_gradient_passes_the_whole_chain():
    """Along any direction it is the slope of the sampled actions' Q, which one step's would not be."""
    config, state, _, step, _ = begun("dql", sampling_steps=3)
    critic, key = shaken(state.critic.params), jax.random.key(3)
    shape, seen = step.action.shape, step.observation
    params = shaken(programs("dql").state.actor.params, scale=0.1)  # few actions at the edge of the box

    def value(params):
        action = config.sampling().draw(key, actions.denoiser(params, seen, config), shape)
        return jnp.mean(config.critic().apply(critic, seen, action)[0])

    direction, h = shaken(jax.tree.map(np.zeros_like, params), seed=7, scale=1.0), 2e-3

    @jax.jit
    def slopes(params):
        up, down = (jax.tree.map(lambda p, d, s=s: p + s * h * d, params, direction) for s in (1, -1))
        return jax.jvp(value, (params,), (direction,))[1], (value(up) - value(down)) / (2 * h)

    found, wanted = slopes(params)
    assert abs(found) > 1e-2
    assert found == pytest.approx(float(wanted), rel=0.03)


def test_dql_is_imitation_and_eta_times_q():
    config, state, _, step, keep = begun("dql", eta=3.0)
    loss = jax.jit(dql.actor_loss, static_argnames="config")
    params, critic, key = state.actor.params, shaken(state.critic.params), jax.random.key(4)
    some, parts = loss(key, params, critic, step, keep, config=config)
    keys = named_keys(key, "level", "noise", "sample", "coin")
    sample = jax.jit(partial(config.sampling().draw, shape=(ROWS, 2)))
    action = sample(keys["sample"], actions.denoiser(params, step.observation, config))
    q = jax.jit(config.critic().apply)(critic, step.observation, action)
    lq = q_loss(jax.random.bernoulli(keys["coin"]), q, keep)
    assert parts["q_loss"] == pytest.approx(float(lq), rel=1e-4)
    assert some == pytest.approx(float(parts["bc_loss"] + 3 * lq), rel=1e-4)


def test_max_q_backup_takes_the_best_action_of_each_critic():
    config, state, _, step, _ = begun("dql", max_q_backup=True, backup_actions=5)
    state = state._replace(target_critic=shaken(state.target_critic))
    seen, key = step.observation, jax.random.key(5)
    found = jax.jit(partial(next_value, config=config, spec=GOALS))(key, state, seen)
    sampled = jax.jit(actions.candidates, static_argnums=(3, 4, 5))(key, state.actor.ema, seen, 5, 2, config)
    critic = jax.jit(config.critic().apply)
    q = critic(state.target_critic, repeated(seen, 5), sampled).reshape(2, -1, 5)
    q = list(np.moveaxis(np.asarray(q), 2, 0))  # [2, B] each
    np.testing.assert_allclose(found, np.stack(q).max(axis=0).min(axis=0), rtol=1e-4, atol=1e-5)


def test_edp_denoises_the_noised_action_once():
    config, state, _, step, keep = begun("edp", alpha=2.5)
    params, critic, key = state.actor.params, state.critic.params, jax.random.key(6)
    loss, metrics = jax.jit(edp.actor_loss, static_argnums=5)(key, params, critic, step, keep, config)

    keys = named_keys(key, "level", "noise", "action_level", "action_noise")
    sigma = np.asarray(actions.levels(keys["action_level"], ROWS, config))[:, None]
    x = np.asarray(step.action) + sigma * np.asarray(jax.random.normal(keys["action_noise"], (ROWS, 2)))
    total = sigma**2 + 0.25  # sigma_data 1/2; EDM, table 1
    c_noise = jnp.asarray(np.log(sigma[:, 0]) / 4)
    f = jax.jit(config.network().apply)(params, jnp.asarray(x / np.sqrt(total)), c_noise, step.observation)
    action = np.clip(0.25 / total * x + sigma / 2 / np.sqrt(total) * np.asarray(f), -1, 1)
    q = jax.jit(config.critic().apply)(critic, step.observation, jnp.asarray(action))
    q = np.asarray(q)[0, np.asarray(keep)]
    assert metrics["q_weight"] == pytest.approx(2.5 / np.abs(q).mean(), rel=1e-4)
    wanted = metrics["bc_loss"] - 2.5 * q.mean() / np.abs(q).mean()
    assert loss == pytest.approx(float(wanted), rel=1e-4)


def test_idql_learns_v_then_q_and_takes_the_best_candidate():
    config, state, batch, step, _ = begun("idql")
    update, act = programs("idql").update, programs("idql").act
    new, metrics = update(jax.random.key(1), state, batch)
    v = jax.jit(config.value().apply)(new.value.params, step.next_observation)[:, 0]
    wanted = np.mean(step.reward + 0.9 * (1 - step.terminal) * v)  # of the new V
    assert metrics["target_mean"] == pytest.approx(float(wanted), rel=1e-4)

    observation, key = batch.observation[:3, 0], jax.random.key(2)
    _, decision = act(key, new, (), observation, batch.goal[:3])
    seen, draw = step.observation[:3], named_keys(key, "sample", "select")["sample"]
    found = jax.jit(actions.candidates, static_argnums=(3, 4, 5))(draw, new.actor.ema, seen, 32, 2, config)
    critic = jax.jit(config.critic().apply)
    q = critic(new.target_critic, repeated(seen, 32), found).min(axis=0).reshape(3, 32)
    best = np.asarray(q).argmax(axis=1)
    wanted = np.asarray(found).reshape(3, 32, 2)[np.arange(3), best]
    np.testing.assert_allclose(decision.action, wanted, atol=1e-5)
    np.testing.assert_allclose(decision.value, np.asarray(q).max(axis=1), atol=1e-5)
    assert decision.decided.all()


def gelu_mlp(p, x):
    for i in range(len(p)):
        x = x @ np.asarray(p[f"Dense_{i}"]["kernel"]) + np.asarray(p[f"Dense_{i}"]["bias"])
        if i + 1 < len(p):
            x = 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))
    return x


@pytest.mark.parametrize("normalise", [True, False])
def test_fqls_three_terms_equal_numpy(normalise):
    config, state, _, step, mask = begun("fql", alpha=3.0, normalise_q=normalise)
    params, critic, key = shaken(state.actor.params), state.critic.params, jax.random.key(7)
    loss = jax.jit(partial(fql.actor_loss, config=config, network=config.network(GOALS)))
    found, metrics = loss(params, key, critic, step, mask)
    keys, keep = named_keys(key, "noise", "time", "distil"), np.asarray(mask)
    s, a = np.asarray(step.observation), np.asarray(step.action)
    z, e = (np.asarray(jax.random.normal(keys[k], (ROWS, 2))) for k in ("noise", "distil"))
    t = np.asarray(jax.random.uniform(keys["time"], (ROWS,)))[:, None]
    v = gelu_mlp(params["flow"], np.concatenate([s, (1 - t) * z + t * a, t], axis=1))
    flow = np.square(v - (a - z))[keep].mean()

    x = e
    for k in range(5):  # Euler
        x = x + gelu_mlp(params["flow"], np.concatenate([s, x, np.full((ROWS, 1), k / 5)], axis=1)) / 5
    mu = gelu_mlp(params["one_step"], np.concatenate([s, e], axis=1))
    distil = np.square(mu - np.clip(x, -1, 1))[keep].mean()
    q = jax.jit(config.critic().apply)(critic, step.observation, jnp.asarray(np.clip(mu, -1, 1), jnp.float32))
    q = np.asarray(q).mean(axis=0)[keep]
    climb = -q.mean() / (np.abs(q).mean() if normalise else 1)
    for name, value in {"bc_loss": flow, "distil_loss": distil, "q_loss": climb}.items():
        assert metrics[name] == pytest.approx(value, rel=1e-4), name
    assert found == pytest.approx(flow + 3 * distil + climb, rel=1e-4)


def test_fqls_flow_learns_only_from_its_own_loss():
    config, state, _, step, keep = begun("fql")

    def flow_gradient(alpha):
        loss = partial(fql.actor_loss, config=replace(config, alpha=alpha), network=config.network(GOALS))
        slope = jax.jit(jax.grad(loss, has_aux=True))
        return slope(state.actor.params, jax.random.key(8), state.critic.params, step, keep)[0]["flow"]

    jax.tree.map(np.testing.assert_array_equal, flow_gradient(0.0), flow_gradient(100.0))
