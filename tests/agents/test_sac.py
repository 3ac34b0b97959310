"""SAC against numpy, the signs that make it soft, and the density of its policy."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sac_reference as reference
import scipy.stats
from agent_reference import member, to_numpy
from sac_reference import ROWS, SMALL, SPEC, transitions

from jdp import UserError
from jdp.agents.combo import COMBOConfig, combo
from jdp.agents.cql import CQLConfig, cql
from jdp.agents.edac import EDACConfig, edac
from jdp.agents.sac import SACConfig, alpha_loss, sac
from jdp.agents.sac_n import SACNConfig, sac_n
from jdp.data import TransitionDraw
from jdp.learning.critics import soft_target
from jdp.types import Learner, Spec, TanhNormal, WorldModel

MODEL = WorldModel(Learner(len, len, TransitionDraw(3, 2)), len, len)  # of no concern to an agent  # pyright: ignore[reportArgumentType]
CONFIG = SACConfig(**SMALL, normalise_observations=True)


@pytest.fixture(scope="module")
def agent():
    return sac(CONFIG, SPEC)


@pytest.fixture(scope="module")
def update(agent):
    return jax.jit(agent.learner.update)


@pytest.fixture(scope="module")
def state(agent):
    return jax.jit(agent.learner.init)(jax.random.key(0), transitions(0, 50))


def test_three_updates_equal_numpy(update, state):
    p, adams = reference.start(state, CONFIG)
    np.testing.assert_allclose(p["mean"], transitions(0, 50).observation.mean(0), rtol=1e-5)
    for i in range(3):
        key, batch = jax.random.key(10 + i), transitions(20 + i)
        state, metrics = update(key, state, batch)
        for name, value in reference.update(p, adams, key, to_numpy(batch), CONFIG).items():
            np.testing.assert_allclose(metrics[name], value, rtol=1e-4, atol=5e-5)
    reference.assert_equal(state, p)


def with_policy(state, log_std, alpha):
    """The same policy everywhere: location 0, `log_std`; and a temperature."""
    params = jax.tree.map(jnp.zeros_like, state.actor.params)
    params["Dense_1"]["bias"] = jnp.array([0.0, 0.0, log_std, log_std])
    return state._replace(
        actor=state.actor._replace(params=params),
        log_alpha=state.log_alpha._replace(params=jnp.log(jnp.float32(alpha))),
    )


def test_entropy_is_a_reward(update, state):
    """A larger temperature lowers the targets of a peaked policy and raises those of a broad one."""
    batch = transitions(5)._replace(terminal=jnp.zeros(ROWS))

    def target(log_std, alpha):
        return update(jax.random.key(5), with_policy(state, log_std, alpha), batch)[1]["target_mean"]

    assert target(-4.0, 2.0) < target(-4.0, 0.1) - 1
    assert target(-0.5, 2.0) > target(-0.5, 0.1) + 0.5


def test_target_in_closed_form():
    batch = transitions(0, 2)._replace(reward=jnp.array([1.0, 2.0]), terminal=jnp.array([0.0, 1.0]))
    q, log_prob = jnp.array([[3.0, 9.0], [5.0, 9.0]]), jnp.array([-2.0, 7.0])
    found = soft_target(q, log_prob, jnp.float32(0.5), batch, 0.9)
    np.testing.assert_allclose(found, [1 + 0.9 * (3 + 0.5 * 2), 2.0], rtol=1e-6)


def test_alpha_rises_where_entropy_is_too_low():
    gradient = jax.grad(lambda x, log_prob: alpha_loss(x, log_prob, -2.0)[0])
    assert gradient(jnp.float32(0), jnp.array([3.0])) == -1  # entropy -3 < -2: descent raises alpha
    assert gradient(jnp.float32(0), jnp.array([0.0])) == 2


def test_nothing_is_bootstrapped_beyond_a_terminal(update, state):
    batch = transitions(6)._replace(terminal=jnp.ones(ROWS))
    other = batch._replace(next_observation=batch.next_observation + 100.0)
    one, metrics = update(jax.random.key(6), state, batch)
    two, _ = update(jax.random.key(6), state, other)
    jax.tree.map(np.testing.assert_array_equal, one.critic, two.critic)
    np.testing.assert_allclose(metrics["target_mean"], batch.reward.mean(), rtol=1e-5)


def test_vmapped_seeds_equal_single_runs(agent, update):
    keys, data = jax.random.split(jax.random.key(8), 2), transitions(8, 50)
    states = jax.jit(jax.vmap(agent.learner.init, in_axes=(0, None)))(keys, data)
    batches = jax.tree.map(lambda *x: jnp.stack(x), transitions(1), transitions(2))
    together, _ = jax.jit(jax.vmap(agent.learner.update))(keys, states, batches)
    for i in range(2):
        alone, _ = update(keys[i], member(states, i), member(batches, i))
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-5), member(together, i), alone)


def test_compiled_once_and_donatable(agent, update):
    """No buffer of the state is in it twice, so that a program can take all of them over."""
    state = agent.learner.init(jax.random.key(1), transitions(1))
    leaves = jax.tree.leaves(state)
    assert len({x.unsafe_buffer_pointer() for x in leaves}) == len(leaves)
    for i in range(3):
        state, _ = update(jax.random.key(i), state, transitions(i))
    assert update._cache_size() == 1


KIN = {
    "sac": (SACConfig, sac),
    "sac_n": (SACNConfig, sac_n),
    "edac": (EDACConfig, edac),
    "cql": (CQLConfig, cql),
    "lagrangian": (partial(CQLConfig, target_gap=1.0, gap_range=(-200.0, float("inf"))), cql),
    "combo": (COMBOConfig, lambda config, spec: combo(config, spec, MODEL)),
}


@pytest.mark.parametrize("name", KIN)
def test_an_update_keeps_every_shape_and_type(name):
    """Of two seeds at once; a type that an update changed, be it from weak to strong, would recompile."""
    config, make = KIN[name]
    agent, keys = make(config(hidden=(4,)), SPEC), jax.random.split(jax.random.key(0), 2)
    state = jax.eval_shape(jax.vmap(agent.learner.init, in_axes=(0, None)), keys, transitions(0))
    batch = jax.tree.map(lambda x: jnp.stack([x, x]), transitions(0))
    after, metrics = jax.eval_shape(jax.vmap(agent.learner.update), keys, state, batch)
    assert jax.tree.structure(state) == jax.tree.structure(after)
    for x, y in zip(jax.tree.leaves(state), jax.tree.leaves(after), strict=True):
        assert (x.shape, x.dtype, x.weak_type) == (y.shape, y.dtype, y.weak_type)
    assert all(x.shape == (2,) for x in metrics.values())
    assert jax.eval_shape(jax.vmap(agent.target), after, batch.observation).location.shape == (2, ROWS, 2)


def test_actor_is_bounded(agent, state):
    policy = agent.target(state, 1e4 * jnp.ones((2, 4, 3)))
    assert policy.mean.shape == policy.std.shape == (2, 4, 2)
    assert jnp.all(jnp.abs(policy.sample(jax.random.key(0))) <= 1)
    np.testing.assert_allclose(agent.target(state, 1e4 * jnp.ones(3)).mean, policy.mean[1, 2], rtol=1e-6)
    extreme = with_policy(state, 1e3, 1.0)
    np.testing.assert_allclose(agent.target(extreme, jnp.ones(3)).scale, np.exp(2.0), rtol=1e-6)


@pytest.mark.parametrize(("location", "scale"), [(0.0, 1.0), (-0.7, 0.3), (0.4, 1.5)])
def test_density_integrates_to_one(location, scale):
    policy = TanhNormal(jnp.array([location]), jnp.array([scale]))
    edges = np.tanh(np.linspace(-7, 7, 20001))  # fine towards the edges
    middle = ((edges[1:] + edges[:-1]) / 2)[:, None].astype(np.float32)
    log_prob = jax.vmap(policy.log_prob)(jnp.asarray(middle))
    assert np.sum(np.exp(np.asarray(log_prob, np.float64)) * np.diff(edges)) == pytest.approx(1, abs=2e-3)


def test_density_is_that_of_scipy():
    k = jax.random.split(jax.random.key(0), 3)
    policy = TanhNormal(jax.random.normal(k[0], (7, 3)), jnp.exp(jax.random.normal(k[1], (7, 3))))
    action, log_prob = policy.sample_and_log_prob(k[2])
    loc, scale, a = to_numpy((*policy, action))
    inside = np.all(np.abs(a) < 0.999, axis=1)
    loc, scale, a = loc[inside], scale[inside], a[inside]
    expected = scipy.stats.norm.logpdf(np.arctanh(a), loc, scale) - np.log(1 - a**2)
    assert inside.sum() >= 3
    np.testing.assert_allclose(log_prob[inside], expected.sum(1), rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(policy.log_prob(action)[inside], log_prob[inside], rtol=1e-3, atol=1e-3)
    far = TanhNormal(jnp.array([30.0]), jnp.array([1.0])).sample_and_log_prob(k[2])
    assert far[0] == 1 and jnp.isfinite(far[1])


def test_settings():
    again = SACConfig(**SMALL, normalise_observations=True)
    assert sac(again, Spec(3, 2)) is sac(CONFIG, SPEC)
    with pytest.raises(UserError, match=r"SACConfig\.tau is 2"):
        SACConfig(tau=2)
    with pytest.raises(UserError, match="observations of 3 and actions of 2"):
        sac(CONFIG, Spec(4, 2)).learner.init(jax.random.key(0), transitions(0))
