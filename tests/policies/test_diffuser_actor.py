"""3D Diffuser Actor moves with its scene: networks, whole chunks, schedules by group; what is no point."""

from dataclasses import replace
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from policy_batches import GOALS, ROWS, TINY, offsets_of, rows_like, segments, shaken

from jdp import UserError
from jdp.diffusion import exact
from jdp.diffusion.sampling import LeveledSampling
from jdp.diffusion.times import COSINE, SCALED_LINEAR
from jdp.policies import actions, cost_guide, make
from jdp.policies.diffuser_actor import DiffuserActorConfig
from jdp.policies.points import layout, seen, standardiser
from jdp.types import Segments, Spec

CONFIG = TINY["diffuser_actor"]
# An agent, two things and a speed; the goal is a place for the first thing.
SCENE = Spec(
    observation_dim=8,
    action_dim=3,
    goal=(2, 3),
    action_low=(-8.0, -6.0, -1.0),
    action_high=(12.0, 6.0, 1.0),
    groups=(("agent", (0, 1)), ("things", (2, 3, 4, 5)), ("speed", (6, 7))),
)
PLACED = replace(
    CONFIG,
    features=16,
    chunk=3,
    execute=3,
    points=("agent", "things"),
    history=2,
    actions="absolute",
    rest=(2,),
    sigma_data=0.1,
)


def scene(seed, rows=ROWS):
    rng = np.random.default_rng(seed)
    observation = rng.normal(size=(rows, 4, 8)).astype(np.float32)
    action = np.asarray(SCENE.unit_actions(observation[..., [0, 1, 6]] * [1, 1, 0.3]), np.float32)
    zeros, goal = np.zeros((rows, 4), np.float32), rng.normal(size=(rows, 2)).astype(np.float32)
    return Segments(observation, action, zeros, zeros, zeros, goal, np.full(rows, 1, np.int32))


def moved(x, v):
    """Observations `[..., 8]` or goals `[..., 2]` of the scene, whose points move by `v`."""
    points = np.tile(v, 3 if x.shape[-1] == 8 else 1)
    return x + np.append(points, np.zeros(x.shape[-1] - len(points))).astype(np.float32)


@cache
def state_of(method, scale=0.05):
    state = jax.jit(method.learner.init)(jax.random.key(0), rows_like(scene(0)))
    return state._replace(actor=state.actor._replace(ema=shaken(state.actor.ema, scale=scale)))


@pytest.mark.parametrize("kind", ["absolute", "relative"])
def test_a_drawn_chunk_moves_with_the_scene_or_stays(kind):
    """By the same noise; all actions of the chunk, with two schedules. Another scene makes others."""
    method = make(replace(PLACED, actions=kind), SCENE)
    state, act, batch = state_of(method), jax.jit(method.policy.act), scene(1, 8)

    def chunk(v, goal=batch.goal):
        here, found = moved(batch.observation[:, 0], v), []
        carry = method.policy.init(here)
        for _ in range(3):
            carry, decision = act(jax.random.key(5), state, carry, here, moved(goal, v))
            found.append(np.asarray(SCENE.task_actions(np.asarray(decision.action))))
        assert np.abs(SCENE.unit_actions(np.stack(found))).max() < 1  # else clipped
        return np.stack(found)

    plain, v = chunk(np.zeros(2)), np.array([1.7, -0.9])
    there = np.append(v, 0) if kind == "absolute" else np.zeros(3)
    np.testing.assert_allclose(chunk(v), plain + there, atol=1e-5)
    assert np.abs(chunk(np.zeros(2), batch.goal + 1)[..., :2] - plain[..., :2]).max() > 1e-3
    assert plain[..., :2].std() > 0.1


def to_the_left(observation, action):
    return jnp.sum(action[..., 0], axis=1)


def test_a_guide_sees_absolute_actions_as_they_are():
    """Within the box, of which the scene takes a part."""
    batch, found = scene(1, 8), []
    for guide in (None, cost_guide(to_the_left, 100.0)):
        method = make(PLACED, SCENE, guide=guide)
        state, here = state_of(make(PLACED, SCENE)), batch.observation[:, 0]
        act, carry = jax.jit(method.policy.act), method.policy.init(here)
        found.append(act(jax.random.key(5), state, carry, here, batch.goal)[1].action[:, 0])
    assert (found[1] < found[0] - 0.1).all() and np.abs(found[1]).max() <= 1


