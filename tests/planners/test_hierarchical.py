"""Hierarchical Diffuser: subgoals joined without a gap, in two rooms and with tiny networks."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from deciding import due
from two_rooms import CELLS, PAIRS, SPEC, counted, exact_model, move, rows_of_walks, shortest_walk

from jdp.data import batches, segment_rows
from jdp.data.episodes import Origin, make_episodes
from jdp.errors import UserError
from jdp.learning.plan_critics import Critic, CriticConfig
from jdp.learning.plan_models import ModelConfig
from jdp.networks import NetworkConfig, ValueNetworkConfig
from jdp.planners import Learned, SamplingConfig, denoiser_and_value, draw
from jdp.planners import hierarchical as module
from jdp.planners.hierarchical import HierarchicalConfig, hierarchical, levels_of
from jdp.planners.subgoals import joined
from jdp.planners.trajectory import nothing
from jdp.types import Context, Spec, named_keys

K, H = 3, 12
MAZE = HierarchicalConfig(
    horizon=H, jump=K, replan_every=9, refine="all", low_sampling=SamplingConfig(steps=8, warm_steps=0)
)


@pytest.fixture(scope="module")
def maze():
    """The planner, its state with exact denoisers of both levels, the pairs, and a decision for each."""
    rng = np.random.default_rng(0)
    walks = np.array([shortest_walk(rng, *pair, H) for pair in PAIRS for _ in range(2)])
    rows, moves = rows_of_walks(walks, H)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "model", exact_model)
        planner = hierarchical.__wrapped__(MAZE, SPEC)
    state = jax.jit(planner.learner.init)(jax.random.key(0), rows)
    windows = np.concatenate([walks, moves], axis=-1).astype(np.float32)
    windows = np.concatenate([windows[:, i : i + K + 1] for i in range(H - K)])
    windows = jnp.asarray(np.unique(windows, axis=0))
    scale = state.scale
    state = state._replace(
        high=scale.observation(jnp.asarray(walks[:, ::K], jnp.float32)),
        low=jnp.concatenate([scale.observation(windows[..., :2]), scale.action(windows[..., 2:])], axis=-1),
    )
    start, goal = (np.array(x, np.float32) for x in zip(*PAIRS, strict=True))
    run, traces = counted(planner.policy.act)
    carry, decision = run(jax.random.key(1), state, planner.policy.init(start), start, goal)
    return planner, state, start, goal, run, traces, carry, decision


def test_plans_reach_every_goal_from_every_cell(maze):
    _, state, start, goal, act, traces, carry, decision = maze
    position, plan = start.copy(), decision.plan
    for step in range(H - K):
        if step > 0:
            carry, decision = act(jax.random.key(0), state, carry, position, goal)
            assert not decision.decided.any()
        position, legal = move(position, np.asarray(decision.action))
        assert legal.all()
        np.testing.assert_allclose(plan.observation[:, step + 1], position, atol=0.3)
    assert (position == goal).all() and len(traces) == 1
    cells = {tuple(c) for c in np.rint(np.asarray(plan.observation)).reshape(-1, 2)}
    assert cells <= {(float(x), float(y)) for x, y in CELLS}


def test_segments_join_at_the_subgoals(maze):
    _, _, start, goal, *_, decision = maze
    plan = decision.plan
    assert plan.observation.shape == (len(start), H - K + 1, 2)
    np.testing.assert_allclose(plan.observation[:, ::K], plan.subgoal, atol=1e-6)
    np.testing.assert_allclose(plan.observation[:, 0], start, atol=1e-6)
    np.testing.assert_allclose(plan.observation[:, -1], goal, atol=1e-6)


def test_the_batch_of_segments_is_each_by_itself(maze):
    _, state, start, goal, *_, decision = maze
    plan = decision.plan
    ends = state.scale.observation(plan.subgoal)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "model", exact_model)
        low = levels_of(MAZE, SPEC, None, False)[1]
    plan_key = named_keys(jax.random.key(1), "plan", "act")["plan"]
    keys = jax.random.split(named_keys(plan_key, "high", "low")["low"], H // K - 1)
    context = Context(state.scale, start, goal, jnp.zeros(len(start), jnp.int32), start[:, None])

    @jax.jit
    def one(key, pair):
        known = low.known(pair[:, 0], pair[:, 1])
        own = denoiser_and_value(low, Learned(state.low), len(pair))
        return draw(key, low, own, known, nothing(known[0]), context).x0

    parts = jnp.stack([one(key, ends[:, i : i + 2]) for i, key in enumerate(keys)])
    np.testing.assert_allclose(parts[:-1, :, -1, :2], parts[1:, :, 0, :2], atol=1e-6)  # no gap
    np.testing.assert_allclose(parts[0, :, 0, :2], ends[:, 0], atol=1e-6)
    np.testing.assert_allclose(
        state.scale.observation.inverse(joined(parts)[..., :2]), plan.observation, atol=1e-4
    )


def test_a_carry_and_other_weights_compile_nothing(maze):
    planner, state, start, goal, run, traces, carry, _ = maze
    first = planner.policy.init(start)
    assert not first.memory.planned.any() and carry.memory.planned.all()
    again, _ = run(jax.random.key(2), state._replace(high=state.high[::-1]), due(carry), start, goal)
    assert len(traces) == 1
    assert jax.tree.structure(again) == jax.tree.structure(carry)
    assert jax.tree.map(jnp.shape, first) == jax.tree.map(jnp.shape, again)
    assert all(leaf.shape[0] == len(start) for leaf in jax.tree.leaves(first))


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
    state = planner.learner.init(jax.random.key(0), loco)
    batch = jax.jit(batches(planner.learner.draws, 40))(jax.random.key(1), loco)
    seen = jax.device_get(jax.jit(planner.learner.update)(jax.random.key(2), state, batch)[1])
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


@pytest.mark.slow
def test_with_networks_the_best_candidate_is_refined_and_nothing_compiles_twice(loco):
    planner = hierarchical(LOCO, Spec(3, 2))
    assert planner is hierarchical(LOCO, Spec(3, 2))
    state = jax.jit(planner.learner.init)(jax.random.key(0), loco)
    pick, (update, updates) = jax.jit(batches(planner.learner.draws, 16)), counted(planner.learner.update)
    for i in range(2):
        state, metrics = update(jax.random.key(i), state, pick(jax.random.key(i), loco))
    assert all(np.isfinite(x) for x in metrics.values()) and len(updates) == 1
    assert {"loss", "low_loss", "critic_loss", "low_critic_loss", "inverse_loss"} <= set(metrics)
    run, runs = counted(planner.policy.act)
    now, none = loco.observation[:5], np.zeros((5, 0), np.float32)
    carry, _ = run(jax.random.key(3), state, planner.policy.init(now), now, none)
    carry, decision = run(jax.random.key(4), state, carry, now, none)
    plan = decision.plan
    assert len(runs) == 1 and plan.observation.shape == (5, 3, 3)
    np.testing.assert_allclose(plan.observation[:, ::2], plan.subgoal[:, :2], atol=1e-5)
    value = module.critic(LOCO.critic).value(state.critic, jnp.zeros((5, 0)))(carry.memory.plan, jnp.zeros(5))
    np.testing.assert_allclose(plan.value, state.scale.value.inverse(value[:, None])[:, 0], rtol=1e-4)
    assert decision.action.shape == (5, 2) and np.abs(decision.action).max() <= 1


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
