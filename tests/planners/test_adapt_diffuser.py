"""AdaptDiffuser: the test that plans must pass, and what learning from those that pass does."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from two_rooms import PAIRS, SPEC, counted, exact_model, rows_of_walks, shortest_walk

from jdp.data import batches, rows_of, segment_rows
from jdp.data.episodes import Origin, make_episodes
from jdp.errors import UserError
from jdp.learning.fitting import over_updates
from jdp.learning.inverse import Inverse, InverseConfig
from jdp.learning.optimiser import warmup_cosine
from jdp.learning.plan_critics import CriticConfig
from jdp.learning.plan_models import ModelConfig
from jdp.networks import NetworkConfig, ValueNetworkConfig
from jdp.planners import SamplingConfig, parts
from jdp.planners import adapt_diffuser as module
from jdp.planners.adapt_diffuser import AdaptDiffuserConfig, adapt_diffuser
from jdp.planners.diffuser import DiffuserPlannerConfig
from jdp.planners.selection import Measures, kept, select
from jdp.types import Segments, Spec, named_keys

H, RNG = 4, np.random.default_rng(0)


def measures(count, spread=1.0, value=True):
    draw = np.abs(spread * RNG.normal(size=(7, count))).astype(np.float32)
    return Measures(draw[0] if value else None, draw[1], draw[2:4].T, 0.5 * draw[4], 0.2 * draw[5:].T)


def test_select_keeps_exactly_what_numpy_keeps():
    config = AdaptDiffuserConfig(value_quantile=0.6, error_quantile=0.7, quantile=0.9, slack=1.1)
    found, real = measures(2000, 1.3), measures(300)
    step = 1.1 * np.quantile(real.step, 0.9, axis=0)
    expected = (
        (found.value >= np.quantile(real.value, 0.6))
        & (found.error <= np.quantile(found.error, 0.7))
        & (found.step <= step).all(1)
        & (found.miss <= step).all(1)
        & (found.action <= 1.1 * max(1.0, np.quantile(real.action, 0.9)))
    )
    keep = np.asarray(select(found, real, config))
    assert 0.05 < keep.mean() < 0.6
    np.testing.assert_array_equal(keep, expected)
    # The bar is in the critic's own units: scaled values pass as before.
    scaled = [m._replace(value=7 * m.value - 3) for m in (found, real)]
    np.testing.assert_array_equal(select(*scaled, config), expected)
    without = select(found._replace(value=None), real._replace(value=None), config)
    assert np.asarray(without).sum() > expected.sum()


def test_nothing_kept_is_said_in_one_line():
    none = Segments(*(np.zeros((3, H, 1)),) * 2, *(np.zeros((3, H)),) * 3, np.zeros((3, 0)), np.zeros(3))
    with pytest.raises(UserError, match=r"kept none of 3 plans.*value_quantile") as error:
        kept(none, jnp.zeros(3, bool), AdaptDiffuserConfig())
    assert "\n" not in str(error.value)
    some = kept(none, jnp.array([True, False, True]), AdaptDiffuserConfig())
    assert [len(x) for x in some] == [2] * 7


def test_mistakes_are_told_in_one_line():
    for make in (
        lambda: AdaptDiffuserConfig(DiffuserPlannerConfig(stride=2)),
        lambda: AdaptDiffuserConfig(value_quantile=1.5),
    ):
        with pytest.raises(UserError) as error:
            make()
        assert "\n" not in str(error.value)


UPDATES = 700
TOY = over_updates(
    AdaptDiffuserConfig(
        DiffuserPlannerConfig(
            horizon=H,
            candidates=1,
            guidance=0.0,
            action_weight=1.0,
            model=ModelConfig(NetworkConfig("mixer", 32, 1), learning_rate=5e-3, ema=0.98),
            critic=CriticConfig(
                ValueNetworkConfig("pooled", 16, 1), learning_rate=3e-3, ema=0.98, noisy=False
            ),
            sampling=SamplingConfig(steps=8, warm_steps=0),
        ),
        inverse=InverseConfig(learning_rate=3e-3, ema=0.98),
        rounds=1,
        finetune_share=1.0,
        value_quantile=0.7,
    ),
    2 * UPDATES,  # the first training and a round as long
)


def test_the_learning_rate_is_left_for_the_rounds():
    """Its cosine ends after all rounds; with the first training's steps nothing would move in them."""
    assert TOY.steps(UPDATES) == (UPDATES, 2 * UPDATES)
    for part in (TOY.diffuser.model, TOY.diffuser.critic, TOY.inverse):
        assert part.steps == 2 * UPDATES
        assert warmup_cosine(part.learning_rate, part.steps)(UPDATES) > 0.3 * part.learning_rate
    assert warmup_cosine(1e-3, UPDATES)(UPDATES) == 0


