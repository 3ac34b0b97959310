"""World4RL: a policy over bins, its cloning, and what becomes of it in the dreams of a diffusion model."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import point_mass
import pytest

from jdp import policies
from jdp.distributions import Categorical
from jdp.errors import UserError
from jdp.finetune import make
from jdp.finetune.dream import DreamConfig
from jdp.finetune.world4rl import World4RLConfig
from jdp.learning.acting import OnPolicyConfig
from jdp.loops import Memory, dream_of, train_online
from jdp.networks.two_hot import from_two_hot, two_hot
from jdp.policies.beso import BESOConfig
from jdp.policies.two_hot import TwoHotConfig, cross_entropy
from jdp.world_models.diffusion_step import DiffusionStepConfig

KEY = jax.random.key(1)
BASE = TwoHotConfig(hidden=(64, 64), learning_rate=2e-3)
TINY = World4RLConfig(
    acting=OnPolicyConfig(64, 20), dream=DreamConfig(20, 0.0), critic_hidden=(64, 64), kl_weight=0.02,
    learning_rate=1e-3,
)  # fmt: skip


def test_cloning_an_action_is_least_at_its_two_hot_weights():
    action = jnp.array([[0.31, -0.777, 1.0]])
    weights = two_hot(action, 41)
    best = Categorical(jnp.log(weights + 1e-9))
    least = cross_entropy(best, action)
    entropy = -jnp.sum(jnp.where(weights > 0, weights * jnp.log(jnp.maximum(weights, 1e-9)), 0), (1, 2))
    np.testing.assert_allclose(least, entropy, atol=1e-5)
    moved = best.logits + 0.3 * jax.random.normal(KEY, best.logits.shape)
    assert cross_entropy(Categorical(moved), action) > least
    np.testing.assert_allclose(from_two_hot(best.mean), action, atol=1e-6)


def test_only_a_policy_over_bins_is_improved():
    with pytest.raises(UserError, match="policy over bins, not BESOConfig: train one with"):
        make(TINY, point_mass.SPEC, base=BESOConfig())


@pytest.mark.slow
def test_dreams_of_a_diffusion_model_improve_the_true_return():
    model = point_mass.model(
        DiffusionStepConfig(features=64, blocks=1, history=2, action_bins=41, steps=1500, sampling_steps=4)
    )
    clone = policies.make(BASE, point_mass.SPEC)
    state = point_mass.cloned(clone)
    before = point_mass.returns(clone.policy, state, 1).mean()
    dream = dream_of(model, point_mass.dataset(), TINY.dream)

    def improved(config, updates):
        method, journal = make(config, point_mass.SPEC, base=BASE), Memory()
        options = {"key": KEY, "updates": updates, "seeds": 2, "rows": state, "journal": journal}
        states = train_online(method, dream, config.acting, chunk=1, **options)
        return point_mass.returns(method.policy, states, 2).mean(1), journal.records("online")

    still = replace(TINY, learning_rate=0.0, critic_learning_rate=0.0)
    found, (record,) = improved(still, 1)
    np.testing.assert_allclose(found[0], before, rtol=1e-5)  # before it learns it is the clone
    np.testing.assert_allclose(record["approximate_kl"], 0, atol=1e-5)
    np.testing.assert_allclose(record["kl_to_base"], 0, atol=1e-5)
    found, _ = improved(TINY, 30)
    gap = point_mass.best() - before
    print("gap", gap, before, found)
    assert gap > 1 and (found - before > 0.3 * gap).all()
