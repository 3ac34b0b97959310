"""Hierarchical Diffuser: subgoals joined without a gap, in two rooms and with tiny networks."""

import importlib
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from two_rooms import CELLS, PAIRS, SPEC, counted, exact_model, move, rows_of_walks, shortest_walk

from jdp.data import draw_segments, segment_rows
from jdp.data.episodes import Origin, make_episodes
from jdp.errors import UserError
from jdp.networks import NetworkConfig, ValueNetworkConfig
from jdp.planners.hierarchical import HierarchicalConfig, hierarchical, joined, segment
from jdp.planners.models import ModelConfig
from jdp.planners.trajectory import Critic, CriticConfig, SamplingConfig, plan_schedule
from jdp.types import Spec, named_keys

module = importlib.import_module("jdp.planners.hierarchical")  # the package has a function of this name

K, H = 3, 12
MAZE = HierarchicalConfig(
    horizon=H, jump=K, replan_every=9, refine="all", low_sampling=SamplingConfig(steps=8, warm_steps=0)
)


@pytest.fixture(scope="module")
def maze():
    """The planner, its state with exact denoisers of both levels, the pairs, and a plan for each."""
    rng = np.random.default_rng(0)
    walks = np.array([shortest_walk(rng, *pair, H) for pair in PAIRS for _ in range(2)])
    rows, moves = rows_of_walks(walks, H)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "model", exact_model)
        planner = hierarchical.__wrapped__(MAZE, SPEC)
    state = jax.jit(planner.init)(jax.random.key(0), rows)
    windows = np.concatenate([walks, moves], axis=-1).astype(np.float32)
    windows = np.concatenate([windows[:, i : i + K + 1] for i in range(H - K)])
    windows = jnp.asarray(np.unique(windows, axis=0))
    scale = state.scale
    state = state._replace(
        high=scale.observation(jnp.asarray(walks[:, ::K], jnp.float32)),
        low=jnp.concatenate([scale.observation(windows[..., :2]), scale.action(windows[..., 2:])], axis=-1),
    )
    start, goal = (np.array(x, np.float32) for x in zip(*PAIRS, strict=True))
    run, traces = counted(planner.plan)
    carry, plan = run(jax.random.key(1), state, planner.start(start)[0], start, goal)
    return planner, state, start, goal, run, traces, carry, plan


def test_plans_reach_every_goal_from_every_cell(maze):
    planner, state, start, goal, *_, plan = maze
    position, key = start.copy(), jax.random.key(0)
    act = jax.jit(planner.act)
    for step in range(H - K):
        position, legal = move(position, np.asarray(act(key, state, plan, jnp.int32(step), position)))
        assert legal.all()
        np.testing.assert_allclose(plan.observation[:, step + 1], position, atol=0.3)
    assert (position == goal).all()
    cells = {tuple(c) for c in np.rint(np.asarray(plan.observation)).reshape(-1, 2)}
    assert cells <= {(float(x), float(y)) for x, y in CELLS}


def test_segments_join_at_the_subgoals(maze):
    planner, _, start, goal, *_, plan = maze
    assert plan.observation.shape == (len(start), H - K + 1, 2) and planner.stride == 1
    np.testing.assert_allclose(plan.observation[:, ::K], plan.subgoal, atol=1e-6)
    np.testing.assert_allclose(plan.observation[:, 0], start, atol=1e-6)
    np.testing.assert_allclose(plan.observation[:, -1], goal, atol=1e-6)


