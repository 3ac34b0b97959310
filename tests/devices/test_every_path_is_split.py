"""Training, sampling, planning and acting on eight devices: the numbers of one, an eighth of the work."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdp import agents, planners, policies, world_models
from jdp.agents.td3_bc import TD3BCConfig
from jdp.data import Normaliser, SegmentDraw, SegmentRows, TransitionDraw, batches
from jdp.data.segments import FAR
from jdp.devices import data_mesh, padded, split_batch
from jdp.diffusion.exact import gaussian
from jdp.evaluation import Step
from jdp.learning.diffuser import DiffuserConfig, trajectory_diffuser
from jdp.learning.plan_critics import CriticConfig
from jdp.learning.plan_models import ModelConfig
from jdp.loops import chunk_program, play
from jdp.loops.controller import controller
from jdp.networks import NetworkConfig, ValueNetworkConfig
from jdp.planners.diffuser import DiffuserPlannerConfig
from jdp.planners.trajectory import SamplingConfig
from jdp.policies.diffusion_policy import DiffusionPolicyConfig
from jdp.policies.idql import IDQLConfig
from jdp.synthesis import GuidanceConfig, SamplerConfig, empty_rings, guide, imagine, refill
from jdp.synthesis.generate import sampling_program
from jdp.synthesis.imagined import rollout_program
from jdp.synthesis.rings import _refill_program
from jdp.types import Segments, Spec, Transition, pack
from jdp.world_models import RolloutConfig
from jdp.world_models.ensemble import EnsembleConfig

O, A, B, KEY = 4, 2, 64, jax.random.key(3)  # noqa: E741
SPEC = Spec(O, A)
MESHES = (None, data_mesh())


def flops(jitted, *args):
    """Of one device, as XLA counts them (a loop's body once)."""
    return jitted.lower(*args).compile().cost_analysis()["flops"]


def close(found, wanted, rtol=1e-5):
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol * max(np.abs(b).max(initial=0.0), 1e-3))


def rows(key, count=B):
    k = jax.random.split(key, 4)
    return Transition(
        jax.random.normal(k[0], (count, O)),
        jnp.tanh(jax.random.normal(k[1], (count, A))),
        jax.random.normal(k[2], (count,)),
        jax.random.normal(k[3], (count, O)),
        jnp.zeros(count),
    )


def segments(length, count=B):
    k = jax.random.split(KEY, 4)
    return Segments(
        jax.random.normal(k[0], (count, length, O)),
        jnp.tanh(jax.random.normal(k[1], (count, length, A))),
        jax.random.normal(k[2], (count, length)),
        jnp.zeros((count, length)),
        jax.random.normal(k[3], (count, length)),
        jnp.zeros((count, 0)),
        jnp.full(count, FAR),
    )


def moments(state):
    """Adam's first moments in a state: after one step from 0, a tenth of the gradients."""
    found = jax.tree.leaves(state, is_leaf=lambda x: hasattr(x, "mu"))
    return [part.mu for part in found if hasattr(part, "mu")]


def trained(update, state, batch, axis):
    """`(gradients, losses, operations of one device)` of one update, without a mesh and on eight devices."""
    found = []
    for mesh in MESHES:
        step = jax.jit(lambda k, s, b, mesh=mesh: update(k, s, split_batch(b, mesh, axis)))
        new, metrics = step(KEY, state, batch)
        found.append((moments(new), metrics, flops(step, KEY, state, batch)))
    (one, alone, whole), (eight, together, part) = found
    assert moments(state), "nothing was compared"
    close(eight, one)
    close(together, alone)
    return part / whole


TINY = NetworkConfig("mixer", 16, 1)
PLANNER = DiffuserPlannerConfig(
    horizon=8,
    candidates=4,
    model=ModelConfig(TINY),
    critic=CriticConfig(ValueNetworkConfig("pooled", 16, 1)),
    sampling=SamplingConfig(steps=3, warm_steps=0),
)
POLICY = IDQLConfig(features=32, blocks=1, critic_hidden=(32,), candidates=4)


def learner_state(method, seeds=2):
    data = Segments(*segments(1))
    one = [getattr(data, name)[:, 0] for name in ("observation", "action", "reward", "terminal", "value")]
    where = jnp.arange(B)
    packed = SegmentRows(*one, where, where, where)
    return jax.jit(jax.vmap(method.learner.init, in_axes=(0, None)))(jax.random.split(KEY, seeds), packed)


