"""Diffusion-VLA: what tokens are, that FiLM says nothing at first, and that a forced token is obeyed."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from policy_batches import GOALS, MODE, ROWS, TINY, offsets_of, programs, rows_like, segments, shaken

from jdp import UserError
from jdp.data import SegmentRows
from jdp.learning.anchors import some_changes
from jdp.policies import actions, chunks, make
from jdp.policies.diffusion_vla import chosen, forcing, labels, told
from jdp.policies.relabelled import imitated
from jdp.types import named_keys

CONFIG = TINY["diffusion_vla"]
STAGED = replace(CONFIG, stage="velocity", tokens=2)
ONE_HOT = replace(CONFIG, stage="position")


def test_a_token_is_the_stage_that_the_chunk_ends_in_or_the_class_of_its_change():
    batch, state = segments(0, CONFIG.offsets()), programs("diffusion_vla").state
    first, last = batch.observation[:, 0], batch.observation[:, -1]
    apart = ((last - first - np.asarray(state.change.mean)) / np.asarray(state.change.std))[:, None]
    nearest = ((apart - np.asarray(state.classes)) ** 2).sum(-1).argmin(1)
    np.testing.assert_array_equal(labels(state, batch.observation, CONFIG, GOALS), nearest)
    assert len(set(nearest)) == 3 == CONFIG.count(GOALS)
    stage = labels(state, batch.observation, STAGED, GOALS)
    np.testing.assert_array_equal(stage, np.clip(np.round(last[:, 2]), 0, 1))
    which = labels(state, batch.observation, ONE_HOT, GOALS)
    np.testing.assert_array_equal(which, last[:, :2].argmax(1))
    assert ONE_HOT.count(GOALS) == 2


def test_changes_cross_no_episode():
    """Observations of episode e are e, 2 e, 3 e, ...: they change by e a row, and not beyond its last."""
    starts = np.arange(30, dtype=np.int32)
    last, none = starts // 5 * 5 + 4, np.zeros(30, np.float32)
    row = (starts - last + 5)[:, None] * (1 + starts // 5)[:, None].astype(np.float32)
    rows = SegmentRows(row.astype(np.float32), none[:, None], none, none, none, starts, last, last - 4)
    found = np.asarray(some_changes(jax.random.key(0), rows, 3, 400))[:, 0]
    wanted = {steps * (1 + e) for e in range(6) for steps in range(3)}
    assert set(found) == wanted


def test_the_stage_is_hidden_from_the_denoiser():
    """In all observations of the history, and nothing else is."""
    config, seen = replace(STAGED, history=2), jnp.arange(1.0, 17.0).reshape(2, 8)
    shown, token = told(seen, jnp.array([1, 0]), config, GOALS)
    np.testing.assert_array_equal(shown, np.asarray(seen) * np.array([1, 1, 0, 1, 1, 0, 1, 1]))
    np.testing.assert_array_equal(token, [[0, 1], [1, 0]])
    np.testing.assert_array_equal(told(seen, jnp.array([1, 0]), CONFIG, GOALS)[0], seen)


def test_film_is_the_identity_at_first():
    """A network that is told something is the one that is told nothing, to the last bit, until it learns."""
    params = programs("diffusion_vla").state.actor.params["denoiser"]["params"]
    films = {name: leaf for name, leaf in params.items() if name.startswith("told_")}
    assert len(films) == CONFIG.blocks
    others = shaken({name: leaf for name, leaf in params.items() if name not in films})
    x, level, seen = jnp.ones((4, 6)), jnp.linspace(-1, 1, 4), jnp.arange(20.0).reshape(4, 5) / 20
    apply, token = jax.jit(CONFIG.network().apply), jnp.eye(3)[jnp.array([0, 1, 2, 1])]
    plain = apply({"params": others}, x, level, seen)
    np.testing.assert_array_equal(apply({"params": others | films}, x, level, (seen, token)), plain)
    learned = apply({"params": others | shaken(films)}, x, level, (seen, token))
    assert np.abs(learned - plain).max(axis=1).min() > 1e-3


def test_the_loss_is_that_of_the_chunk_and_the_cross_entropy():
    method, state, update, _ = programs("diffusion_vla")
    batch, key = segments(3, offsets_of(method)), jax.random.key(4)
    state = state._replace(actor=state.actor._replace(params=shaken(state.actor.params)))
    metrics = update(key, state, batch)[1]
    seen, chunk = chunks.example(batch, state.standardise, CONFIG, GOALS)
    token, keep = labels(state, batch.observation, CONFIG, GOALS), np.asarray(imitated(batch, GOALS))
    said = CONFIG.head(GOALS).apply(state.actor.params["head"], seen)
    wrong = optax.softmax_cross_entropy_with_integer_labels(said, token)[keep].mean()
    assert metrics["token_loss"] == pytest.approx(float(wrong), rel=1e-4)
    right = np.asarray(said).argmax(1) == np.asarray(token)
    assert metrics["token_accuracy"] == pytest.approx(right[keep].mean(), rel=1e-5)
    keys = named_keys(key, "level", "noise")
    sigma = actions.levels(keys["level"], ROWS, CONFIG)
    loss = jax.jit(partial(actions.imitation_loss, config=CONFIG))
    shown = told(seen, token, CONFIG, GOALS)
    found = loss(keys["noise"], state.actor.params["denoiser"], shown, chunk, sigma, keep)
    assert metrics["chunk_loss"] == pytest.approx(float(found), rel=1e-4)
    total = metrics["chunk_loss"] + CONFIG.token_weight * metrics["token_loss"]
    assert metrics["loss"] == pytest.approx(float(total), rel=1e-6)


def test_the_policy_tells_its_token_and_keeps_it_for_the_chunk():
    """The chunk is that of the denoiser that is told the likeliest token, or the forced one."""
    method, state, _, _ = programs("diffusion_vla")
    state = state._replace(actor=state.actor._replace(ema=shaken(state.actor.ema)))
    observation, goal = 4 * jax.random.normal(jax.random.key(1), (5, 3)), jnp.ones((5, 2))
    seen = chunks.condition(state.standardise, observation[:, None], goal, GOALS)
    likeliest = np.asarray(CONFIG.head(GOALS).apply(state.actor.ema["head"], seen)).argmax(1)
    assert len(set(likeliest)) > 1

    @jax.jit
    def drawn(key, token):
        own = actions.denoiser(state.actor.ema["denoiser"], told(seen, token, CONFIG, GOALS), CONFIG)
        return CONFIG.sampling().draw(key, own, (5, 6)).reshape(5, 3, 2)

    for policy, token in ((method.policy, likeliest), (forcing(method.policy, 2), np.full(5, 2))):
        act, carry = jax.jit(policy.act), policy.init(observation)
        chunk = drawn(named_keys(jax.random.key(0), "token", "draw")["draw"], jnp.asarray(token))
        for t in range(2):
            carry, decision = act(jax.random.key(t), state, carry, observation, goal)
            np.testing.assert_array_equal(carry.token, token)
            np.testing.assert_allclose(decision.action, chunk[:, t], atol=1e-5)
    assert forcing(forcing(method.policy, 2), None) == method.policy
    assert forcing(method.policy, 1) == make(replace(CONFIG, forced=1), GOALS).policy


def test_a_temperature_draws_tokens_by_their_chances():
    state = programs("diffusion_vla").state
    state = state._replace(actor=state.actor._replace(ema=shaken(state.actor.ema)))
    seen = jnp.broadcast_to(jnp.arange(5.0)[None] / 5, (5_000, 5))
    found = chosen(jax.random.key(0), state, seen, replace(CONFIG, temperature=0.5), GOALS)
    said = jax.nn.softmax(2 * CONFIG.head(GOALS).apply(state.actor.ema["head"], seen[:1])[0])
    np.testing.assert_allclose(np.bincount(found, minlength=3) / 5_000, said, atol=0.03)


def test_stages_and_tokens_that_are_not_there_are_told():
    for changes, text in (
        ({"tokens": 1}, "tokens is 1"),
        ({"chunk": 1, "execute": 1}, "chunk is 1"),
    ):
        with pytest.raises(UserError, match=text):
            replace(CONFIG, **changes)
    for changes, text in (
        ({"stage": "gripper"}, "no group 'gripper', but position, velocity"),
        ({"forced": 3}, "forced is 3; it must lie between 0 and 2"),
    ):
        with pytest.raises(UserError, match=text):
            make(replace(CONFIG, **changes), GOALS)
    with pytest.raises(UserError, match="forced is 5"):
        forcing(programs("diffusion_vla").method.policy, 5)
    with pytest.raises(UserError, match="give a diffusion_vla"):
        forcing(programs("beso").method.policy, 0)


def two_stages(seed, offsets, shown=True):
    """Stage 1 goes right, 0 left, and positions follow; the last entry says the stage, if `shown`."""
    batch, rng = segments(seed, offsets), np.random.default_rng(seed)
    stage = rng.integers(0, 2, ROWS).astype(np.float32)
    sign, observation = 2 * stage - 1, batch.observation.copy()
    observation[..., 2] = stage[:, None] if shown else 0
    noise = 0.1 * rng.normal(size=batch.action.shape)
    action = (MODE * sign[:, None, None] + noise).astype(np.float32)
    observation[..., :2] = 0.1 * observation[:, :1, :2] + np.cumsum(action, axis=1) - action
    return batch._replace(observation=observation, action=action, distance=np.ones(ROWS, np.int32))


def learned(config, shown):
    """Its method and state after 400 updates, a batch that it did not see, and metrics of the last update."""
    method = make(config, GOALS)
    offsets, update = offsets_of(method), jax.jit(method.learner.update)
    state = jax.jit(method.learner.init)(jax.random.key(0), rows_like(two_stages(0, offsets, shown)))
    metrics = {}
    for i, key in enumerate(jax.random.split(jax.random.key(2), 400)):
        state, metrics = update(key, state, two_stages(i, offsets, shown))
    return method, state, two_stages(999, offsets, shown), metrics


def goes(policy, state, batch):
    """`[B]`, 1 where the first action goes right and 0 where it goes left."""
    seen = batch.observation[:, 0]
    found = jax.jit(policy.act)(jax.random.key(3), state, policy.init(seen), seen, batch.goal)[1].action
    return np.asarray(found[:, 0]) > 0


@pytest.mark.slow
def test_the_stage_is_known_and_a_forced_one_is_followed_against_what_is_seen():
    method, state, batch, metrics = learned(STAGED, True)
    assert metrics["token_accuracy"] > 0.95
    stage = batch.observation[:, 0, 2]
    assert np.mean(goes(method.policy, state, batch) == stage) > 0.95
    for token in (0, 1):
        follows = goes(forcing(method.policy, token), state, batch) == token
        assert follows.mean() >= 0.95 and follows[stage != token].mean() >= 0.95


@pytest.mark.slow
def test_a_class_says_what_the_observation_leaves_open():
    """No one can predict it; the action follows its token, and drawn tokens go either way as often."""
    method, state, batch, metrics = learned(replace(CONFIG, tokens=2, temperature=1.0), False)
    assert 0.3 < metrics["token_accuracy"] < 0.7
    right = [goes(forcing(method.policy, token), state, batch).mean() for token in (0, 1)]
    assert min(right) <= 0.05 and max(right) >= 0.95  # classes have no order
    assert goes(method.policy, state, batch).mean() == pytest.approx(0.5, abs=0.2)