@pytest.fixture(scope="module")
def toy():
    """`s' = s + a`, `a ~ N(0, 0.3^2)`, reward a: the value of a segment is the sum of its actions."""
    rng, episodes = np.random.default_rng(0), 400
    a = np.clip(0.3 * rng.normal(size=(episodes, H, 1)), -1, 1)
    s = rng.normal(size=(episodes, 1, 1)) + np.cumsum(a, axis=1) - a
    ends = np.arange(episodes * H) % H == H - 1
    data = make_episodes(
        s.reshape(-1, 1).astype(np.float32),
        a.reshape(-1, 1).astype(np.float32),
        a.reshape(-1).astype(np.float32),
        None,
        np.zeros(episodes * H, bool),
        ends,
        spec=Spec(1, 1),
        origin=Origin("toy", "file", "", "", 0, ""),
    )
    rows = segment_rows(data, H, discount=1.0)
    planner = adapt_diffuser(TOY, Spec(1, 1))
    draw = batches(planner.learner.draws, 32)

    def train(key, state, rows, imagined):
        def body(state, key):
            keys = named_keys(key, "real", "imagined", "update")
            both = draw(keys["real"], rows), draw(keys["imagined"], imagined)
            batch = jax.tree.map(lambda x, y: jnp.concatenate([x[:16], y[:16]]), *both)
            return planner.learner.update(keys["update"], state, batch)

        return jax.lax.scan(body, state, jax.random.split(key, UPDATES))

    run, traces = counted(train)
    state = jax.jit(planner.learner.init)(jax.random.key(0), rows)
    state, _ = run(jax.random.key(1), state, rows, rows)
    return planner, rows, state, run, traces


@pytest.mark.slow
def test_learning_from_kept_plans_raises_the_value_of_plans(toy):
    planner, rows, state, run, traces = toy
    imagine, imagined = counted(planner.imagine)
    start, none = rows.observation[rows.starts], np.zeros((len(rows.starts), 0), np.float32)
    segments, keep = imagine(jax.random.key(2), state, start, none)
    earned = np.asarray(segments.action).sum((1, 2))
    # The critic is calibrated, so its bar says something; some plans pass it, not all.
    assert np.corrcoef(segments.value[:, 0], earned)[0, 1] > 0.4
    assert 0.05 < np.mean(keep) < 0.6
    assert earned[keep].mean() > earned.mean() + 0.25
    # Whole plans, for the offsets of the planner: actions are those between planned states.
    assert segments.observation.shape == (len(start), max(planner.learner.draws.offsets) + 1, 1)
    moved = np.diff(np.asarray(segments.observation), axis=1)
    np.testing.assert_allclose(np.asarray(segments.action)[:, :-1], np.clip(moved, -1, 1), atol=0.1)
    assert (np.asarray(segments.reward) == 0).all()
    np.testing.assert_allclose(segments.observation[:, 0], start, atol=1e-5)
    # As many rows as the data, so the program of the first training serves.
    chosen = kept(segments, keep, TOY)
    chosen = jax.tree.map(lambda x: x[np.arange(len(start)) % len(x)], chosen)
    tuned, _ = run(jax.random.key(3), state, rows, jax.tree.map(jnp.asarray, rows_of(chosen)))
    plans, _ = imagine(jax.random.key(4), tuned, start, none)
    after = np.asarray(plans.action).sum((1, 2))
    expected = 0.5 * (earned.mean() + earned[keep].mean())  # half of the batches are kept plans
    assert after.mean() > earned.mean() + 0.5 * (expected - earned.mean())
    assert len(imagined) == 1 and len(traces) == 1


