"""AlignDiff: what a wish does to plans, with an exact denoiser and with networks."""

from dataclasses import replace
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import spearmanr

from jdp.data import SegmentRows
from jdp.diffusion.guidance import hold
from jdp.errors import UserError
from jdp.learning import attributes
from jdp.learning.attributes import StrengthConfig
from jdp.learning.inverse import InverseConfig
from jdp.learning.plan_models import ModelConfig
from jdp.networks import NetworkConfig, ValueNetworkConfig
from jdp.planners import align_diff as module
from jdp.planners.align_diff import FREE, AlignDiffConfig, align_diff
from jdp.planners.trajectory import SamplingConfig
from jdp.types import Segments, Spec

T, B = 8, 64
SPEC = Spec(4, 2, "jdp/DoubleIntegrator-v0", groups=(("position", (0, 1)), ("velocity", (2, 3))))
SPEC = replace(
    SPEC, env_id="Hopper-v5", observation_dim=4, groups=(("position", (0, 1)), ("velocity", (2, 3)))
)
TINY = AlignDiffConfig(
    horizon=T,
    attributes=("speed", "height"),
    wish=(0.8, FREE),
    candidates=4,
    model=ModelConfig(network=NetworkConfig("residual_unet", 16, 1), learning_rate=3e-3, ema=0.99, steps=600),
    inverse=InverseConfig(hidden=(8,)),
    strengths=StrengthConfig(ValueNetworkConfig("pooled", 16, 1), members=2, learning_rate=3e-3, steps=600),
    sampling=SamplingConfig("dpmpp_2m", steps=5, warm_steps=0, sigma_max=20.0),
)


def segments(key, batch=B):
    """Each goes at a speed of its own, at a height of its own, which its first row does not tell."""
    keys = jax.random.split(key, 2)
    speed, height = jax.random.uniform(keys[0], (batch, 1)), jax.random.normal(keys[1], (batch, 1))
    own = jnp.broadcast_to(
        jnp.concatenate([height, 0 * speed, speed, 0 * speed], axis=1)[:, None], (batch, T, 4)
    )
    own = own.at[:, 0].set(0.0)
    zeros = jnp.zeros((batch, T))
    action = jnp.zeros((batch, T, 2))
    return Segments(own, action, zeros, zeros, zeros, zeros[:, :0], jnp.zeros(batch, jnp.int32))


def rows():
    made = segments(jax.random.key(9))
    flat = np.asarray(made.observation).reshape(-1, 4)
    zeros, count = np.zeros(len(flat), np.float32), np.zeros(len(flat), int)
    return SegmentRows(flat, np.zeros((len(flat), 2), np.float32), zeros, zeros, zeros, count, count, count)


@cache
def first_state():
    """Of TINY: settings of guidance and wish do not change it."""
    return jax.jit(align_diff(TINY, SPEC).learner.init)(jax.random.key(0), rows())


def test_attributes_are_masked_apart():
    standing = jnp.array([[0.75, 0.1], [0.2, 1.0]])
    found = module.masked(standing, jnp.array([[True, False], [False, True]]))
    np.testing.assert_allclose(found, [[0.5, 0, 1, 0], [0, 1.0, 0, 1]], atol=1e-6)


def test_a_wish_that_leaves_all_free_is_the_unconditional_model_whatever_the_weight():
    """What is masked has no influence, and `D_u + w (D_u - D_u)` is `D_u`."""
    x, sigma = jax.random.normal(jax.random.key(1), (2, T, 4)), jnp.full(2, 0.7)
    found = []
    for weight in (1.0, 4.0):
        free = replace(TINY, wish=(FREE, FREE), guidance=weight)
        found.append(module.guided(first_state(), 2, module.planners.parts_of(free, SPEC))(x, sigma))
    np.testing.assert_allclose(found[0], found[1], atol=1e-6)


def test_the_candidate_nearest_to_the_wish_is_followed():
    state = first_state()
    x0 = jax.random.normal(jax.random.key(2), (6, T, 4))
    own = module.planners.parts_of(TINY, SPEC, candidates=TINY.candidates)
    standing = np.asarray(attributes.standing(state.strengths, x0, TINY.strengths))
    np.testing.assert_allclose(
        module.nearness(state, x0, own), -np.square(standing[:, 0] - 0.8), rtol=1e-4, atol=1e-6
    )


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"wish": (0.5,)}, "give one number for each of the attributes"),
        ({"wish": (0.5, 1.5)}, "wish is 1.5"),
        ({"attributes": (), "wish": ()}, "give one number for each of the attributes"),
    ],
)
def test_wishes_that_mean_nothing_are_refused(settings, match):
    with pytest.raises(UserError, match=match):
        replace(TINY, **settings)


@pytest.mark.slow
def test_plans_are_as_fast_as_is_wished_and_what_is_free_stays_as_it_is_in_the_data():
    method = align_diff(TINY, SPEC)
    update = method.learner.update

    @jax.jit
    def train(state):
        def step(state, key):
            keys = jax.random.split(key)
            return update(keys[0], state, segments(keys[1], 128))

        return jax.lax.scan(step, state, jax.random.split(jax.random.key(3), 600))

    state, metrics = train(first_state())
    assert np.mean(metrics["preference_accuracy"][-50:]) > 0.95
    own = module.planners.parts_of(TINY, SPEC, candidates=1)
    wishes, speeds, heights = np.linspace(0.1, 0.9, 9), [], []
    noise = 20.0 * jax.random.normal(jax.random.key(4), (32, T, 4))

    known = jnp.broadcast_to(state.scale.observation(jnp.zeros((1, 1, 4))), noise.shape)

    @jax.jit
    def drawn(state, wish, asked):
        asked = jnp.broadcast_to(jnp.stack([asked, False])[None], (32, 2))
        condition = module.masked(jnp.stack([wish, 0 * wish], -1), asked)
        free = own.level.model.denoiser(state.model, condition)
        denoiser = hold(free, known, jnp.broadcast_to(own.level.mask()[None], known.shape))
        plan = state.scale.rows(TINY.sampling.function()(denoiser, noise, TINY.sampling.sigmas()))[0]
        return plan[:, 1:, 2].mean(), plan[:, 1:, 0].mean(1)

    for wish in wishes:
        speed, height = drawn(state, jnp.full(32, wish, jnp.float32), jnp.array(True))
        speeds.append(float(speed))
        heights.append(np.asarray(height))
    assert spearmanr(wishes, speeds).statistic > 0.95
    np.testing.assert_allclose(speeds, wishes, atol=0.12)  # speeds are uniform: a standing is a speed
    free = np.asarray(drawn(state, jnp.zeros(32), jnp.array(False))[1])
    np.testing.assert_allclose(np.std(heights, axis=1), np.std(free), rtol=0.25)
    np.testing.assert_allclose(np.mean(heights, axis=1), np.mean(free), atol=0.15)
