"""DiWA learns in dreams alone: what comes of it in the task itself, under a right model and one that lies."""

from dataclasses import replace
from functools import lru_cache

import jax
import jax.numpy as jnp
import numpy as np
import point_mass
import pytest

from jdp import policies
from jdp.finetune import make
from jdp.finetune.chain import ChainConfig
from jdp.finetune.diwa import DiWAConfig
from jdp.finetune.dream import DreamConfig
from jdp.learning.acting import OnPolicyConfig
from jdp.loops import dream_of, train_online
from jdp.policies.diffusion_policy import DiffusionPolicyConfig
from jdp.synthesis import TrainedModel
from jdp.types import Bound

KEY, SEEDS = jax.random.key(1), 2
BASE = DiffusionPolicyConfig(features=64, blocks=1, chunk=1, execute=1, learning_rate=1e-3, ema=0.99)
TINY = DiWAConfig(
    acting=OnPolicyConfig(64, 20), dream=DreamConfig(horizon=20), chain=ChainConfig(5, 5), minibatches=8,
    clip=0.1, clip_first=0.1, learning_rate=3e-4, critic_hidden=(64, 64), bc_weight=0.01,
)  # fmt: skip


LIE = 1.5  # where the model says that the point is to be


def _lying(key, state, carry, action, *, inner):
    """Rewards are of the distance to `LIE`."""
    carry, following, _, terminal = inner.step(key, state, carry, action)
    return carry, following, -jnp.square(following[:, 0] - LIE), terminal


def _unsure(state, observation, action, *, inner):
    """The further from 0 the point is, the more members differ on its reward."""
    said = inner.predict(state, observation, action)
    apart = jnp.linspace(-2, 2, len(said.mean))[:, None] * said.mean[..., 0]
    return said._replace(mean=said.mean.at[..., -1].set(apart))


def corrupted(trained):
    """A model that leads away from the goal, where its members agree the less the further one goes."""
    inner = (("inner", trained.model),)
    wrong = trained.model._replace(step=Bound(_lying, inner), predict=Bound(_unsure, inner))
    return TrainedModel(wrong, trained.state)


def improved(model, config, updates=15):
    """Returns in the true task of the base policy and of what became of it, `[seeds, episodes]`."""
    method = make(config, point_mass.SPEC, base=BASE)
    dream = dream_of(model, point_mass.dataset(), config.dream)
    states = train_online(method, dream, config.acting, key=KEY, updates=updates, seeds=SEEDS, rows=base()[1])
    return states, point_mass.returns(method.policy, states, SEEDS)


@lru_cache
def base():
    method = policies.make(BASE, point_mass.SPEC)
    state = point_mass.cloned(method)
    return point_mass.returns(method.policy, state, 1).mean(), state


@pytest.mark.slow
def test_dreams_improve_the_true_return_without_one_step_of_the_task():
    gap = point_mass.best() - base()[0]
    assert gap > 1
    _, found = improved(point_mass.model(), TINY)
    assert (found.mean(1) - base()[0] > 0.3 * gap).all()


@pytest.mark.slow
def test_a_model_that_lies_deceives_only_where_its_members_agree():
    lie = corrupted(point_mass.model())
    _, refused = improved(lie, TINY)
    careless = replace(TINY, dream=replace(TINY.dream, penalty=0.0), bc_weight=0.0)
    _, deceived = improved(lie, careless)
    half = 2 * refused.std(1) / np.sqrt(refused.shape[1])
    assert (refused.mean(1) > base()[0] - half).all()
    assert (deceived.mean(1) < base()[0] - 1).all()


@pytest.mark.slow
def test_a_heavy_divergence_keeps_the_base_policy():
    heavy = replace(TINY, bc_weight=1e6, learning_rate=1e-5)
    _, found = improved(point_mass.model(), heavy, updates=5)
    method = make(heavy, point_mass.SPEC, base=BASE)
    begun = method.learner.init(KEY, base()[1])
    still = point_mass.returns(method.policy, jax.tree.map(lambda x: jnp.stack([x] * SEEDS), begun), SEEDS)
    np.testing.assert_allclose(found.mean(1), still.mean(1), atol=0.15)
