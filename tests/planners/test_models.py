"""Models of plans: every formulation learns the same conditional, flow maps in few calls."""

from functools import partial
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdp import loops
from jdp.diffusion import exact, formulation
from jdp.errors import UserError
from jdp.learning import plan_models
from jdp.learning.plan_models import ModelConfig, model
from jdp.networks import NetworkConfig
from jdp.planners import SamplingConfig
from jdp.planners.trajectory import Previous, draw_plan, nothing, plan_schedule
from jdp.types import named_keys

SLOPE, SPREAD, STEPS = 0.8, 0.5, 300
KNOWN = jnp.zeros((2, 1), bool).at[0].set(True)


def draw(key, data):
    """Plans of two rows: the second is SLOPE times the first, with a spread."""
    del data
    first, noise = jax.random.normal(key, (2, 256, 1, 1))
    return jnp.concatenate([first, SLOPE * first + SPREAD * noise], axis=1)


def learn(key, state, x0, *, net):
    return net.update(key, state, x0, jnp.zeros((x0.shape[0], 0)), KNOWN[None], jnp.ones((1, 1, 1)))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "sampler", "steps"),
    [
        ("flow", "euler", 20),
        ("consistency", "consistency", 2),
        ("shortcut", "flow_map", 2),
    ],
)
def test_draws_have_the_conditional_of_the_data(name, sampler, steps):
    config = ModelConfig(
        network=NetworkConfig("mixer", 32, 1), formulation=name, steps=STEPS, learning_rate=5e-3, ema=0.98
    )
    net = model(config)
    state = net.init(jax.random.key(0), jnp.zeros((1, 2, 1)), jnp.zeros((1, 0)))
    state = loops.fit(lambda *a: learn(*a, net=net), draw, state, (), key=jax.random.key(1), stop=STEPS)
    sampling = SamplingConfig(sampler=sampler, steps=steps, warm_steps=0, sigma_max=None)
    batch = 2000
    present = jnp.linspace(-1.5, 1.5, batch)[:, None]
    known = jnp.zeros((batch, 2, 1)).at[:, 0].set(present)

    def plans(key, state):
        denoiser = net.denoiser(state, jnp.zeros((batch, 0)))
        mask = jnp.broadcast_to(KNOWN[None], known.shape)
        schedule = plan_schedule(sampling, name)
        return draw_plan(key, denoiser, known, mask, nothing(known), sampling, schedule)

    x = np.asarray(jax.jit(plans)(jax.random.key(2), state))[..., 0]
    assert x[:, 0] == pytest.approx(np.asarray(present)[:, 0], abs=1e-6)  # the present is exact
    slope, offset = np.polyfit(x[:, 0], x[:, 1], 1)
    assert slope == pytest.approx(SLOPE, abs=0.12)
    assert offset == pytest.approx(0.0, abs=0.12)
    assert np.std(x[:, 1] - slope * x[:, 0] - offset) == pytest.approx(SPREAD, rel=0.35)  # after 300 updates


def test_a_sampler_of_another_kind_of_model_is_refused():
    for name, sampler in (("edm", "flow_map"), ("shortcut", "euler"), ("consistency", "dpmpp_2m")):
        with pytest.raises(UserError, match="do not go together"):
            plan_schedule(SamplingConfig(sampler=sampler, warm_steps=0), name)
    with pytest.raises(UserError, match="formulation"):
        model(ModelConfig(formulation="vp_epz"))
    with pytest.raises(UserError, match="shortcut models have a loss of their own"):
        ModelConfig(formulation="shortcut", loss_space="x0")


def test_the_loss_of_a_model_of_plans_may_see_another_quantity():
    """Of a network that says nothing yet, x0 is 0: in eps the error of a level weighs `1 / sigma^2`."""
    x0, none = jax.random.normal(jax.random.key(0), (64, 2, 1)), jnp.zeros((64, 0))
    network, key = NetworkConfig("mixer", 8, 1), jax.random.key(1)
    found = {}
    for space in ("own", "x0", "eps"):
        net = model(ModelConfig(network=network, formulation="vp_x0", loss_space=space, steps=10))
        shapes = jax.eval_shape(net.init, key, x0[:1], none[:1])
        state = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
        found[space] = jax.jit(partial(learn, net=net))(key, state, x0)[1]["loss"]
    sigma = formulation("vp_x0").levels(named_keys(key, "level", "noise")["level"], 64, jnp.float32)
    error = np.square(np.asarray(x0))[:, 1, 0] / 2  # row 0 is known, and costs nothing
    assert found["own"] == found["x0"] == pytest.approx(error.mean(), rel=1e-5)
    assert found["eps"] == pytest.approx(np.mean(error / np.square(sigma)), rel=1e-4)