def test_the_batch_of_segments_is_each_by_itself(maze):
    _, state, *_, plan = maze
    ends = state.scale.observation(plan.subgoal)
    denoiser, schedule = exact_model(None).denoiser(state.low, None), plan_schedule(MAZE.low_sampling, "edm")
    keys = jax.random.split(named_keys(jax.random.key(1), "high", "low")["low"], H // K - 1)
    one = jax.jit(
        lambda key, pair: segment(key, denoiser, None, pair, schedule, config=MAZE, extra=2, count=1)
    )
    parts = jnp.stack([one(key, ends[:, i : i + 2]) for i, key in enumerate(keys)])
    np.testing.assert_allclose(parts[:-1, :, -1, :2], parts[1:, :, 0, :2], atol=1e-6)  # no gap
    np.testing.assert_allclose(parts[0, :, 0, :2], ends[:, 0], atol=1e-6)
    np.testing.assert_allclose(
        state.scale.observation.inverse(joined(parts)[..., :2]), plan.observation, atol=1e-4
    )


def test_a_carry_and_other_weights_compile_nothing(maze):
    planner, state, start, goal, run, traces, carry, _ = maze
    assert not planner.start(start)[0].planned and carry.planned
    again, other = run(jax.random.key(2), state._replace(high=state.high[::-1]), carry, start, goal)
    assert len(traces) == 1
    assert jax.tree.structure(again) == jax.tree.structure(carry)
    assert jax.tree.map(jnp.shape, planner.start(start)) == jax.tree.map(jnp.shape, (again, other))


LOCO = HierarchicalConfig(
    horizon=8,
    jump=2,
    candidates=6,
    follow="states",
    lookahead=2,
    low_candidates=2,
    guidance_point="noised",
    high=ModelConfig(NetworkConfig("mixer", 8, 1)),
    low=ModelConfig(NetworkConfig("mixer", 8, 1)),
    critic=CriticConfig(ValueNetworkConfig("pooled", 8, 1)),
    sampling=SamplingConfig(steps=4, warm_steps=4),
)


@pytest.fixture(scope="module")
def loco():
    rng = np.random.default_rng(0)
    ends = np.arange(60) % 20 == 19
    episodes = make_episodes(
        rng.normal(size=(60, 3)).astype(np.float32),
        rng.uniform(-1, 1, (60, 2)).astype(np.float32),
        rng.normal(size=60).astype(np.float32),
        None,
        np.zeros(60, bool),
        ends,
        spec=Spec(3, 2),
        origin=Origin("noise", "file", "", "", 0, ""),
    )
    return segment_rows(episodes, 8)


def test_what_the_levels_learn_from(loco, monkeypatch):
    """High: every K-th state with all actions up to the next. Low: a window anywhere, and its own value."""
    judge = Critic(
        init=lambda *args: jnp.zeros(()),
        update=lambda key, state, x0, none, known, target: (state, {"target": target}),
        value=lambda state, none: None,
    )
    monkeypatch.setattr(module, "model", exact_model)
    monkeypatch.setattr(module, "critic", lambda config: judge)
    planner = hierarchical.__wrapped__(replace(LOCO, follow="actions"), Spec(3, 2))
    state = planner.init(jax.random.key(0), loco)
    batch = jax.jit(draw_segments(40, planner.offsets))(jax.random.key(1), loco)
    seen = jax.device_get(jax.jit(planner.update)(jax.random.key(2), state, batch)[1])
    s, a = (
        np.asarray(x) for x in (state.scale.observation(batch.observation), state.scale.action(batch.action))
    )
    value = np.asarray(state.scale.value(batch.value[..., None]))[..., 0]
    for b in range(40):
        for row in range(4):
            expected = np.concatenate([s[b, 2 * row], a[b, 2 * row], a[b, 2 * row + 1]])
            np.testing.assert_allclose(seen["x0"][b, row], expected, atol=1e-6)
    both = np.concatenate([s, a], axis=-1)
    begins = [
        next(i for i in range(6) if np.allclose(both[b, i : i + 3], seen["low_x0"][b], atol=1e-6))
        for b in range(40)
    ]
    assert set(begins) == set(range(6))
    np.testing.assert_allclose(seen["target"], value[:, 0], atol=1e-6)
    np.testing.assert_allclose(seen["low_target"], value[np.arange(40), begins], atol=1e-6)


def test_with_networks_the_best_candidate_is_refined_and_nothing_compiles_twice(loco):
    planner = hierarchical(LOCO, Spec(3, 2))
    assert planner is hierarchical(LOCO, Spec(3, 2))
    state = jax.jit(planner.init)(jax.random.key(0), loco)
    draw, (update, updates) = jax.jit(draw_segments(16, planner.offsets)), counted(planner.update)
    for i in range(2):
        state, metrics = update(jax.random.key(i), state, draw(jax.random.key(i), loco))
    assert all(np.isfinite(x) for x in metrics.values()) and len(updates) == 1
    assert {"loss", "low_loss", "critic_loss", "low_critic_loss", "inverse_loss"} <= set(metrics)
    run, runs = counted(planner.plan)
    now, none = loco.observation[:5], np.zeros((5, 0), np.float32)
    carry, plan = run(jax.random.key(3), state, planner.start(now)[0], now, none)
    carry, plan = run(jax.random.key(4), state, carry, now, none)
    assert len(runs) == 1 and plan.observation.shape == (5, 3, 3)
    np.testing.assert_allclose(plan.observation[:, ::2], plan.subgoal[:, :2], atol=1e-5)
    value = module.critic(LOCO.critic).value(state.critic, jnp.zeros((5, 0)))(carry.plan, jnp.zeros(5))
    np.testing.assert_allclose(plan.value, state.scale.value.inverse(value[:, None])[:, 0], rtol=1e-4)
    action = jax.jit(planner.act)(jax.random.key(5), state, plan, jnp.int32(0), now)
    assert action.shape == (5, 2) and np.abs(action).max() <= 1


def test_mistakes_are_told_in_one_line():
    for settings, word in (
        ({"horizon": 30, "jump": 4}, "multiple of"),
        ({"horizon": 32, "jump": 4, "replan_every": 5}, "refine all"),
        ({"horizon": 32, "jump": 4, "replan_every": 29, "refine": "all"}, "28 steps"),
        ({"low_sampling": SamplingConfig()}, "warm_steps"),
    ):
        with pytest.raises(UserError, match=word) as error:
            HierarchicalConfig(**settings)
        assert "\n" not in str(error.value)
