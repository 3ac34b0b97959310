"""CompDiffuser: what pieces are told of their sides, one chunk alone, a corner that no episode turns."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from two_rooms import SPEC, counted, rows_of_walks

from jdp.data import batches
from jdp.diffusion import overlapping
from jdp.errors import UserError
from jdp.learning.inverse import Inverse, InverseConfig
from jdp.learning.plan_models import Model, ModelConfig
from jdp.learning.scale import Affine, Scale
from jdp.networks import NetworkConfig
from jdp.planners import SamplingConfig, comp_diffuser, make, parts
from jdp.planners.comp_diffuser import CompDiffuserConfig, CompDiffuserState, lesson, parts_of
from jdp.planners.diffuser import DiffuserPlannerConfig
from jdp.planners.trajectory import draw_plan, nothing, plan_schedule
from jdp.types import Context, Spec, bind, expand, named_keys

T, K = 12, 6
SCALE = Scale(
    Affine(jnp.array([1.0, -1.0]), jnp.array([2.0, 2.0])), Affine(jnp.zeros(2), jnp.ones(2)),
    Affine(jnp.zeros(1), jnp.ones(1)),
)  # fmt: skip
COLD = SamplingConfig("dpmpp_2m", steps=10, warm_steps=0)


def told(batch=4000, **settings):
    config = CompDiffuserConfig(horizon=T, overlap=4, replan_every=0, **settings)
    made = parts_of(config, Spec(3, 2, goal=(0, 1)), None, False)
    x0 = 1 + jax.random.uniform(jax.random.key(0), (batch, T, 3))
    return np.asarray(x0), jax.device_get(jax.jit(lesson, static_argnums=2)(jax.random.key(1), x0, made))


def test_what_a_piece_is_told_of_its_sides():
    x0, (wide, known, weight, *_) = told()
    assert (wide[..., :3] == x0).all() and (weight == [1, 1, 1, 0, 0, 0]).all()
    beside = ~known[..., 3:]
    assert (beside == beside[..., :1]).all() and (wide[..., 3:] == np.where(beside, x0, 0)).all()
    left, right = beside[:, 0, 0], beside[:, -1, 0]
    row = np.arange(T)[None]
    assert (beside[..., 0] == (left[:, None] & (row < 4) | right[:, None] & (row >= T - 4))).all()
    start, end = known[:, 0, 0], known[:, -1, 0]
    only = np.zeros_like(known[..., :3])
    only[:, 0], only[:, -1, :2] = start[:, None], end[:, None]
    assert (known[..., :3] == only).all() and not (start & left).any() and not (end & right).any()
    for copied, given in ((left, start), (right, end)):
        np.testing.assert_allclose([copied.mean(), given.mean()], 0.4, atol=0.03)
    assert abs(np.corrcoef(left, right)[0, 1]) < 0.05  # the sides are told independently


def test_the_shares_of_what_is_told_are_settings():
    _, (_, known, *_) = told(500, drop=1.0)
    assert known[..., 3:].all() and not known[..., :3].any()
    _, (_, known, *_) = told(500, drop=0.0, given=1.0)
    assert known[:, 0].all() and known[:, -1, :2].all() and not known[:, -1, 2].any()


def _shrunk(x, sigma):
    """A smooth function of rows, of the copies beside them and of levels, the same for every entry."""
    own, beside = jnp.split(x, 2, axis=-1)
    level = jnp.max(jnp.broadcast_to(expand(sigma, x), x.shape), (1, 2), keepdims=True)
    near = (own + jnp.roll(own, 1, axis=1) + jnp.roll(own, -1, axis=1)) / 3
    clean = near / (1 + jnp.square(level)) + 0.1 * jnp.tanh(beside)
    return jnp.concatenate([clean, jnp.zeros_like(clean)], -1)


def untrained(monkeypatch, trace=False, **settings):
    """`(parts, method, state)` over `_shrunk`, whose actions are the way to the next row."""
    towards = Inverse(None, None, lambda key, state, here, target, ahead: target - here)
    monkeypatch.setattr(parts, "model", lambda _: Model(None, None, lambda state, none: bind(_shrunk)))
    monkeypatch.setattr(parts, "inverse", lambda *_: towards)
    common = {"horizon": T, "overlap": K, "replan_every": 1, "sampling": COLD}
    config = CompDiffuserConfig(**common | settings)
    method = comp_diffuser.comp_diffuser.__wrapped__(config, SPEC, trace=trace)
    return comp_diffuser.parts_of(config, SPEC, None, trace), method, CompDiffuserState(SCALE, None, None)


HERE, GOAL = jnp.array([[0.0, 1.0], [2.0, 0.0]]), jnp.array([[3.0, 0.0], [1.0, 1.0]])


def test_one_chunk_is_planned_as_a_plain_planner_would_bit_for_bit(monkeypatch):
    made, _, state = untrained(monkeypatch, segments=1)
    context = Context(SCALE, HERE, GOAL, jnp.zeros(2, jnp.int32), HERE[:, None])
    key, level = jax.random.key(3), made.chunk

    def plain(x, sigma):
        wide = jnp.concatenate([x, jnp.zeros_like(x)], -1)
        levels = jnp.broadcast_to(expand(sigma, x), x.shape)
        return _shrunk(wide, jnp.concatenate([levels, jnp.zeros_like(levels)], -1))[..., :2]

    def expected(key):
        known, mask = level.known(SCALE.observation(HERE), SCALE.goal(GOAL, SPEC))
        schedule = plan_schedule(COLD, "edm")
        start = nothing(known[..., :2])
        return draw_plan(key, bind(plain), known[..., :2], mask[..., :2], start, COLD, schedule)

    def found(key):
        return comp_diffuser.plan(key, state, nothing(jnp.zeros((2, T, 2))), context, parts=made).memory.plan

    drawn = named_keys(key, "draw", "copies")["draw"]
    assert (jax.jit(found)(key) == jax.jit(expected)(drawn)).all()


@pytest.mark.parametrize("schedule", ["parallel", "autoregressive"])
def test_plans_lead_from_the_present_to_any_goal_by_one_program(schedule, monkeypatch):
    _, method, state = untrained(monkeypatch, True, segments=3, schedule=schedule, candidates=4)
    length = 3 * (T - K) + K
    act, traces = counted(method.policy.act)
    for goal in (GOAL, GOAL[::-1]):
        _, decision = act(jax.random.key(0), state, method.policy.init(HERE), HERE, goal)
        plan = decision.plan.observation
        assert plan.shape == (2, length, 2)
        np.testing.assert_allclose(plan[:, 0], HERE, atol=1e-5)
        np.testing.assert_allclose(plan[:, -1], goal, atol=1e-5)
        chain = np.asarray(decision.chain)
        assert chain.shape == (COLD.steps + 1, 2, 3 * T, 2)
        merged = overlapping.merged(jnp.asarray(chain[-1]), 3, K)
        np.testing.assert_allclose(SCALE.observation.inverse(merged), plan, atol=1e-5)
        longest = np.linalg.norm(np.diff(np.asarray(merged), axis=1), axis=-1).max(1)
        np.testing.assert_allclose(decision.value, -longest, rtol=1e-5)
        assert chain[0][:, -T].std() > 3  # begins with noise of the whole schedule
    assert len(traces) == 1


def test_the_smoothest_of_the_candidates_is_followed(monkeypatch):
    values = []
    for many in (1, 16):
        _, method, state = untrained(monkeypatch, segments=2, candidates=many, overlaps="free")
        here, goal = jnp.tile(HERE, (32, 1)), jnp.tile(GOAL, (32, 1))
        act = jax.jit(method.policy.act)
        values.append(act(jax.random.key(0), state, method.policy.init(here), here, goal)[1].value.mean())
    assert values[1] > values[0] + 0.02


def test_guidance_departs_from_chunks_without_neighbours(monkeypatch):
    x = jax.random.normal(jax.random.key(0), (2, 2 * T, 2))
    found = []
    for weight in (0.0, 1.0, 3.0):
        made, _, state = untrained(monkeypatch, segments=2, guidance=weight, overlaps="free")
        found.append(comp_diffuser.denoiser_of(state, 2, None, parts=made)(x, jnp.ones(2)))
    np.testing.assert_allclose(found[2] - found[0], 3 * (found[1] - found[0]), atol=1e-5)
    alone = _shrunk(jnp.concatenate([x, jnp.zeros_like(x)], -1).reshape(4, T, 4), jnp.ones(4))[..., :2]
    np.testing.assert_allclose(found[0].reshape(4, T, 2), alone, atol=1e-6)


def pieces(rng, episodes, length=32):
    """Walks from A (0, 0) to B (1, 0), and from B to C (1, 1), at any pace, resting at both ends; 2-D."""
    begin, time = rng.uniform(6, 10, (episodes, 1)), rng.uniform(12, 16, (episodes, 1))
    share = np.clip((np.arange(length)[None] - begin) / time, 0, 1)
    first = np.arange(episodes)[:, None] % 2 == 0
    walk = np.stack([np.where(first, share, 1), np.where(first, 0, share)], -1)
    return walk + 0.01 * rng.normal(size=walk.shape)


def off_the_way(plans):
    """`[B]`, how far plans depart from A-B-C at most; `[B]`, their longest step."""
    x, y = plans[..., 0], plans[..., 1]
    gap = np.minimum(np.hypot(x - np.clip(x, 0, 1), y), np.hypot(x - 1, y - np.clip(y, 0, 1)))
    return gap.max(1), np.linalg.norm(np.diff(plans, axis=1), axis=-1).max(1)


def plans_after_training(config, updates=700, batch=32, starts=24):
    """`[starts, T, 2]`, plans from A to C by `config`, learned from pieces of its horizon."""
    method = make(config, SPEC)
    rows, _ = rows_of_walks(pieces(np.random.default_rng(0), 400), config.horizon)
    draw = batches(method.learner.draws, batch)

    @jax.jit
    def train(key, rows):
        def one(state, key):
            keys = named_keys(key, "draw", "update")
            return method.learner.update(keys["update"], state, draw(keys["draw"], rows))[0], None

        state = method.learner.init(jax.random.key(0), rows)
        return jax.lax.scan(one, state, jax.random.split(key, updates))[0]

    state = train(jax.random.key(1), rows)
    here, goal = jnp.zeros((starts, 2)), jnp.ones((starts, 2))
    act, carry = jax.jit(method.policy.act), method.policy.init(here)
    return np.asarray(act(jax.random.key(2), state, carry, here, goal)[1].plan.observation)


@pytest.mark.slow
@pytest.mark.parametrize("schedule", ["parallel", "autoregressive"])
def test_pieces_from_a_to_b_and_from_b_to_c_make_a_way_from_a_to_c(schedule):
    net = NetworkConfig("residual_unet", 16, 2)
    model = ModelConfig(network=net, steps=700, learning_rate=3e-3, ema=0.99)
    small = {"replan_every": 0, "model": model, "inverse": InverseConfig(hidden=(8,)), "candidates": 8}
    config = CompDiffuserConfig(horizon=16, segments=5, overlap=6, schedule=schedule, **small)
    plans = plans_after_training(config)
    gap, step = off_the_way(plans)
    assert gap.max() < 0.2 and step.max() < 0.2  # measured .12 and .13; data: .03 and .11
    assert np.hypot(plans[..., 0] - 1, plans[..., 1]).min(1).max() < 0.2  # all go through B
    if schedule == "parallel":  # the same pieces, plans of their length
        sampling = SamplingConfig("dpmpp_2m_sde", steps=20, warm_steps=0)
        whole = DiffuserPlannerConfig(horizon=16, sampling=sampling, **small | {"candidates": 1})
        _, step = off_the_way(plans_after_training(whole))
        assert np.quantile(step, 0.1) > 0.3  # they jump: measured .47, half of them .66 and more


def test_mistakes_are_told_in_one_line():
    for settings, word in (
        ({"overlap": 0}, "overlap of 0 steps"),
        ({"overlap": 10}, "up to 8"),
        ({"stride": 2, "overlap": 3}, "multiple of the stride"),
        ({"segments": 0}, "segments is 0"),
        ({"replan_every": 29}, "lasts 1 to 28"),
        ({"sampling": SamplingConfig(warm_steps=2)}, "warm_steps to 0"),
    ):
        with pytest.raises(UserError, match=word) as error:
            CompDiffuserConfig(**{"horizon": 16, "overlap": 4, "segments": 2} | settings)
        assert "\n" not in str(error.value)