@pytest.mark.slow
def test_seeds_of_a_planner_a_policy_and_an_agent_are_trained_on_parts_of_the_batch():
    for make, config in ((planners.make, PLANNER), (policies.make, POLICY)):
        method = make(config, SPEC)
        draw = method.learner.draws
        assert isinstance(draw, SegmentDraw)
        batch = jax.tree.map(lambda x: jnp.stack([x, x[::-1]]), segments(len(draw.offsets)))
        share = trained(
            lambda k, s, b, u=method.learner.update: jax.vmap(u)(jax.random.split(k, 2), s, b),
            learner_state(method),
            batch,
            1,
        )
        assert share < 0.25, type(config)  # an eighth, and what all devices do: the optimiser
    update, draw, state = AGENT.learner.update, AGENT.learner.draws, agent_states(2)
    assert isinstance(draw, TransitionDraw)
    batch = jax.tree.map(lambda x: jnp.stack([x, x[::-1]]), rows(KEY, draw.minibatches * B))
    assert trained(lambda k, s, b: jax.vmap(update)(jax.random.split(k, 2), s, b), state, batch, 1) < 0.25


AGENT = agents.make(TD3BCConfig(hidden=(32, 32)), SPEC)


def agent_states(seeds, agent=AGENT):
    init = jax.jit(jax.vmap(agent.learner.init, in_axes=(0, None)))
    return init(jax.random.split(KEY, seeds), rows(KEY))


ENSEMBLE = EnsembleConfig(members=2, elites=2, hidden=(32, 32), decay=(0.0,), termination="none")


def test_world_models_are_trained_and_rolled_out_in_parts():
    model = world_models.make(ENSEMBLE, SPEC, rule=lambda s, a, n: jnp.zeros(n.shape[:-1], bool))
    state = jax.jit(model.learner.init)(KEY, rows(KEY))
    batch = jax.tree.map(lambda x: jnp.stack([x, x[::-1]]), rows(KEY))
    assert trained(model.learner.update, state, batch, 1) < 0.25
    actors, acting = agent_states(2), AGENT.behaviour
    assert acting is not None
    begin = np.asarray(jax.random.normal(KEY, (2, 64, 1, O))), np.zeros((2, 64, 0, A), np.float32)
    config = RolloutConfig(length=2, batch=64, capacity=500)
    rings, made, work = [], [], []
    for mesh in MESHES:
        empty = empty_rings(config, 2, 2 * O + A + 2)
        rings.append(refill(KEY, model, state, acting, actors, empty, begin, config, mesh))
        made.append(imagine(KEY, model, state, acting, actors, begin, length=2, batch=32, mesh=mesh))
        args = jax.random.split(KEY, 2), state, actors, *begin
        work.append(flops(rollout_program(model, acting, 2, mesh), *args))
    close(rings[1], rings[0])
    assert int(rings[0].size[0]) == 2 * 64
    close(made[1], made[0])
    assert work[1] / work[0] < 0.25
    # A batch that does not divide is filled up for the devices; the copies are not stored.
    few, empty = (x[:, :61] for x in begin), empty_rings(config, 2, 2 * O + A + 2)
    ring = refill(KEY, model, state, acting, actors, empty, (*few,), config, MESHES[1])
    np.testing.assert_array_equal(ring.size, 2 * 61)
    assert _refill_program(model, acting, 2, MESHES[1])._cache_size() == 2


def test_sampling_is_split():
    config, shape = SamplerConfig(steps=4, sigma_max=20.0), (B, 8, 32)
    diffuser = trajectory_diffuser(NetworkConfig("mixer", 32, 1), DiffuserConfig(), 8)
    denoiser = diffuser.denoiser(jax.jit(diffuser.learner.init)(KEY, jnp.zeros((1, 8, 32))))
    args = denoiser, None, KEY, config.sigmas(), None
    programs = [sampling_program(config, shape, mesh, False) for mesh in MESHES]
    one, eight = (program(*args) for program in programs)
    close(eight, one)
    assert eight.sharding.is_fully_replicated  # any process may read it
    assert flops(programs[1], *args) / flops(programs[0], *args) < 0.25


@pytest.mark.parametrize("episodes", [16, 5])
def test_actions_of_agents_are_those_of_one_device(episodes):
    state, goal = agent_states(2), np.zeros((2, episodes, 0), np.float32)
    seen = np.asarray(jax.random.normal(KEY, (2, episodes, O)))
    found, work = [], []
    for mesh in MESHES:
        act = controller(AGENT.policy, mesh, True).act
        decision = act(KEY, jnp.int32(0), state, (), *padded((seen, goal), mesh, 1))[1]
        found.append(np.asarray(decision.action)[:, :episodes])
        many = padded((np.repeat(seen, 8, axis=1), np.repeat(goal, 8, axis=1)), mesh, 1)
        work.append(flops(act, KEY, jnp.int32(0), state, (), *many))
    close(found[1], found[0])
    assert work[1] / work[0] < 0.25