def test_the_planner_is_diffuser_between_rounds(toy):
    planner, rows, state, *_ = toy
    now, none = rows.observation[:3], np.zeros((3, 0), np.float32)
    run, traces = counted(planner.policy.act)
    carry, decision = run(jax.random.key(0), state, planner.policy.init(now), now, none)
    _, again = run(jax.random.key(0), state, carry, now, none)
    np.testing.assert_allclose(decision.plan.action, again.plan.action)  # always from nothing here
    assert len(traces) == 1 and again.decided.all()
    np.testing.assert_array_equal(again.action, again.plan.action[:, 0])
    assert planner.learner.draws.offsets == tuple(range(H))


def test_in_mazes_plans_that_jump_are_not_kept(monkeypatch):
    """An exact denoiser of walks in two rooms, of which a third go through the wall."""
    length, rng = 10, np.random.default_rng(0)
    walks = np.array([shortest_walk(rng, *pair, length) for pair in PAIRS])
    rows, moves = rows_of_walks(walks, length)
    monkeypatch.setattr(parts, "model", exact_model)
    monkeypatch.setattr(module, "inverse", exact_steps)
    config = AdaptDiffuserConfig(
        DiffuserPlannerConfig(horizon=length, candidates=1, sampling=SamplingConfig(steps=8)),
        quantile=1.0,
        error_quantile=1.0,
    )
    planner = adapt_diffuser.__wrapped__(config, SPEC)
    state = jax.jit(planner.learner.init)(jax.random.key(0), rows)
    broken = np.arange(len(PAIRS)) % 3 == 0
    walks, moves = walks.astype(np.float32), moves.copy()
    for i in np.flatnonzero(broken):  # there at once, from the fourth row on
        walks[i, 4:] = walks[i, -1]
    far = np.abs(np.diff(walks, axis=1)).max((1, 2)) > 1
    scale = state.planner.scale
    bank = [scale.observation(jnp.asarray(walks)), scale.action(jnp.asarray(moves))]
    inner = state.planner._replace(model=jnp.concatenate(bank, axis=-1))
    tools = scale.observation.std, scale.action.mean, scale.action.std
    state = state._replace(planner=inner, inverse=tools)
    start, goal = (np.array(x, np.float32) for x in zip(*PAIRS, strict=True))
    segments, keep = jax.jit(planner.imagine)(jax.random.key(1), state, start, goal)
    assert broken.sum() > far.sum() > 20
    assert not np.asarray(keep)[far].any()
    assert np.asarray(keep)[~broken].mean() > 0.9
    np.testing.assert_allclose(segments.observation[:, -1], goal, atol=1e-5)
    np.testing.assert_array_equal(segments.goal, goal)
    assert (np.asarray(segments.distance) == length - 1).all()


def exact_steps(config, action_dim, stride, relative):
    """Its state is `(std of states, mean and std of actions)`."""
    del config, action_dim, stride, relative

    def act(key, state, observation, target, ahead):
        std, mean, spread = state
        return ((target - observation) * std[None] - mean[None]) / spread[None]

    return Inverse(lambda *args: jnp.zeros(()), lambda *args: args[1], act)


def test_equal_settings_are_one_planner():
    assert adapt_diffuser(TOY, Spec(1, 1)) is adapt_diffuser(replace(TOY), Spec(1, 1))