def test_a_plan_is_drawn_with_a_level_for_each_row():
    """`T = D`: equal rows are the plain schedule; else every row starts with noise of its own."""
    denoiser, key = exact.gaussian(0.2, 0.5), jax.random.key(3)
    known = jax.random.normal(jax.random.key(0), (5, 3, 3))
    mask = jnp.zeros((1, 3, 3), bool).at[:, 0, :2].set(True)
    config = SamplingConfig(sampler="euler", steps=4, warm_steps=2, temperature=0.5)
    sigmas = plan_schedule(config, "edm")
    draw = jax.jit(
        lambda planned, sigmas: draw_plan(
            key, denoiser, known, mask, Previous(known[::-1], planned), config, sigmas
        )
    )
    for planned in (False, True):
        planned = jnp.full(5, planned)
        plain, rows = draw(planned, sigmas), jnp.broadcast_to(sigmas[:, None, None], (5, 1, 3))
        np.testing.assert_allclose(draw(planned, rows), plain, rtol=1e-5, atol=1e-6)
        matrix = sigmas[:, None, None] * jnp.array([[1.0, 0.0, 0.3]])[None]
        found = np.asarray(draw(planned, matrix))
        for t, scale in enumerate([1.0, 0.0, 0.3]):
            alone = draw(planned, scale * sigmas) if scale else (known[::-1] if planned.any() else 0 * known)
            np.testing.assert_allclose(found[:, t], alone[:, t], rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(found[:, 0, :2], known[:, 0, :2])


@pytest.mark.parametrize("kind", ["residual_unet", "diffuser_unet"])
def test_a_level_per_step_is_shown_to_the_network(kind):
    """By its shape: `[B, T]` is embedded step by step, `[B]` and `[B, T, D]` are one level and flags."""
    net = model(ModelConfig(network=NetworkConfig(kind, 8, 1), steps=10))
    x, none = jax.random.normal(jax.random.key(0), (2, 4, 3)), jnp.zeros((2, 0))
    state = net.init(jax.random.key(1), x, none)
    ema = jax.tree.map(lambda p: p + 0.3 * jax.random.normal(jax.random.key(9), p.shape), state.ema)
    denoiser, rows = jax.jit(net.denoiser(state._replace(ema=ema), none)), jnp.array([0.5, 2.0])
    one = denoiser(x, rows)
    each = jnp.repeat(rows[:, None], 4, 1)
    np.testing.assert_allclose(denoiser(x, each), one, atol=1e-5)
    np.testing.assert_allclose(denoiser(x, jnp.repeat(each[..., None], 3, -1)), one, atol=1e-5)
    lower = denoiser(x, each.at[0, 1].set(0.1))
    assert np.abs(np.asarray(lower - one))[0].max() > 1e-3
    np.testing.assert_array_equal(lower[1], denoiser(x, each)[1])
    clean = denoiser(x, each.at[:, 1].set(0.0))
    np.testing.assert_array_equal(clean[:, 1], x[:, 1])


@pytest.mark.parametrize("octaves", [0, 2])
def test_octaves_are_sines_and_cosines_beside_the_entries_and_the_known_ends(octaves, monkeypatch):
    """Of what the network sees, x scaled by its level; of an end that is not known nothing is told."""
    seen = []

    def apply(params, shown, level, given):
        seen.append((shown, given))
        return params + shown

    monkeypatch.setattr(plan_models, "make", lambda *args: SimpleNamespace(apply=apply))
    net = model.__wrapped__(ModelConfig(octaves=octaves))
    x, level = jax.random.normal(jax.random.key(0), (2, 3, 2)), jnp.full((2, 3, 2), 0.5).at[:, 0].set(0.0)
    net.denoiser(SimpleNamespace(ema=jnp.zeros(())), jnp.zeros((2, 0)))(x, level)
    own = np.asarray(x) / np.sqrt(1 + np.asarray(level) ** 2)
    angles = [np.pi * own, 2 * np.pi * own][:octaves]
    waves = np.concatenate([own, *(f(a) for a in angles for f in (np.sin, np.cos))], axis=-1)
    shown, given = seen[0]
    np.testing.assert_allclose(shown[..., :-2], waves, atol=1e-5)
    np.testing.assert_array_equal(shown[..., -2:], level == 0)
    np.testing.assert_allclose(given, np.concatenate([waves[:, 0], 0 * waves[:, 0]], axis=-1), atol=1e-5)
