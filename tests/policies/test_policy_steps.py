"""Diffusion policy by steps: what is diffused, judged and played (Hyper Diffusion Planner)."""

from dataclasses import replace
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from policy_batches import GOALS, ROWS, SPEC, TINY, offsets_of, rows_like, segments, shaken

from jdp import UserError
from jdp.finetune.chain import check_base
from jdp.learning.scale import StepScale
from jdp.policies import chunks, cost_guide, make
from jdp.policies.diffusion_policy import of_steps
from jdp.policies.relabelled import imitated
from jdp.types import named_keys

CONFIG = replace(
    TINY["diffusion_policy"],
    formulation="vp_x0",
    representation="steps",
    waypoint_weight=0.05,
    waypoint_window=3,
)


@cache
def begun():
    method = make(CONFIG, GOALS)
    state = jax.jit(method.learner.init)(jax.random.key(0), rows_like(segments(0, offsets_of(method))))
    actor = state.actor._replace(params=shaken(state.actor.params), ema=shaken(state.actor.ema))
    return state._replace(actor=actor)


def test_the_loss_is_that_of_steps_and_of_the_actions_that_they_lead_to():
    method, state = make(CONFIG, GOALS), begun()
    batch, key = segments(3, offsets_of(method)), jax.random.key(4)
    _, metrics = jax.jit(method.learner.update)(key, state, batch)
    keys, keep = named_keys(key, "level", "noise"), np.asarray(imitated(batch, GOALS))
    action = np.asarray(batch.action, float)[:, 1:]  # the history is 2
    x0 = np.diff(np.concatenate([0 * action[:, :1], action], axis=1), axis=1)
    sigma = np.asarray(CONFIG.trains().levels(keys["level"], ROWS, jnp.float32), float)[:, None]
    x = x0.reshape(ROWS, -1) + sigma * np.asarray(jax.random.normal(keys["noise"], (ROWS, 8)))
    seen = chunks.condition(state.standardise, batch.observation[:, :2], batch.goal, GOALS)
    c_noise = CONFIG.trains().preconditioning.condition(jnp.asarray(sigma[:, 0], jnp.float32))
    scaled = jnp.asarray(x / np.sqrt(1 + sigma**2), jnp.float32)
    said = jax.jit(CONFIG.network().apply)(state.actor.params, scaled, c_noise, seen)
    said = np.asarray(said, float).reshape(ROWS, 4, 2)
    error = np.square(said - x0) + 0.05 * np.square(np.cumsum(said, axis=1) - action)
    assert metrics["loss"] == pytest.approx(error[keep].mean(), rel=1e-3)


def test_the_policy_plays_the_actions_that_its_steps_lead_to():
    method, state = make(CONFIG, GOALS), begun()
    observation, goal = jax.random.normal(jax.random.key(1), (3, 3)), jnp.ones((3, 2))
    act, carry, emitted = jax.jit(method.policy.act), method.policy.init(observation), []
    for t in range(3):
        carry, decision = act(jax.random.key(t), state, carry, observation, goal)
        emitted.append(decision.action)
    seen = chunks.condition(state.standardise, jnp.stack([observation] * 2, axis=1), goal, GOALS)
    draw = jax.jit(partial(CONFIG.sampling().draw, shape=(3, 8)))
    steps = draw(jax.random.key(0), of_steps(state.actor.ema, seen, config=CONFIG)).reshape(3, 4, 2)
    path = np.cumsum(steps, axis=1)
    np.testing.assert_allclose(np.stack(emitted, axis=1), path[:, :3], atol=1e-5)
    assert np.abs(path).max() <= 1 + 1e-5 < np.abs(steps).max()  # steps may be longer than the box is wide


def test_what_is_encoded_is_decoded_and_a_guide_is_told_actions():
    chunk = jax.random.uniform(jax.random.key(0), (5, 4, 2), minval=-1.0)
    np.testing.assert_allclose(CONFIG.decode(CONFIG.encode(chunk)), chunk, atol=1e-6)
    units = CONFIG.units(begun().standardise, GOALS)
    assert isinstance(units, StepScale) and units.sigma_data == CONFIG.sigma_data
    np.testing.assert_allclose(units.rows(CONFIG.encode(chunk), chunk[:, 0])[1], chunk, atol=1e-6)
    observation, found = jax.random.normal(jax.random.key(7), (32, 3)), []
    for strength in (0.0, 9.0):
        guide = cost_guide(lambda observation, action: action[:, -1, 0], strength)
        policy = make(CONFIG, GOALS, guide=guide).policy
        carry = policy.init(observation)
        queue = jax.jit(policy.act)(jax.random.key(0), begun(), carry, observation, observation[:, :2])[
            0
        ].queue
        found.append(float(queue[:, 1, 0].mean()))  # the last of the three that are executed
    assert found[1] < found[0] - 0.05


def test_who_takes_chunks_for_actions_refuses_steps():
    with pytest.raises(
        UserError, match="the base policy diffuses steps: train one with representation actions"
    ):
        check_base(replace(CONFIG, history=1))
    with pytest.raises(UserError, match=r"waypoint_window is 0"):
        replace(CONFIG, waypoint_window=0)
    assert make(TINY["diffusion_policy"], SPEC) is not make(CONFIG, SPEC)


@pytest.mark.slow
def test_predicting_and_judging_x0_makes_smoother_chunks_than_eps():
    """Of smooth chunks, which lie in a few dimensions, at equal updates: what is predicted lies there too."""
    rng, time, found = np.random.default_rng(0), np.arange(32) / 31, {}

    def smooth(count):
        a, b, c = rng.uniform(-0.3, 0.3, (3, count, 1, 2))
        return (a + b * time[:, None] + c * np.sin(3 * time)[:, None]).astype(np.float32)

    for name in ("vp_x0", "vp_eps"):
        config = replace(TINY["diffusion_policy"], history=1, chunk=32, execute=32, formulation=name)
        method = make(config, SPEC)
        learner, policy = method.learner, method.policy
        base = segments(0, offsets_of(method), SPEC)
        state = jax.jit(learner.init)(jax.random.key(0), rows_like(base))
        update = jax.jit(learner.update)
        for key in jax.random.split(jax.random.key(1), 600):
            state, _ = update(key, state, base._replace(action=smooth(ROWS)))
        here = jnp.asarray(base.observation[:, 0])
        carry, _ = jax.jit(policy.act)(jax.random.key(2), state, policy.init(here), here, here[:, :0])
        found[name] = np.roll(np.asarray(carry.queue), 1, axis=1)
    jerk = {name: np.square(np.diff(path, n=3, axis=1)).mean() for name, path in found.items()}
    assert jerk["vp_x0"] < 1e-3 * jerk["vp_eps"]
    assert found["vp_x0"].std() == pytest.approx(smooth(512).std(), rel=0.15)  # and not by saying less
