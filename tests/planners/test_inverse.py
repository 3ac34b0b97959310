"""Inverse dynamics: the action of a linear system is found again, and the plan's next row is aimed at."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdp.errors import UserError
from jdp.learning.inverse import Inverse, InverseConfig, inverse, near_pair
from jdp.learning.scale import Affine, Scale
from jdp.planners.following import pursued
from jdp.types import Plan, Segments

STRIDE, DIM, A = 3, 3, 2
RNG = np.random.default_rng(0)
DRIFT = np.eye(DIM) + 0.2 * RNG.normal(size=(DIM, DIM))
PUSH = RNG.normal(size=(DIM, A))
HERE = RNG.normal(size=(4, DIM)).astype(np.float32)
ONE = Affine(jnp.zeros(1), jnp.ones(1))


def config(kind, steps, **settings):
    return InverseConfig(kind=kind, hidden=(64, 64), learning_rate=3e-3, steps=steps, ema=0.99, **settings)


def held(key, count):
    """States, states 1 to `STRIDE` steps later under an action that is held: `s' = A s + B a`."""
    key_s, key_a, key_k = jax.random.split(key, 3)
    s = jax.random.normal(key_s, (count, DIM))
    a = jax.random.uniform(key_a, (count, A), minval=-1, maxval=1)
    ahead = jax.random.randint(key_k, (count,), 1, STRIDE + 1)
    later = [s]
    for _ in range(STRIDE):
        later.append(later[-1] @ jnp.asarray(DRIFT.T, s.dtype) + a @ jnp.asarray(PUSH.T, s.dtype))
    return s, jnp.stack(later)[ahead, jnp.arange(count)], ahead, a


def train(net, draw, steps):
    def update(state, key):
        key_data, key_update = jax.random.split(key)
        return net.update(key_update, state, *draw(key_data, 128))

    s, target, _, a = draw(jax.random.key(0), 1)
    state = jax.jit(net.init)(jax.random.key(1), s, target, a)
    keys = jax.random.split(jax.random.key(2), steps)
    return jax.jit(lambda state: jax.lax.scan(update, state, keys)[0])(state)


@pytest.mark.parametrize(("kind", "steps"), [("mlp", 800), ("diffusion", 1000)])
def test_the_action_of_a_linear_system_is_recovered(kind, steps):
    net = inverse(config(kind, steps), A, STRIDE)
    state = train(net, held, steps)
    s, target, ahead, a = held(jax.random.key(7), 512)
    error = np.asarray(jax.jit(net.act)(jax.random.key(8), state, s, target, ahead) - a)
    for k in range(1, STRIDE + 1):  # the spread of actions is .58
        assert np.sqrt(np.mean(error[np.asarray(ahead) == k] ** 2)) < 0.1, k


@pytest.mark.slow
def test_diffusion_keeps_two_actions_apart_where_regression_takes_their_mean():
    """Both 1 and -1 lead from 0 to 0."""

    def either(key, count):
        a = jnp.sign(jax.random.normal(key, (count, 1)))
        return jnp.zeros((count, 1)), jnp.zeros((count, 1)), jnp.ones(count, jnp.int32), a

    nothing, _, ahead, _ = either(jax.random.key(0), 256)
    found = {}
    for kind in ("mlp", "diffusion"):
        net = inverse(config(kind, 800), 1, 1)
        state = train(net, either, 800)
        found[kind] = np.asarray(jax.jit(net.act)(jax.random.key(3), state, nothing, nothing, ahead))
    assert np.abs(found["mlp"]).max() < 0.2
    # The exact denoiser leaves none between the two; a network some that began almost in the middle.
    assert np.mean(np.abs(np.abs(found["diffusion"]) - 1) < 0.1) > 0.9
    assert abs(found["diffusion"].mean()) < 0.25


def shaken(net):
    """A state of random weights, for which nothing need be compiled."""
    s, a = np.zeros((1, DIM), np.float32), np.zeros((1, A), np.float32)
    shapes = jax.eval_shape(net.init, jax.random.key(0), s, s, a)
    rng = np.random.default_rng(1)
    return jax.tree.map(lambda leaf: jnp.asarray(0.2 * rng.normal(size=leaf.shape), leaf.dtype), shapes)


def test_without_temperature_there_is_no_chance():
    s, target, ahead = HERE, HERE + 1, jnp.ones(len(HERE), jnp.int32)
    for temperature in (0.0, 0.5):
        net = inverse(config("diffusion", 1, temperature=temperature), A, STRIDE)
        act = jax.jit(net.act)
        first, second = (act(jax.random.key(k), shaken(net), s, target, ahead) for k in (2, 3))
        assert (np.abs(first - second).max() == 0) == (temperature == 0)


@pytest.mark.parametrize("kind", ["mlp", "diffusion"])
def test_relative_entries_know_no_origin(kind):
    net = inverse(config(kind, 1), A, STRIDE, relative=(0, 2))
    state, run, ahead = shaken(net), jax.jit(net.act), jnp.ones(len(HERE), jnp.int32)

    def act(*shift):
        moved = HERE + np.array([shift], np.float32)
        return np.asarray(run(jax.random.key(2), state, moved, moved + 0.5, ahead))

    np.testing.assert_allclose(act(5, 0, -3), act(0, 0, 0), atol=1e-4)
    assert np.abs(act(0, 1, 0) - act(0, 0, 0)).max() > 1e-3


class Tracking(NamedTuple):
    """The state of a planner whose inverse model has no weights."""

    scale: Scale
    inverse: None = None


def tracked(towards, scale, plan, stride, elapsed, here, rows=1):
    """The action of an inverse model `towards(state, target, ahead)`."""
    model = Inverse(None, None, lambda key, weights, *seen: towards(*seen))
    return pursued(None, Tracking(scale), plan, elapsed, here, inverse=model, stride=stride, rows=rows)


def test_the_next_row_of_the_plan_is_aimed_at_for_every_elapsed_step():
    rows, batch = 4, 2
    scale = Scale(
        Affine(jnp.full(DIM, 0.5), jnp.full(DIM, 2.0)), Affine(jnp.zeros(2), jnp.full(2, 0.01)), ONE
    )
    observation = jnp.tile(jnp.arange(rows, dtype=jnp.float32)[None, :, None], (batch, 1, DIM))
    plan = Plan(observation, jnp.zeros((batch, 0, 2)), jnp.zeros(batch), jnp.zeros((batch, 0, DIM)))

    def towards(state, target, ahead):
        np.testing.assert_allclose(state, scale.observation(here))
        return jnp.stack([scale.observation.inverse(target)[:, 0], ahead.astype(target.dtype)], axis=1)

    here = jnp.full((batch, DIM), 9.0)
    for elapsed in range(STRIDE * rows + 2):
        action = tracked(towards, scale, plan, STRIDE, jnp.full(batch, elapsed), here)
        row = elapsed // STRIDE + 1
        ahead = row * STRIDE - elapsed
        assert 1 <= ahead <= STRIDE
        np.testing.assert_allclose(action / 0.01, [[min(row, rows - 1), ahead]] * batch, atol=1e-4)


@pytest.mark.parametrize(("length", "rows"), [(5, 8), (5, 4), (33, 8)])
def test_a_plan_is_arrived_at_on_time_however_far_ahead_is_aimed(length, rows):
    """Of an integrator that does exactly what the inverse model asks for; a plan of speed .1."""
    scale = Scale(ONE, ONE, ONE)
    planned = 0.1 * jnp.arange(length, dtype=jnp.float32)[None, :, None]
    plan = Plan(planned, jnp.zeros((1, 0, 1)), jnp.zeros(1), jnp.zeros((1, 0, 1)))

    def towards(state, target, ahead):
        return (target - state) / ahead[:, None].astype(state.dtype)

    here = jnp.zeros((1, 1))
    for elapsed in range(length - 1):
        action = tracked(towards, scale, plan, 1, jnp.full(1, elapsed), here, rows)
        np.testing.assert_allclose(action, 0.1, atol=1e-5)
        here = here + action
    np.testing.assert_allclose(here, planned[:, -1], atol=1e-5)


def test_an_unknown_kind_is_refused():
    with pytest.raises(UserError, match=r"kind is 'difusion'.*mlp, diffusion"):
        InverseConfig(kind="difusion")


def test_pairs_are_of_one_segment_and_as_far_apart_as_said():
    batch, length = 64, STRIDE + 3  # rows beyond the consecutive ones belong to the plan
    observation = 10.0 * jnp.arange(float(batch))[:, None] + jnp.arange(float(length))[None]
    zeros, far = jnp.zeros((batch, length)), jnp.zeros(batch, jnp.int32)
    action = observation[..., None] / 1000
    segments = Segments(observation[..., None], action, zeros, zeros, zeros, jnp.zeros((batch, 0)), far)
    state, target, ahead, found = near_pair(jax.random.key(0), segments, Scale(ONE, ONE, ONE), STRIDE)
    np.testing.assert_array_equal(state[:, 0], observation[:, 0])
    np.testing.assert_array_equal(target - state, ahead[:, None].astype(jnp.float32))
    np.testing.assert_array_equal(found, action[:, 0])
    assert set(np.asarray(ahead).tolist()) == set(range(1, STRIDE + 1))


def test_layers_of_two_widths_are_refused_for_diffusion():
    with pytest.raises(UserError, match="one width"):
        InverseConfig(kind="diffusion", hidden=(64, 32))