def test_points_have_one_scale_and_no_shift():
    """What is shown of a moved scene is the same, but for the centre; standard deviations are of the data."""
    batch = scene(2, 500)
    flat = batch.observation * np.array([1, 1, 3, 3, 1, 1, 5, 0.2], np.float32) + 2
    own = standardiser(jnp.asarray(flat), PLACED, SCENE)
    np.testing.assert_array_equal(own.mean[:6], 0)
    np.testing.assert_allclose(own.std[:6], np.sqrt(np.mean(flat[..., :6].reshape(-1, 6).var(0))), rtol=1e-2)
    np.testing.assert_allclose(own.std[6:], flat[..., 6:].reshape(-1, 2).std(0), rtol=1e-2)
    v = np.array([3.0, -2.0])
    shown = [
        seen(own, jnp.asarray(moved(batch.observation[:, :2], w)), moved(batch.goal, w), PLACED, SCENE)
        for w in (0 * v, v)
    ]
    assert shown[0].scene.points.shape == (500, 3 + 3 + 1, 2) and shown[0].scene.features.shape == (500, 4)
    for a, b in zip(*(s.scene for s in shown), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
    wanted = np.tile(np.append(v / [10, 6], 0), PLACED.chunk)
    np.testing.assert_allclose(shown[1].centre - shown[0].centre, np.tile(wanted, (500, 1)), atol=1e-6)
    agent = SCENE.task_actions(np.asarray(shown[0].centre)[:, :3])[:, :2]
    np.testing.assert_allclose(agent, batch.observation[:, 1, :2], atol=1e-5)
    # an action at the agent is noise-free at its place: input 1 lies sigma_data boxes away, in spreads
    np.testing.assert_allclose(shown[0].scene.reach[0], 0.1 * np.array([10, 6]) / own.std[0], rtol=1e-5)


def test_a_layout_has_the_reference_first():
    found = layout(PLACED, SCENE)
    assert found.points == ((8, 9), (10, 11), (12, 13), (0, 1), (2, 3), (4, 5), (16, 17))
    assert found.features == (6, 7, 14, 15)
    assert layout(CONFIG, GOALS) == (((0, 1), (3, 4)), (2,))
    assert layout(replace(CONFIG, points=("velocity",), dimension=1), GOALS) == (((2,),), (0, 1, 3, 4))


def test_equal_schedules_of_two_groups_are_one_to_the_last_bit():
    """Of an exact denoiser. By default the rest has the cosine's level at the time of the positions'."""
    own, equal = PLACED.sampling(), replace(PLACED, rest_schedule="scaled_linear")
    denoiser, centre = exact.gaussian(jnp.linspace(-0.3, 0.3, 9), 0.2), jnp.linspace(-1, 1, 36).reshape(4, 9)
    spread = LeveledSampling(own=own, levels=partial(equal.levels, spec=SCENE))
    drawn = [s.draw(jax.random.key(3), denoiser, (4, 9), around=centre) for s in (own, spread)]
    np.testing.assert_array_equal(*drawn)
    sigma = own.sigmas()
    levels = np.asarray(PLACED.levels(sigma, SCENE))
    assert levels.shape == (4, 1, 9)
    np.testing.assert_array_equal(levels[:, 0, [0, 1, 3, 4, 6, 7]], np.tile(sigma[:, None], 6))
    times = COSINE.time(levels[:, 0, [2, 5, 8]]), SCALED_LINEAR.time(levels[:, 0, [0, 1, 3]])
    np.testing.assert_allclose(*times, atol=1e-6)


def test_the_loss_is_that_of_both_levels():
    """In numpy: EDM's, entry by entry, of what is seen from the reference."""
    method, batch = make(PLACED, SCENE), scene(3)
    state = state_of(method)
    state = state._replace(actor=state.actor._replace(params=state.actor.ema))
    key = jax.random.key(4)
    found = jax.jit(method.learner.update)(key, state, batch)[1]["loss"]
    keys = dict(zip(("level", "noise"), jax.random.split(key, 2), strict=True))
    shown = seen(state.standardise, batch.observation[:, :2], batch.goal, PLACED, SCENE)
    x0 = batch.action[:, 1:].reshape(ROWS, 9) - np.asarray(shown.centre)
    sigma = np.asarray(PLACED.levels(actions.levels(keys["level"], ROWS, PLACED), SCENE))[:, 0]
    assert (sigma[:, 0] != sigma[:, 2]).all() and (sigma[:, 0] == sigma[:, 4]).all()
    x = x0 + sigma * np.asarray(jax.random.normal(keys["noise"], x0.shape))
    root = np.sqrt(sigma**2 + 0.1**2)
    said = jax.jit(PLACED.network().apply)(
        state.actor.params, jnp.asarray(x / root), jnp.asarray(np.log(sigma) / 4), shown.scene
    )
    denoised = 0.1**2 / root**2 * x + sigma * 0.1 / root * np.asarray(said)
    wanted = np.mean((denoised - x0) ** 2 * (root / (sigma * 0.1)) ** 2)
    assert found == pytest.approx(wanted, rel=1e-3)


def test_what_is_no_point_and_no_place_is_told():
    for changes, spec, told in (
        ({"points": ("speed", "speeds")}, SCENE, "no group 'speeds', but agent, things, speed"),
        ({"dimension": 3}, GOALS, "'position' has 2 entries: points have 3"),
        ({"actions": "absolute"}, SCENE, "say a place by 2 entries, and here are 3"),
        ({"rest": (2, 5)}, SCENE, "rest is .* entries 0 to 2"),
        ({"rest": (0, 1)}, GOALS, "rest is"),
    ):
        points = {} if spec is GOALS else {"points": ("agent",)}
        with pytest.raises(UserError, match=told):
            make(replace(CONFIG, **(points | changes)), spec)
    with pytest.raises(UserError, match="a part of the point"):
        make(CONFIG, replace(GOALS, goal=(1,)))
    for changes, told in (
        ({"points": ()}, "points is empty"),
        ({"dimension": 4}, "dimension"),
        ({"features": 32, "heads": 3}, "heads divide"),
        ({"features": 32, "heads": 16}, "a pair of them"),
        ({"wavelengths": (2.0, 1.0)}, "rise from above 0"),
        ({"actions": "both"}, "relative, absolute"),
    ):
        with pytest.raises(UserError, match=told):
            replace(CONFIG, **changes)


@pytest.mark.slow
def test_it_goes_to_a_goal_where_it_never_was():
    """Steps towards the goal, learned about the origin, are taken 20 spreads away as well."""
    config = DiffuserActorConfig(
        chunk=2,
        execute=1,
        features=32,
        blocks=2,
        heads=2,
        learning_rate=3e-3,
        steps=500,
        sampling_steps=5,
        ema=0.98,
    )
    method = make(config, GOALS)

    def towards(seed, centre=0.0):
        batch, rng = segments(seed, offsets_of(method)), np.random.default_rng(seed)
        here, goal = (rng.normal(size=(ROWS, 2)).astype(np.float32) + np.float32(centre) for _ in range(2))
        observation = batch.observation.copy()
        observation[..., :2] = here[:, None]
        step = np.clip(0.5 * (goal - here), -0.9, 0.9)
        action = np.repeat(step[:, None], 2, axis=1).astype(np.float32)
        return batch._replace(
            observation=observation, action=action, goal=goal, distance=np.ones(ROWS, np.int32)
        )

    state = jax.jit(method.learner.init)(jax.random.key(0), rows_like(towards(0)))
    update, act = jax.jit(method.learner.update), jax.jit(method.policy.act)
    for i, key in enumerate(jax.random.split(jax.random.key(1), 500)):
        state, _ = update(key, state, towards(i))
    errors = []
    for centre in (0.0, 20.0):
        batch = towards(999, centre)
        here = batch.observation[:, 0]
        found = act(jax.random.key(2), state, method.policy.init(here), here, batch.goal)[1].action
        errors.append(np.sqrt(np.mean((found - batch.action[:, 0]) ** 2)))
    assert errors[1] == pytest.approx(errors[0], rel=0.01)
    assert errors[0] < 0.06