class Drift:
    """Where it is said to go, it goes; ten steps."""

    max_episode_steps = 10
    observation_dim, action_dim = O, A

    def reset(self, seed):
        self.at, self.left = np.random.default_rng(seed).normal(size=O), 4
        return self.at.copy(), np.zeros(0)

    def step(self, action):
        self.at[:A] += 0.1 * action
        self.left -= 1
        return Step(self.at.copy(), np.zeros(0), float(action.sum()), False, self.left == 0, False)

    def close(self):
        pass


def closed_loops():
    planner = planners.make(PLANNER, SPEC)
    one = policies.make(POLICY, SPEC)
    chunked = policies.make(DiffusionPolicyConfig(chunk=4, execute=2, features=32, blocks=1), SPEC)
    return {
        "planner": (planner.policy, learner_state(planner, 1)),
        "policy": (one.policy, learner_state(one, 1)),
        "chunks": (chunked.policy, learner_state(chunked, 1)),
    }


@pytest.mark.slow
def test_plans_and_policies_act_as_on_one_device_also_where_episodes_do_not_divide():
    for name, (policy, states) in closed_loops().items():
        state = jax.tree.map(lambda x: x[0], states)
        # Weights that do something: the last layers begin at zero.
        state = jax.tree.map(
            lambda x: x + 0.1 * jnp.sin(jnp.arange(x.size, dtype=x.dtype)).reshape(x.shape)
            if jnp.issubdtype(x.dtype, jnp.floating) and x.ndim == 2 else x, state
        )  # fmt: skip
        found, work = [], []
        for mesh in MESHES:
            found.append(play(policy, KEY, state, Drift, episodes=5, seed=1, observations=True, mesh=mesh))
            act = controller(policy, mesh)
            seen, goal = np.zeros((64, O), np.float32), np.zeros((64, 0), np.float32)
            work.append(flops(act.act, KEY, jnp.int32(0), state, act.init(seen), seen, goal))
        close(found[1].returns, found[0].returns, 1e-4)
        close(found[1].observation, found[0].observation, 1e-4)
        assert work[1] / work[0] < 0.25, name
        programs = controller(policy, MESHES[1])
        assert programs.act._cache_size() == 1, name  # the carry keeps its place from step to step


def test_the_fit_loop_splits_what_it_draws():
    draw, state = AGENT.learner.draws, jax.tree.map(lambda x: x[0], agent_states(1))
    assert isinstance(draw, TransitionDraw)
    data = pack(rows(KEY, 200))
    work = []
    for mesh in MESHES:
        program = chunk_program(AGENT.learner.update, batches(draw, B), mesh, 0)
        work.append(flops(program, state, data, KEY, jnp.int32(0), jnp.int32(2)))
    assert work[1] / work[0] < 0.25


def test_guidance_is_split_however_many_agents_there_are():
    """Three agents' blocks do not lie on whole devices: their actors' work is dealt out nevertheless."""
    o, a, seeds = 4, 2, 3
    normaliser = Normaliser(np.zeros(8, np.float32), np.ones(8, np.float32), o, a)
    agent = agents.make(TD3BCConfig(hidden=(64, 64)), SPEC)
    states = agent_states(seeds, agent)
    assert agent.target is not None
    config = SamplerConfig(steps=4, sigma_max=20.0)
    denoiser = guide(gaussian(0.0, 1.0), agent.target, states, normaliser, GuidanceConfig(), config.sigmas())
    args = denoiser, None, KEY, config.sigmas(), None
    programs = [sampling_program(config, (seeds * 16, 4, 8), mesh, False) for mesh in MESHES]
    close(programs[1](*args), programs[0](*args), 1e-4)
    assert flops(programs[1], *args) / flops(programs[0], *args) < 0.25


def test_an_exact_denoiser_is_sampled_alike():
    config = SamplerConfig(steps=8, sigma_max=20.0, sampler="dpmpp_2m_sde")
    args = gaussian(0.3, 1.5), None, KEY, config.sigmas(), None
    one, eight = (sampling_program(config, (16, 4, 2), mesh, False)(*args) for mesh in MESHES)
    close(eight, one)
