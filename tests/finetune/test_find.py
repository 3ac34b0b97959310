"""FIND: the Gaussian that a frozen policy starts from, where the optimum is known in closed form."""

from dataclasses import replace
from functools import lru_cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdp.data import segment_rows
from jdp.errors import UserError
from jdp.finetune import make, noise
from jdp.finetune.find import FINDConfig, starts
from jdp.learning.acting import OnPolicyConfig
from jdp.loops import train_online
from jdp.policies import chunks
from jdp.policies.diffusion_policy import DiffusionPolicyConfig
from jdp.runs.models import stand_in
from jdp.tasks.simulators import chunked
from jdp.types import Spec, Stepped, Task

KEY = jax.random.key(0)
SPEC = Spec(2, 1, "slope", 1)
BASE = DiffusionPolicyConfig(features=16, blocks=1, chunk=2, execute=1, sampling_steps=20)


def _reset(key):
    return (), jnp.zeros(2), jnp.zeros(0)


def _step(key, state, action):
    """The further the better."""
    never = jnp.zeros((), bool)
    return (), Stepped(jnp.zeros(2), action[0], jnp.ones((), bool), never)


SLOPE = Task(_reset, _step, SPEC)


@lru_cache
def base_state():
    """Not trained, so that its chunks are linear in the noise: about half of it."""
    rows = jax.tree.map(jnp.asarray, segment_rows(stand_in(SPEC), 2))
    return chunks.init(KEY, rows, config=BASE, spec=SPEC)


def test_a_start_of_n_0_i_gives_the_base_policys_own_chunks():
    start, shown = jax.random.normal(KEY, (2000, 2)), jnp.zeros((2000, 2))
    found = np.asarray(noise.decode(base_state(), shown, start, BASE))
    np.testing.assert_array_equal(found, noise.decode(base_state(), shown, start, BASE))
    slope = np.sum(found * start) / np.sum(np.square(start))
    np.testing.assert_allclose(found, np.clip(slope * start, -1, 1), atol=0.05)
    assert abs(slope / BASE.sigma_data - 1) < 0.1


TINY = FINDConfig(
    acting=OnPolicyConfig(256, 1), hidden=(16,), critic_hidden=(16,), kl_weight=2.0, learning_rate=1e-2,
    critic_learning_rate=1e-2, epochs=4, minibatches=2,
)  # fmt: skip


def trained(updates):
    method = make(TINY, SPEC, base=BASE)
    task, options = chunked(SLOPE, BASE.execute), {"key": KEY, "updates": updates, "seeds": 2, "chunk": 60}
    states = train_online(method, task, TINY.acting, rows=base_state(), **options)
    return starts(
        jax.tree.map(lambda x: x[0], states.trained.params["actor"]), jnp.zeros((1, 2)), TINY, 2
    ), states


def test_before_training_starts_are_the_base_policys():
    own, _ = trained(0)
    np.testing.assert_allclose(own.mean, 0, atol=1e-2)
    np.testing.assert_allclose(own.std, 1, atol=1e-2)


def test_a_slope_moves_the_mean_as_far_as_the_divergence_allows():
    """Of a reward linear in the noise, with advantages of std 1: to 1 / weight, and the std stays 1."""
    own, states = trained(120)
    np.testing.assert_allclose(own.mean[0, 0], 1 / TINY.kl_weight, atol=0.12)
    np.testing.assert_allclose(own.std[0], 1, atol=0.15)
    assert abs(own.mean[0, 1]) < 0.12  # an action that is never executed earns nothing
    jax.tree.map(lambda ours, base: np.testing.assert_array_equal(ours[0], base), states.base, base_state())


def test_a_sampler_with_noise_of_its_own_is_refused():
    with pytest.raises(
        UserError, match=r"draws noise of its own: train one with --settings.sampler euler or heun"
    ):
        make(TINY, SPEC, base=replace(BASE, sampler="dpmpp_2m_sde"))
