"""Budgets that are learned: states that need few network calls get few, at no loss; exact denoisers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdp import UserError
from jdp.diffusion.exact import mixture
from jdp.diffusion.sampling import Sampling
from jdp.learning.actors import decided_anew, remembers_nothing
from jdp.learning.budgets import BudgetConfig, Records, cheapest, learn_budgets
from jdp.policies.budgeted import BudgetedState, budgeted, learned
from jdp.types import Bound, Policy

CALLS = (2, 16)
CONFIG = BudgetConfig(hidden=(32,), learning_rate=0.01, updates=200, batch_size=128)
NONE = jnp.zeros((0,))


def hard(observation):
    """A third of states, where the action is either of two, and between them none."""
    return observation[:, 0] > 1 / 3


def act(key, state, carry, observation, goal, *, steps):
    """Draws of N(0, .1^2) at easy states, of two modes at -1 and 1 at hard ones."""
    del state, goal

    def denoiser(x, sigma):
        both = mixture(jnp.ones(2) / 2, jnp.array([[-1.0], [1.0]]), jnp.full(2, 0.1))(x, sigma)
        one = mixture(jnp.ones(1), jnp.zeros((1, 1)), jnp.full(1, 0.1))(x, sigma)
        return jnp.where(hard(observation)[:, None], both, one)

    sampling = Sampling(sampler="euler", steps=steps)
    return carry, decided_anew(sampling.draw(key, denoiser, (len(observation), 1)))


def succeeds(observation, action):
    wanted = jnp.where(hard(observation), 1.0, 0.0)
    return jnp.abs(jnp.abs(action[:, 0]) - wanted) < 0.4


POLICIES = tuple(Policy(remembers_nothing, Bound(act, (("steps", steps),))) for steps in CALLS)


@pytest.fixture(scope="module")
def choice():
    """Learned from records of both budgets at random states."""
    keys = jax.random.split(jax.random.key(0), 3)
    observation = jax.random.uniform(keys[0], (1000, 1), minval=-1, maxval=1)

    @jax.jit
    def tried(key):
        return jnp.stack([
            succeeds(observation, policy.act(key, (), (), observation, NONE)[1].action)
            for policy in POLICIES
        ])  # fmt: skip

    won = tried(keys[1]).astype(jnp.float32).reshape(-1)
    records = Records(jnp.tile(observation, (2, 1)), jnp.repeat(jnp.arange(2), 1000), won)
    return jax.jit(lambda key: learn_budgets(key, records, 2, CONFIG))(keys[2])


def test_calls_halve_at_equal_success(choice):
    policy = budgeted(POLICIES, CALLS, learned(2, CONFIG))
    observation, key = jnp.linspace(-1, 1, 900)[:, None], jax.random.key(9)
    goal = jnp.zeros((900, 0))
    _, found = jax.jit(policy.act)(key, BudgetedState((), choice), (), observation, goal)
    one, many = (jax.jit(p.act)(key, (), (), observation, goal)[1].action for p in POLICIES)
    few = np.asarray(found.steps) == CALLS[0]
    # Rows are those of the policy that was chosen for them, to the bit.
    np.testing.assert_array_equal(found.action, np.where(few[:, None], one, many))
    assert (few == ~np.asarray(hard(observation))).mean() > 0.9
    shares = [succeeds(observation, action).mean() for action in (found.action, many, one)]
    assert shares[0] > shares[1] - 0.01 and shares[1] > 0.97 and shares[2] < 0.7
    assert found.steps.mean() < 0.5 * CALLS[1]  # measured: .42


def test_the_cheapest_of_those_that_are_nearly_the_best_is_taken():
    chances = jnp.array([[0.1, 0.86, 0.9], [0.95, 0.2, 0.99], [0.0, 0.0, 0.0]])
    np.testing.assert_array_equal(cheapest(chances, 0.05), [1, 0, 0])
    np.testing.assert_array_equal(cheapest(chances, 0.0), [2, 2, 0])


def test_every_policy_has_its_calls():
    with pytest.raises(UserError, match="2 policies but 1 calls"):
        budgeted(POLICIES, (2,), learned(2, CONFIG))
