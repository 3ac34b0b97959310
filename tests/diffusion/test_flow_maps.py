"""Consistency and shortcut models against the exact flow map of a Gaussian, and trained on two toys."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jdp.diffusion import exact, flow_maps, samplers, schedules
from jdp.diffusion.flow_maps.shortcut import step_column
from jdp.diffusion.guidance import hold
from jdp.diffusion.times import FLOW
from jdp.learning.averaged import begin, descend
from jdp.networks.conditional_mlp import conditional_mlp
from jdp.types import expand, named_keys

MEAN, STD, SIGMA_MIN = 0.7, 0.5, 0.002
MAP = exact.gaussian_map(MEAN, STD)
TEACHER = exact.gaussian(MEAN, STD)
B, T, D = 64, 3, 2


def draw(seed, *shape):
    return jax.random.normal(jax.random.key(seed), shape)


def test_the_exact_map_is_where_small_steps_lead():
    x = 80 * draw(0, B, T, D)
    sigmas = jnp.geomspace(80.0, 0.1, 2000)
    np.testing.assert_allclose(samplers.heun(TEACHER, x, sigmas), MAP(x, sigmas[0], sigmas[-1]), atol=2e-3)
    one, two = (samplers.flow_map(MAP, x, jnp.array(s)) for s in ([80.0, 0.1], [80.0, 3.0, 0.1]))
    np.testing.assert_allclose(one, two, atol=1e-5)  # maps compose
    assert samplers.flow_map(MAP, x, schedules.flow(4), trace=True).shape == (5, B, T, D)


# --- consistency ---------------------------------------------------------------------------------


def consistent(params, scaled, c_noise):
    """The network of the exact consistency function; `params` shifts what it says."""
    s = jnp.exp(4 * expand(c_noise, scaled))
    x = scaled * jnp.sqrt(1 + s**2)
    x0 = MAP(x, jnp.broadcast_to(s, x.shape), jnp.full(x.shape, SIGMA_MIN))
    above = jnp.maximum(s - SIGMA_MIN, 1e-9)
    return (x0 - x / (1 + above**2)) / above * jnp.sqrt(1 + s**2) + params


@pytest.mark.parametrize("shape", [(B,), (B, T), (B, T, D)])
def test_consistency_functions_end_where_they_begin(shape):
    x, apply = draw(0, B, T, D), lambda p, x, c: 7 * jnp.cos(x)
    f = flow_maps.consistency(apply, None)
    for level in (SIGMA_MIN, 0.0):
        np.testing.assert_array_equal(f(x, jnp.full(shape, level)), x)
    sigma = jnp.geomspace(0.01, 80, np.prod(shape)).reshape(shape)
    found = flow_maps.consistency(consistent, 0.0)(x, sigma)
    np.testing.assert_allclose(found, MAP(x, sigma, jnp.full(shape, SIGMA_MIN)), atol=1e-4)


def distillation(shift, n, known=None, **settings):
    x0 = MEAN + STD * draw(1, 4096, T, D)
    sigmas = schedules.karras(n)
    return flow_maps.consistency_distillation(
        jax.random.key(2), consistent, shift, x0, target=0.0, teacher=TEACHER, sigmas=sigmas, known=known,
        **settings,
    )[0]  # fmt: skip


def test_the_exact_consistency_function_has_no_distillation_loss():
    assert distillation(0.0, 64) < 1e-6
    # The error of one step of the teacher is what is left, squared: h^3 of Heun, h^2 of Euler.
    assert distillation(0.0, 16) / distillation(0.0, 32) > 30
    assert 10 < distillation(0.0, 32, solver="euler") / distillation(0.0, 64, solver="euler") < 30
    assert distillation(0.1, 64) > 1e-3


def test_distillation_beside_known_entries():
    known = jnp.zeros((1, T, D), bool).at[:, 0].set(True)
    assert distillation(0.0, 64, known) < 1e-6
    gradient = jax.grad(lambda shift: distillation(shift, 64, known))
    np.testing.assert_allclose(gradient(jnp.zeros((1, T, D)))[0, 0], 0.0)
    slope = gradient(jnp.full((1, T, D), 0.1))
    assert (slope[0, 0] == 0).all() and (slope[0, 1:] > 0).all()
    only_one = jnp.zeros((1, T, D)).at[0, 1, 1].set(1.0)
    weighed = jax.grad(lambda shift: distillation(shift, 64, weight=only_one))(jnp.full((1, T, D), 0.1))
    assert ((weighed != 0) == (only_one > 0)).all()


def test_multistep_sampling_of_the_exact_consistency_function():
    f, x = flow_maps.consistency(consistent, 0.0), 80 * draw(3, 20_000, 1, 2)
    for sigmas in ([80.0, 0.0], [80.0, 2.0, 0.0], [80.0, 5.0, 0.5, 0.0]):
        made = np.asarray(samplers.consistency(f, x, jnp.array(sigmas), key=jax.random.key(4)))
        np.testing.assert_allclose(made.mean((0, 1)), MEAN, atol=0.025)
        np.testing.assert_allclose(made.std((0, 1)), STD, rtol=0.025)
    known, mask = jnp.full(x.shape, -3.0), np.array([[[True, False]]])
    held = samplers.consistency(hold(f, known, mask), x, schedules.karras(3), key=jax.random.key(5))
    np.testing.assert_array_equal(held[..., 0], -3.0)
    np.testing.assert_allclose(held[..., 1].std(), STD, rtol=0.025)


# --- shortcuts -----------------------------------------------------------------------------------

STEPS = 16


def direct(params, z, t, condition):
    """The mean velocity of the exact map over the step in the last column; the smallest is a step too."""
    d = FLOW.last / STEPS * 2 ** (condition[:, -1] * np.log2(STEPS))
    now = expand(t, z)
    later = jnp.maximum(now - expand(d, z), 0.0)
    noisy = jnp.where(now > 0, now - later, 1.0)
    s, s_next = FLOW.level(now), FLOW.level(later)
    wide = lambda level: jnp.broadcast_to(level, z.shape)  # noqa: E731
    return (z - MAP(z * (1 + s), wide(s), wide(s_next)) / (1 + s_next)) / noisy + params


def test_the_column_of_the_step():
    d = FLOW.last * jnp.array([0.0, 1 / 256, 1 / 128, 1 / 64, 0.5, 1.0])
    np.testing.assert_allclose(step_column(d, 128), [0, 0, 0, 1 / 7, 6 / 7, 1], atol=1e-6)


@pytest.mark.parametrize("n", [1, 2, 16])
def test_the_exact_shortcut_is_the_exact_map(n):
    x, sigmas = 999 * draw(0, B, T, D), schedules.flow(n)
    made = samplers.flow_map(flow_maps.shortcut(direct, 0.0, steps=STEPS), x, sigmas)
    np.testing.assert_allclose(made, MAP(x, sigmas[0], sigmas[-1]), atol=2e-3)


def matching(shift, share, known=None, target=None, weight=None):
    x0 = MEAN + STD * draw(1, 4096, T, D)
    return flow_maps.shortcut_matching(
        jax.random.key(2), direct, shift, x0, share=share, known=known, target=target, weight=weight,
        steps=STEPS,
    )[0]  # fmt: skip


def test_the_exact_shortcut_is_consistent_with_itself():
    assert matching(0.0, 0.0) < 1e-6
    assert matching(0.3, 0.0, target=0.0) > 0.05
    known = jnp.zeros((1, T, 1), bool).at[:, 0].set(True)
    assert matching(0.0, 0.0, known) < 1e-6
    # Half of the rows: the shares add up, up to their noise.
    flow, both = matching(0.0, 1.0), matching(0.0, 0.5)
    np.testing.assert_allclose(both, flow / 2, rtol=0.1)


def test_no_gradient_reaches_a_shortcut_target_or_known_entries():
    # The loss is (shift - shift)^2 for the value, but its slope is that of the online network alone.
    shift = jnp.full((1, T, D), 0.3)
    gradient = jax.grad(lambda s: matching(s, 0.0, target=jnp.zeros((1, T, D))))(shift)
    np.testing.assert_allclose(gradient, 2 * 0.3 / (T * D), rtol=0.1)
    known = jnp.zeros((1, T, 1), bool).at[:, 0].set(True)
    gradient = jax.grad(lambda s: matching(s, 0.5, known))(shift)
    assert (gradient[0, 0] == 0).all() and (gradient[0, 1:] != 0).all()
    with pytest.raises(ValueError, match="power of two"):
        flow_maps.shortcut_matching(jax.random.key(0), direct, 0.0, jnp.zeros((4, T, D)), steps=12)


def test_a_held_map_keeps_and_shows_what_is_known():
    seen = []

    def spy(params, z, t, condition):
        seen.append((z, t))
        return direct(params, z, t, condition)

    known, mask = jnp.full((B, T, D), -3.0), np.array([True, False, False])[None, :, None]
    held = flow_maps.hold_map(flow_maps.shortcut(spy, 0.0, steps=STEPS), known, mask)
    x = 999 * draw(0, B, T, D)
    made = held(x, jnp.full(B, 999.0), jnp.zeros(B))
    np.testing.assert_array_equal(made[:, 0], known[:, 0])
    np.testing.assert_allclose(made[:, 1:], MAP(x, jnp.float32(999), jnp.float32(0))[:, 1:], atol=2e-3)
    z, t = seen[0]
    np.testing.assert_array_equal(z[:, 0], known[:, 0])
    assert (t[:, 0] == 0).all() and (t[:, 1:] > 0.99).all()


# --- trained -------------------------------------------------------------------------------------

NET = conditional_mlp(48, 1)


def unconditional(params, x, c_noise):
    return NET.apply(params, x[:, 0], c_noise, jnp.zeros((x.shape[0], 1)))[:, None]


def conditional(params, x, c_noise, condition):
    return NET.apply(params, x[:, 0], c_noise, condition)[:, None]


def train(loss, sample, updates, rate):
    """Averaged weights after `updates` of `loss(key, params, ema, x0)`."""
    optimiser = optax.adam(optax.cosine_decay_schedule(rate, updates))

    def update(state, key):
        keys = named_keys(key, "data", "loss")
        x0 = sample(keys["data"], 128)
        return descend(optimiser, state, lambda p: loss(keys["loss"], p, state.ema, x0), 0.99)[0], None

    params = NET.init(jax.random.key(0), jnp.zeros((2, 1)), jnp.zeros(2), jnp.zeros((2, 1)))
    keys = jax.random.split(jax.random.key(1), updates)
    with jax.numpy_dtype_promotion("standard"):  # optax's own arithmetic mixes int32 with floats
        return jax.jit(lambda state: jax.lax.scan(update, state, keys)[0].ema)(begin(optimiser, params))


@pytest.mark.slow
def test_a_trained_consistency_model_needs_one_or_two_steps():
    sigmas = schedules.karras(18)

    def loss(key, params, ema, x0):
        return flow_maps.consistency_distillation(
            key, unconditional, params, x0, target=ema, teacher=TEACHER, sigmas=sigmas
        )

    sample = lambda key, n: MEAN + STD * jax.random.normal(key, (n, 1, 1))  # noqa: E731
    f = flow_maps.consistency(unconditional, train(loss, sample, 1500, 3e-3))
    for levels in ([80.0, 0.0], [80.0, 1.0, 0.0]):
        x = 80 * draw(2, 4096, 1, 1)
        made = np.asarray(samplers.consistency(f, x, jnp.array(levels), key=jax.random.key(3)))
        np.testing.assert_allclose([made.mean(), made.std()], [MEAN, STD], atol=0.06)


@pytest.mark.slow
def test_a_trained_shortcut_model_needs_one_or_two_steps():
    def loss(key, params, ema, x0):
        return flow_maps.shortcut_matching(key, conditional, params, x0, target=ema, steps=8)

    def sample(key, n):  # two modes, at +-1
        keys = named_keys(key, "mode", "noise")
        mode = jax.random.rademacher(keys["mode"], (n, 1, 1), jnp.float32)
        return mode + 0.2 * jax.random.normal(keys["noise"], (n, 1, 1))

    model = flow_maps.shortcut(conditional, train(loss, sample, 2000, 4e-3), steps=8)
    x = 999 * draw(2, 4096, 1, 1)
    truth = [0.0, 1.04**0.5, 1.0, 0.2]  # mean and std, of all and of the positive mode
    for n in (8, 2, 1):
        made = np.asarray(samplers.flow_map(model, x, schedules.flow(n)))
        found = [made.mean(), made.std(), made[made > 0].mean(), made[made > 0].std()]
        np.testing.assert_allclose(found, truth, atol=0.12)
