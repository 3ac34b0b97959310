"""DiffusionDrive: anchors of the data, what its denoiser sees, and which anchor's chain is emitted."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from policy_batches import GOALS, ROWS, TINY, offsets_of, programs, segments, shaken

from jdp import UserError
from jdp.data import SegmentRows
from jdp.learning.anchors import focal_loss, nearest, some_chunks
from jdp.policies import actions, chunks, diffusion_drive
from jdp.policies.diffusion_drive import DiffusionDriveConfig, losses
from jdp.policies.relabelled import imitated
from jdp.types import named_keys

CONFIG = TINY["diffusion_drive"]


def test_anchors_are_of_chunks_that_cross_no_episode():
    """Each of 6 episodes repeats one action: so does every anchor, also of chunks that end beyond it."""
    each = np.random.default_rng(0).normal(size=(6, 2)).astype(np.float32)
    action, starts = np.repeat(each, 5, axis=0), np.arange(30, dtype=np.int32)
    last, none = starts // 5 * 5 + 4, np.zeros(30, np.float32)
    observation = np.random.default_rng(1).normal(size=(30, 3)).astype(np.float32)
    rows = SegmentRows(observation, action, none, none, none, starts, last, last - 4)
    drawn = some_chunks(jax.random.key(0), rows, 4, 200).reshape(200, 4, 2)
    np.testing.assert_array_equal(drawn, jnp.repeat(drawn[:, :1], 4, axis=1))
    init = programs("diffusion_drive").method.learner.init
    found = jax.jit(lambda key: init(key, rows).anchors)(jax.random.key(1)).reshape(6, 4, 2)
    order = np.asarray(nearest(jnp.asarray(each), found[:, 0]))
    np.testing.assert_allclose(found[order], np.repeat(each[:, None], 4, axis=1), atol=1e-5)


@pytest.mark.parametrize("noised", ["anchors", "data"])
def test_losses_equal_numpy(noised):
    """The network sees the noised anchor, or the noised chunk, and predicts the chunk."""
    config, state = replace(CONFIG, noised=noised), programs("diffusion_drive").state
    params, batch = shaken(state.actor.params), segments(3, offsets_of(programs("diffusion_drive").method))
    seen, chunk = chunks.example(batch, state.standardise, config, GOALS)
    keep, key = imitated(batch, GOALS), jax.random.key(4)
    found = jax.jit(losses, static_argnums=6)(key, params, state.anchors, seen, chunk, keep, config)
    keys, mask = named_keys(key, "level", "noise"), np.asarray(keep)
    sigma = np.asarray(actions.levels(keys["level"], ROWS, config))[:, None]
    assert sigma.min() > 0 and sigma.max() <= 0.4
    which = ((np.asarray(chunk)[:, None] - np.asarray(state.anchors)) ** 2).sum(-1).argmin(1)
    centre = np.asarray(state.anchors)[which] if noised == "anchors" else np.asarray(chunk)
    x = centre + sigma * np.asarray(jax.random.normal(keys["noise"], chunk.shape))
    c_noise = jnp.asarray(config.trains().preconditioning.condition(jnp.asarray(sigma[:, 0])))
    apply = jax.jit(config.network().apply)
    predicted = apply(params["denoiser"], jnp.asarray(x / np.sqrt(1 + sigma**2)), c_noise, seen)
    assert found[0] == pytest.approx(float(np.square(predicted - chunk)[mask].mean()), rel=1e-3)
    scores = config.scores().apply(params["scores"], seen)
    assert found[1] == pytest.approx(float(focal_loss(scores, which)[mask].mean()), rel=1e-4)


def test_the_policy_emits_the_chain_around_the_best_anchor():
    """Twice as many calls of its denoiser as of none: two Euler steps in numpy."""
    method, state, _, act = programs("diffusion_drive")
    state = state._replace(actor=state.actor._replace(ema=shaken(state.actor.ema)))
    observation, goal = jax.random.normal(jax.random.key(1), (5, 3)), jnp.ones((5, 2))
    carry, emitted = method.policy.init(observation), []
    for t in range(3):
        carry, decision = act(jax.random.key(t), state, carry, observation, goal)
        emitted.append(decision.action)
    seen = chunks.condition(state.standardise, observation[:, None], goal, GOALS)
    best = np.asarray(CONFIG.scores().apply(state.actor.ema["scores"], seen)).argmax(1)
    draw = named_keys(jax.random.key(0), "around", "draw")["draw"]
    start = jax.random.normal(named_keys(draw, "start", "sampler")["start"], (5, 8))
    x = np.asarray(state.anchors)[best] + 0.4 * np.asarray(start)
    denoiser = jax.jit(diffusion_drive._denoiser(state.actor.ema, seen, config=CONFIG))
    x = x + (0.1 / 0.4 - 1) * (x - np.asarray(denoiser(jnp.asarray(x), jnp.float32(0.4))))
    x = np.asarray(denoiser(jnp.asarray(x), jnp.float32(0.1)))
    np.testing.assert_allclose(np.stack(emitted, 1).reshape(5, 6), x[:, :6], atol=1e-4)
    assert len(set(best)) > 1


def test_a_temperature_draws_anchors_in_proportion_to_their_scores():
    config = replace(CONFIG, temperature=0.5)
    state = programs("diffusion_drive").state
    state = state._replace(actor=state.actor._replace(ema=shaken(state.actor.ema)))
    seen = jnp.broadcast_to(jnp.arange(5.0)[None] / 5, (5_000, 5))
    found = jax.jit(partial(diffusion_drive.chosen, config=config))(jax.random.key(0), state, seen)
    score = jax.nn.sigmoid(config.scores().apply(state.actor.ema["scores"], seen[:1])[0]) ** 2
    share = np.bincount(np.asarray(nearest(found, state.anchors)), minlength=6) / 5_000
    np.testing.assert_allclose(share, score / score.sum(), atol=0.03)


def test_settings_that_draw_nothing_are_refused():
    with pytest.raises(UserError, match=r"DiffusionDriveConfig\.anchors is 1"):
        DiffusionDriveConfig(anchors=1)
    with pytest.raises(UserError, match="noised is 'noise': choose one of anchors, data"):
        DiffusionDriveConfig(noised="noise")  # pyright: ignore[reportArgumentType]
