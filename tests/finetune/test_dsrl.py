"""DSRL: noise within its bound, a critic of noise that is that of actions, and a policy of eight modes."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_find import BASE, KEY, SPEC, base_state

from jdp.errors import UserError
from jdp.finetune import dsrl, make, noise
from jdp.finetune.dsrl import DSRLConfig
from jdp.learning.acting import OffPolicyConfig
from jdp.loops import train_online
from jdp.types import Spec, Stepped, Task

FAST = {f"{name}_learning_rate": 3e-3 for name in ("actor", "critic", "alpha")}
TINY = DSRLConfig(
    acting=OffPolicyConfig(16, batch_size=64, capacity=4_000, warm_up=256, updates=2), hidden=(32, 32),
    noise_steps=2, initial_alpha=0.1, **FAST,
)  # fmt: skip
SHOWN, GOALS = jnp.linspace(-1, 1, 12).reshape(6, 2), jnp.zeros((6, 0))


@pytest.fixture
def doubled(monkeypatch):
    """A policy whose chunks are half their noise."""
    monkeypatch.setattr(noise, "decode", lambda state, shown, w, base: w / 2)


@pytest.mark.parametrize("variant", ["na", "sac"])
def test_noise_stays_within_its_bound_and_the_base_policy_begins(doubled, variant):
    config = replace(TINY, variant=variant, hidden=(8,))
    method = make(config, SPEC, base=BASE)
    state = jax.jit(method.learner.init)(KEY, base_state())
    wild = jax.tree.map(lambda x: x + 1e3, state.sac.actor.params)
    state = state._replace(sac=state.sac._replace(actor=state.sac.actor._replace(params=wild)))
    decision = jax.jit(method.behaviour.act)(KEY, state, (), SHOWN, GOALS)[1]
    np.testing.assert_allclose(np.abs(2 * decision.action), config.bound, rtol=1e-6)
    scored = jax.jit(method.policy.act)(KEY, state, method.policy.init(SHOWN), SHOWN, GOALS)[1]
    np.testing.assert_allclose(np.abs(2 * scored.action), config.bound, rtol=1e-6)
    first = jax.jit(method.warm_up.act)(KEY, state, (), SHOWN, GOALS)[1]
    drawn = np.clip(jax.random.normal(KEY, (6, 2)), -config.bound, config.bound)
    np.testing.assert_allclose(2 * first.action, drawn[:, :1], rtol=1e-6)
    if variant == "sac":  # the buffer keeps the whole noise
        np.testing.assert_allclose(config.bound * first.latent, drawn, rtol=1e-6)
    else:
        assert first.latent is None


def test_the_critic_of_noise_is_taught_what_the_decoded_action_is_worth(doubled):
    config = replace(TINY, hidden=(8,))  # whose programs the test above has compiled
    state = jax.jit(make(config, SPEC, base=BASE).learner.init)(KEY, base_state())
    unit = np.linspace(-1, 1, 12, dtype=np.float32).reshape(6, 2)
    found = dsrl.noise_target(state, SHOWN, unit, config, SPEC, BASE)
    seen = np.concatenate([SHOWN, 0.75 * unit[:, :1]], axis=1)  # half of 1.5 times the unit, the first action
    members = jax.tree.map(np.asarray, state.sac.critic.params)
    hidden = np.tanh(seen @ members["Dense_0"]["kernel"] + members["Dense_0"]["bias"][:, None])
    hidden = (hidden - hidden.mean(-1, keepdims=True)) / np.sqrt(hidden.var(-1, keepdims=True) + 1e-6)
    q = (hidden @ members["Dense_1"]["kernel"])[..., 0] + members["Dense_1"]["bias"]
    np.testing.assert_allclose(found, q.min(0), atol=1e-4)
    assert np.std(found) > 1e-3


def test_what_it_cannot_steer_is_refused():
    with pytest.raises(UserError, match="draws noise of its own"):
        make(TINY, SPEC, base=replace(BASE, sampler="dpmpp_2m_sde"))
    mixed = replace(TINY, acting=replace(TINY.acting, offline_share=0.5))
    with pytest.raises(UserError, match="rows of a dataset have no noise"):
        make(replace(mixed, variant="sac"), SPEC, base=BASE)
    with pytest.raises(UserError, match="rows of a dataset do not say which"):
        make(mixed, replace(SPEC, goal=(0,)), base=BASE)
    with pytest.raises(UserError, match="leave normalise_observations out"):
        DSRLConfig(normalise_observations=True)


PLANE, RADIUS, WANTED = Spec(2, 2, "modes", 1), 0.7, 3


def _reset(key):
    return (), jnp.zeros(2), jnp.zeros(0)


def _mode(which):
    angle = which * jnp.pi / 4
    return RADIUS * jnp.stack([jnp.cos(angle), jnp.sin(angle)], axis=-1)


def _step(key, state, action):
    """Rewards what is near one of eight modes."""
    far, never = jnp.linalg.norm(action - _mode(WANTED)), jnp.zeros((), bool)
    return (), Stepped(jnp.zeros(2), jnp.exp(-jnp.square(far / 0.2)), jnp.ones((), bool), never)


def _modes(state, shown, w, base):
    """One of eight modes by the angle of the noise, and a spread of .05 by its length."""
    which = jnp.round(jnp.arctan2(w[:, 1], w[:, 0]) / (jnp.pi / 4))
    spread = 0.05 * jnp.tanh(jnp.linalg.norm(w, axis=-1, keepdims=True) - 1)
    return _mode(which) * (1 + spread)


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["na", "sac"])
def test_noise_finds_the_rewarded_mode_and_stays_within_the_modes(monkeypatch, variant):
    monkeypatch.setattr(noise, "decode", _modes)
    base = replace(BASE, chunk=1)
    config = replace(TINY, variant=variant, target_entropy=-2.0)
    method = make(config, PLANE, base=base)
    task = Task(_reset, _step, PLANE)
    options = {"key": KEY, "updates": 500, "seeds": 2, "chunk": 500, "base": base_state()}
    states = train_online(method, task, config.acting, **options)
    here, none = jnp.zeros((64, 2)), jnp.zeros((64, 0))
    for seed in range(2):
        one = jax.tree.map(lambda x, seed=seed: x[seed], states)
        scored = method.policy.act(KEY, one, method.policy.init(here), here, none)[1].action
        assert (np.linalg.norm(scored - np.asarray(_mode(WANTED))[None], axis=1) < 0.05).all(), scored[0]
        drawn = method.behaviour.act(KEY, one, (), here, none)[1].action
        away = np.linalg.norm(drawn[:, None] - np.asarray(_mode(jnp.arange(8.0)))[None], axis=2).min(1)
        assert away.max() <= 0.05 * RADIUS + 1e-6
    jax.tree.map(lambda ours, base: np.testing.assert_array_equal(ours[0], base), states.base, base_state())
