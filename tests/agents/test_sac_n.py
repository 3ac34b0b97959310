"""SAC-N: many critics against numpy, their initialisation, and two states with a known answer."""

import jax
import jax.numpy as jnp
import numpy as np
import sac_reference as reference
from agent_reference import to_numpy
from sac_reference import SMALL, SPEC, transitions

from jdp.agents.sac import networks
from jdp.agents.sac_n import SACNConfig, sac_n
from jdp.types import Spec


def test_two_updates_equal_numpy():
    config = SACNConfig(**SMALL, critics=3, target_entropy=-1.0)
    agent = sac_n(config, SPEC)
    state, update = (
        jax.jit(agent.learner.init)(jax.random.key(0), transitions(0)),
        jax.jit(agent.learner.update),
    )
    p, adams = reference.start(state, config)
    for i in range(2):
        key, batch = jax.random.key(10 + i), transitions(20 + i)
        state, metrics = update(key, state, batch)
        for name, value in reference.update(p, adams, key, to_numpy(batch), config).items():
            np.testing.assert_allclose(metrics[name], value, rtol=1e-4, atol=5e-5)
    reference.assert_equal(state, p)


def test_first_outputs_are_small():
    """Hidden biases .1, last layers within 1e-3 (actor) and 3e-3 (critics): alike at first."""
    config = SACNConfig(hidden=(16, 16), critics=4)
    agent = sac_n(config, SPEC)
    state = jax.jit(agent.learner.init)(jax.random.key(0), transitions(0))
    for learner, limit in ((state.actor, 1e-3), (state.critic, 3e-3)):
        np.testing.assert_allclose(learner.params["Dense_0"]["bias"], 0.1)
        last = jnp.abs(learner.params["Dense_2"]["kernel"]).max()
        assert limit / 2 < last <= limit
    q = networks(config, SPEC).critic.apply(
        state.critic.params, transitions(1).observation, transitions(1).action
    )
    assert q.shape == (4, 6) and jnp.abs(q).max() < 0.1
    np.testing.assert_allclose(agent.target(state, jnp.ones(3)).scale, 1, atol=0.05)


def test_two_states_with_a_known_answer():
    rates = {"actor_learning_rate": 3e-3, "critic_learning_rate": 3e-3, "alpha_learning_rate": 1e-2}
    config = SACNConfig(hidden=(32, 32), critics=4, tau=0.05, target_entropy=-2.0, **rates)
    agent = sac_n(config, Spec(2, 1))
    state = reference.trained(agent, reference.two_states(), 1000)
    np.testing.assert_allclose(agent.target(state, jnp.eye(2)).mean[:, 0], [0.5, -0.5], atol=0.15)
    q = networks(config, Spec(2, 1)).critic.apply(state.critic.params, jnp.eye(2), jnp.array([[0.5], [-0.5]]))
    # the best return is 1 from either, less what exploring costs, plus the entropy's worth
    np.testing.assert_allclose(q.mean(0), [1.0, 1.0], atol=0.15)
