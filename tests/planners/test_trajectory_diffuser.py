"""Trajectory Diffuser: what refining a proposal buys, and what a plan is made of."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from deciding import first_plan
from two_rooms import counted

from jdp.data.segments import rows_of
from jdp.diffusion import exact
from jdp.learning.inverse import InverseConfig
from jdp.learning.plan_critics import CriticConfig
from jdp.learning.plan_models import Model, ModelConfig
from jdp.learning.proposers import ProposerConfig, proposer
from jdp.networks import NetworkConfig, ValueNetworkConfig
from jdp.planners import parts
from jdp.planners.trajectory import SamplingConfig, draw_plan, nothing, plan_schedule, planned
from jdp.planners.trajectory_diffuser import REFINING, TrajectoryDiffuserConfig, trajectory_diffuser
from jdp.types import Segments, Spec

T, ROWS = 32, 128
TIMES = np.arange(T)
COVARIANCE = np.exp(-0.5 * ((TIMES[:, None] - TIMES) / 6) ** 2) + 0.02**2 * np.eye(T)
TINY = {
    "horizon": 4,
    "model": ModelConfig(NetworkConfig("mixer", 16, 1)),
    "inverse": InverseConfig(hidden=(16,)),
    "critic": CriticConfig(ValueNetworkConfig(features=8, blocks=1), noisy=False),
    "proposer": ProposerConfig(features=16),
}


def surprise(paths):
    """Of paths `[B, T]` under the prior, the negative log likelihood of an entry."""
    _, log = np.linalg.slogdet(2 * np.pi * COVARIANCE)
    inverse = np.linalg.inv(COVARIANCE)
    return 0.5 * (np.einsum("bi,ij,bj->b", paths, inverse, paths) + log).mean() / T


def test_refining_a_rough_proposal_takes_five_calls_to_what_twenty_take_from_nothing():
    """Of a Gaussian process over 32 steps, its exact denoiser, and smooth paths with autoregressive noise."""
    rng = np.random.default_rng(0)
    true = rng.normal(size=(ROWS, T)) @ np.linalg.cholesky(COVARIANCE).T
    rough, noise = np.zeros((ROWS, T)), 0.1 * rng.normal(size=(ROWS, T))
    for t in range(1, T):
        rough[:, t] = 0.9 * rough[:, t - 1] + noise[:, t]
    smooth = [np.convolve(np.pad(path, 2, mode="edge"), np.ones(5) / 5, "valid") for path in true]
    proposal = jnp.asarray((np.stack(smooth) + rough)[..., None], jnp.float32)
    denoiser = exact.correlated_gaussian(jnp.zeros(T), jnp.asarray(COVARIANCE))
    mask = jnp.zeros(proposal.shape, bool)

    @partial(jax.jit, static_argnums=1)
    def draw(previous, sampling):
        levels = plan_schedule(sampling, "edm")
        return draw_plan(jax.random.key(1), denoiser, 0 * proposal, mask, previous, sampling, levels)

    def drawn(previous, sampling):
        return np.asarray(draw(previous, sampling), float)[..., 0]

    refined = drawn(planned(proposal), REFINING)
    full = drawn(nothing(proposal), SamplingConfig("dpmpp_2m", steps=20, sigma_max=20.0, warm_steps=0))
    few = drawn(nothing(proposal), SamplingConfig("dpmpp_2m", steps=5, sigma_max=20.0, warm_steps=0))
    assert REFINING.sigmas()[-6] == pytest.approx(0.3, abs=0.003)
    assert surprise(true) == pytest.approx(-1.47, abs=0.06)
    assert surprise(np.asarray(proposal, float)[..., 0]) > 2.5
    assert surprise(refined) < surprise(full) + 0.02
    assert np.abs(refined - np.asarray(proposal)[..., 0]).mean() < 0.2  # and stays with what was proposed
    assert np.abs([refined.std() / true.std(), full.std() / true.std()]) == pytest.approx(1, abs=0.05)
    assert few.std() / true.std() > 1.08  # five calls from nothing are too wide


def rows(spec, seed=0, count=16, length=4):
    """Walks at a speed of their own; the return to go is the way that is left."""
    rng = np.random.default_rng(seed)
    speed = rng.uniform(-1, 1, (count, 1)).astype(np.float32)
    where = speed * np.arange(length, dtype=np.float32) / (length - 1)
    action, zeros = np.repeat(speed[..., None], length, axis=1), np.zeros((count, length), np.float32)
    second = np.repeat(rng.normal(size=(count, 1, 1)), length, axis=1).astype(np.float32)
    goal = where[:, -1:] if spec.goal else where[:, :0]
    left = where[:, -1:] - where
    far = np.full(count, length - 1, np.int32)
    observation = np.concatenate([where[..., None], second], axis=2)
    return Segments(observation, action, zeros, zeros, left, goal, far)


def untrained(method, spec):
    """A state of random weights."""
    rng, data = np.random.default_rng(9), rows_of(rows(spec))
    shapes = jax.eval_shape(method.learner.init, jax.random.key(0), data)
    fitted = jax.jit(lambda: method.learner.init(jax.random.key(0), data)[:2])()
    state = jax.tree.map(lambda leaf: jnp.asarray(0.3 * rng.normal(size=leaf.shape), leaf.dtype), shapes)
    return state._replace(scale=fitted[0], span=fitted[1])


@pytest.mark.parametrize("spec", [Spec(2, 1), Spec(2, 1, goal=(0,))])
def test_a_plan_is_the_proposal_for_the_return_or_the_goal_where_nothing_is_refined(spec, monkeypatch):
    """A denoiser that leaves all as it is, and no noise; what was planned before does not matter."""
    monkeypatch.setattr(parts, "model", lambda _: Model(_weights, None, lambda *_: exact.gaussian(0.0, 1e4)))
    still = replace(REFINING, temperature=0.0, sampler="euler")
    config = TrajectoryDiffuserConfig(**TINY, candidates=2, target=0.8, sampling=still)
    method = trajectory_diffuser.__wrapped__(config, spec)
    state = untrained(method, spec)
    here, goal = jnp.asarray(rows(spec).observation[:3, 0]), jnp.full((3, len(spec.goal)), 0.5)
    act, traces = counted(method.policy.act)
    carry = method.policy.init(here)
    for step in range(2):
        carry, decision = act(jax.random.key(step), state, carry, here, goal)
    assert len(traces) == 1

    first, wish = state.scale.observation(here), state.span.low + 0.8 * (state.span.high - state.span.low)
    if not spec.goal:
        wish = (wish - state.scale.value.mean) / state.scale.value.std
        first = jnp.concatenate([first, jnp.full((3, 1), wish)], axis=1)
    made = proposer(config.proposer, first.shape[1])
    found = made.propose(state.proposer, first, state.scale.goal(goal, spec), 4)[..., :2]
    wanted = np.array(state.scale.observation.inverse(np.sqrt(1 - (0.3 / 13.4) ** 2) * found))
    wanted[:, 0] = here
    if spec.goal:
        wanted[:, -1, 0] = 0.5
    np.testing.assert_allclose(decision.plan.observation, wanted, atol=2e-3)


def _weights(key, x0, condition):
    del key, condition
    return x0


@pytest.mark.slow
def test_plans_go_as_far_as_is_asked_for():
    """The return is the way of the plan, so a share of the range is a place; without a proposal it is not."""
    spec, steps = Spec(2, 1), 300
    tiny = {
        "horizon": 4,
        "candidates": 1,
        "model": ModelConfig(NetworkConfig("mixer", 32, 1), learning_rate=3e-3, steps=steps),
        "inverse": InverseConfig(hidden=(32,), steps=steps, learning_rate=3e-3),
        "critic": TINY["critic"],
        "proposer": ProposerConfig(32, learning_rate=1e-2, steps=steps),
    }
    learner = trajectory_diffuser(TrajectoryDiffuserConfig(**tiny), spec).learner
    state = jax.jit(learner.init)(jax.random.key(1), rows_of(rows(spec, count=256)))
    update = jax.jit(learner.update)
    for i, key in enumerate(jax.random.split(jax.random.key(2), steps)):
        state, _ = update(key, state, rows(spec, seed=i, count=64))
    here, found = jnp.zeros((64, 2)).at[:, 1].set(jnp.linspace(-1.0, 1.0, 64)), {}
    for target, warm in ((0.1, 5), (0.9, 5), (0.9, 0)):
        sampling = replace(REFINING, warm_steps=warm)
        config = TrajectoryDiffuserConfig(**tiny, target=target, sampling=sampling)
        plan = first_plan(trajectory_diffuser(config, spec), jax.random.key(3), state, here, here[:, :0])
        found[target, warm] = np.asarray(plan.observation[:, -1, 0])
    for target in (0.1, 0.9):  # of a range from -1 to 1
        assert found[target, 5].mean() == pytest.approx(2 * target - 1, abs=0.15)
        assert found[target, 5].std() < 0.2 < found[0.9, 0].std()
    assert abs(found[0.9, 0].mean()) < 0.2
