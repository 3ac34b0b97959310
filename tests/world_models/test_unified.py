"""The four conditionals of the unified model: exact for Gaussians, and of a small trained network."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdp.diffusion import exact
from jdp.diffusion.schedules import karras
from jdp.errors import UserError
from jdp.loops.fit import fit
from jdp.types import Bound, Spec, Transition
from jdp.world_models.parts import conditional, parts
from jdp.world_models.unified import UnifiedConfig, levels, unified, unified_world_model

# --- exact: a joint Gaussian of an action, two observation entries, reward and flag ---------------

SPEC = Spec(observation_dim=2, action_dim=1)
PARTS = parts(SPEC)
D = 5
ROOT = np.random.default_rng(1).normal(size=(D, D))
COVARIANCE, MEAN = ROOT @ ROOT.T / D + 0.2 * np.eye(D), np.array([0.3, -0.5, 1.0, 0.2, -0.1])
GIVEN = MEAN + np.array([0.9, -0.7, 0.8, 0.0, 0.0])
NOTHING = np.zeros(D, bool)
QUESTIONS = {  # known, hidden
    "policy": (NOTHING, PARTS.change | PARTS.reward),
    "forward": (PARTS.action, NOTHING),
    "inverse": (PARTS.change, PARTS.reward),
    "joint": (NOTHING, NOTHING),
}
draw = jax.jit(conditional)


@pytest.mark.parametrize("question", list(QUESTIONS))
def test_exact_conditionals(question):
    clean, hidden = QUESTIONS[question]
    denoiser = exact.correlated_gaussian(jnp.asarray(MEAN, jnp.float32), COVARIANCE)
    known = jnp.broadcast_to(jnp.asarray(GIVEN, jnp.float32), (20_000, D))
    x = np.asarray(draw(jax.random.key(0), denoiser, known, clean, hidden, karras(48)), float)
    np.testing.assert_array_equal(x[:, clean], np.asarray(known)[:, clean])
    asked = ~clean & ~hidden
    gain = COVARIANCE[np.ix_(asked, clean)] @ np.linalg.inv(COVARIANCE[np.ix_(clean, clean)])
    mean = MEAN[asked] + gain @ (GIVEN - MEAN)[clean]
    covariance = COVARIANCE[np.ix_(asked, asked)] - gain @ COVARIANCE[np.ix_(clean, asked)]
    std = np.sqrt(np.diag(covariance))
    found = np.cov(x[:, asked].T).reshape(covariance.shape)
    np.testing.assert_allclose((x[:, asked].mean(0) - mean) / std, 0, atol=0.03)
    np.testing.assert_allclose(found / np.outer(std, std), covariance / np.outer(std, std), atol=0.03)


def test_parts_cover_every_entry_once():
    np.testing.assert_array_equal(np.sum(PARTS, axis=0), np.ones(D))
    assert [int(p.sum()) for p in PARTS] == [1, 2, 2]


def test_training_levels():
    config = UnifiedConfig(clean=0.3, noised=0.2, sigma_max=80.0, p_mean=-1.0, p_std=0.5)
    found = np.asarray(levels(jax.random.key(0), config, SPEC, 20_000))
    action, change, reward = found[:, 0], found[:, 1], found[:, 3]
    np.testing.assert_array_equal(found[:, 2], change)  # one level a part
    np.testing.assert_array_equal(found[:, 4], reward)
    for level in (action, change):
        np.testing.assert_allclose([(level == 0).mean(), (level == 80).mean()], [0.3, 0.2], atol=0.02)
        noisy = np.log(level[(level > 0) & (level < 80)])
        np.testing.assert_allclose([noisy.mean(), noisy.std()], [-1.0, 0.5], atol=0.03)
    both = (action > 0) & (change > 0) & (action < 80) & (change < 80)
    assert abs(np.corrcoef(np.log(action[both]), np.log(change[both]))[0, 1]) < 0.05  # independent
    np.testing.assert_allclose(((reward == 80) & (change < 80)).mean(), 0.2 * 0.8, atol=0.02)
    assert ((reward == change) | (reward == 80)).all()


# --- a small trained network ---------------------------------------------------------------------

LINEAR = Spec(observation_dim=1, action_dim=1)
TINY = UnifiedConfig(
    features=64,
    blocks=2,
    sampling_steps=24,
    steps=2_500,
    batch_size=256,
    learning_rate=3e-3,
    ema=0.995,
)
SLOPE, NOISE, GAIN, SPREAD = 0.2, 0.15, 2.0, 0.3  # a = .2 o + .15 n; o' = o + 2 a + .3 n


def linear_data(count):
    rng = np.random.default_rng(0)
    o = rng.normal(size=(count, 1))
    a = SLOPE * o + NOISE * rng.normal(size=(count, 1))
    following = o + GAIN * a + SPREAD * rng.normal(size=(count, 1))
    fields = (o, a, 3 + following[:, 0], following, np.zeros(count))
    return Transition(*(jnp.asarray(f, jnp.float32) for f in fields))


def pick(key, data, *, batch_size):
    index = jax.random.randint(key, (batch_size,), 0, data.reward.shape[0])
    return jax.tree.map(lambda x: x[index], data)


@pytest.fixture(scope="module")
def trained():
    data, model = linear_data(50_000), unified(TINY, LINEAR)
    draw = Bound(pick, (("batch_size", TINY.batch_size),))
    state = model.learner.init(jax.random.key(0), data)
    return fit(model.learner.update, draw, state, data, key=jax.random.key(1), stop=TINY.steps, chunk=2_500)


def near(samples, mean, std, scale):
    """Within 10 %: the std of itself, the mean of the spread of the data `scale`."""
    samples = np.asarray(samples, float)
    np.testing.assert_allclose(samples.std(), std, rtol=0.1)
    np.testing.assert_allclose((samples.mean() - mean) / scale, 0, atol=0.1)


@pytest.mark.slow
@pytest.mark.parametrize("at", [-0.8, 1.0])
def test_trained_conditionals(trained, at):
    model, count, key = unified(TINY, LINEAR), 2_000, jax.random.key(2)
    o = jnp.full((count, 1), at)
    total = np.sqrt((GAIN * NOISE) ** 2 + SPREAD**2)  # std of o' given o

    near(jax.jit(model.policy)(key, trained, o), SLOPE * at, NOISE, NOISE)

    a = SLOPE * at + 0.15
    following, reward, terminal = jax.jit(model.forward)(key, trained, o, jnp.full((count, 1), a))
    near(following, at + GAIN * a, SPREAD, total)
    near(reward, 3 + at + GAIN * a, SPREAD, total)
    assert not np.asarray(terminal).any()

    following = at + GAIN * SLOPE * at - 0.3
    gain = GAIN * NOISE**2 / total**2
    found = jax.jit(model.inverse)(key, trained, o, jnp.full((count, 1), following))
    near(found, SLOPE * at + gain * -0.3, NOISE * SPREAD / total, NOISE)

    action, following, _, _ = jax.jit(model.joint)(key, trained, o)
    near(action, SLOPE * at, NOISE, NOISE)
    near(following, at + GAIN * SLOPE * at, total, total)
    correlation = np.corrcoef(np.asarray(action)[:, 0], np.asarray(following)[:, 0])[0, 1]
    np.testing.assert_allclose(correlation, GAIN * NOISE / total, atol=0.1)


def ends(observation, action, following):
    return following[:, 0] > 0


def test_the_world_model_is_the_forward_question():
    model, world = unified(TINY, LINEAR), unified_world_model(TINY, LINEAR, ends)
    data = linear_data(64)
    state, key = world.learner.init(jax.random.key(0), data), jax.random.key(1)
    carry = world.start(data.observation[:, None], data.action[:, None][:, :0])
    carry, following, reward, terminal = world.step(key, state, carry, data.action)
    expected = model.forward(key, state, data.observation, data.action)
    np.testing.assert_array_equal(following, expected[0])
    np.testing.assert_array_equal(reward, expected[1])
    np.testing.assert_array_equal(carry, following)
    np.testing.assert_array_equal(terminal, np.asarray(following)[:, 0] > 0)
    assert terminal.dtype == jnp.float32 and world.history == 1
    assert unified_world_model(TINY, LINEAR, ends) is world


def test_new_weights_compile_nothing_and_seeds_vmap():
    model, data = unified(TINY, LINEAR), linear_data(64)
    states = jax.vmap(model.learner.init, in_axes=(0, None))(jax.random.split(jax.random.key(0), 2), data)
    states, metrics = jax.jit(jax.vmap(model.learner.update, in_axes=(0, 0, None)))(
        jax.random.split(jax.random.key(1), 2), states, data
    )
    assert metrics["loss"].shape == (2,) and np.isfinite(np.asarray(metrics["loss"])).all()
    for question, args in (("policy", 1), ("forward", 2)):
        traces, function = [], getattr(model, question)

        def counted(*given, traces=traces, function=function):
            traces.append(1)
            return function(*given)

        program = jax.jit(counted)
        for k in range(2):
            state = jax.tree.map(lambda x, k=k: x[k], states)
            out = program(jax.random.key(k), state, *(data.observation, data.next_observation)[:args])
            chex.assert_tree_all_finite(out)
        assert len(traces) == 1


def test_mistakes():
    with pytest.raises(UserError, match="shares"):
        UnifiedConfig(clean=0.7, noised=0.4)
    with pytest.raises(UserError, match="sampling_steps"):
        UnifiedConfig(sampling_steps=1)
    with pytest.raises(UserError, match="of this dataset"):
        unified(TINY, SPEC).learner.init(jax.random.key(0), linear_data(4))
