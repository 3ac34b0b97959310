"""Plans in a model: what sequences come to, where a search starts, and how well it swings a pendulum up."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jdp
from jdp import UserError
from jdp.loops.online import score_together
from jdp.online import mbdpo, planning
from jdp.online.cem import CEMConfig
from jdp.online.mbdpo import MBDPOConfig
from jdp.online.mppi import MPPIConfig
from jdp.tasks.simulators import simulator
from jdp.types import Learner, Spec, Stepped, Task, Transition, WorldModel

KEY = jax.random.key(0)
SPEC = Spec(2, 1, "push", 10)


def _reset(key):
    return jnp.zeros(2), jnp.zeros(2), jnp.zeros(0)


def _step(key, state, action):
    """Adds the action to entry 0, which is the reward; ends beyond 1.5."""
    state = state.at[0].add(action[0])
    return state, Stepped(state, state[0], state[0] > 1.5, jnp.zeros((), bool))


def _state_of(observation, goal):
    return observation


PUSH = Task(_reset, _step, SPEC, _state_of)


def _imagine(key, params, carry, action):
    """The same world, batched and with a parameter, as world models have it."""
    seen = carry.at[:, 0].add(params * action[:, 0])
    return seen, seen, seen[:, 0], (seen[:, 0] > 1.5).astype(jnp.float32)


MODEL = WorldModel(Learner(None, None, None), lambda seen, actions: seen[:, -1], _imagine)  # pyright: ignore


@pytest.fixture(scope="module")
def found():
    """Returns of sequences `[6, 5, 1]` in simulator and world model, and what a search makes of a plan."""
    actions = np.random.default_rng(0).uniform(-1, 1, (6, 5, 1)).astype(np.float32)
    actions[0] = 1.0  # ends after the second step
    here, plan = jnp.array([0.25, 7.0]), jnp.arange(10.0).reshape(2, 5, 1) / 10
    still = MPPIConfig(horizon=5, samples=4, elites=0, std=0.0, iterations=2)
    method = jdp.online.make(still, SPEC, task=PUSH)

    @jax.jit
    def run(actions):
        models = planning.dynamics_of("it", SPEC, PUSH, None), planning.dynamics_of("it", SPEC, None, MODEL)
        none = jnp.zeros(0)
        made = [planning.returns(KEY, m, jnp.float32(1), here, none, actions, 0.9) for m in models]
        state = method.learner.init(KEY, ())
        after = method.policy.act(KEY, state, plan, jnp.stack([here, here]), jnp.zeros((2, 0)))
        return made, after, method.policy.init(jnp.zeros((2, 2)))

    return actions, np.asarray(plan), run(actions)


def test_returns_are_discounted_and_stop_at_a_terminal(found):
    actions, _, ((simulated, imagined), _, _) = found
    for sequence, total in zip(actions[:, :, 0], simulated, strict=True):
        wanted, place = 0.0, 0.25
        for t, push in enumerate(sequence):
            place += push
            wanted += 0.9**t * place
            if place > 1.5:
                break
        np.testing.assert_allclose(total, wanted, rtol=1e-5)
    np.testing.assert_allclose(imagined, simulated, rtol=1e-6)
    np.testing.assert_allclose(simulated[0], 1.25 + 0.9 * 2.25, rtol=1e-6)


def test_a_search_starts_from_what_is_left_of_the_last_plan(found):
    """Draws without noise are the plan itself."""
    _, plan, (_, (after, decision), none) = found
    np.testing.assert_allclose(after, np.concatenate([plan[:, 1:], 0 * plan[:, :1]], axis=1), rtol=1e-6)
    np.testing.assert_allclose(decision.action, plan[:, 1], rtol=1e-6)
    assert decision.decided.all() and not np.any(none) and none.shape == plan.shape


A, B, BEGIN = np.array([[1.0, 0.3], [0.0, 1.0]]), np.array([[0.0], [0.3]]), np.array([0.4, -0.2])


def _linear(key, state, action):
    """A double integrator; the cost is of where a step ends, and of its push."""
    state = jnp.asarray(A, jnp.float32) @ state + jnp.asarray(B, jnp.float32) @ action
    cost = jnp.sum(jnp.square(state)) + 0.5 * jnp.sum(jnp.square(action))
    return state, Stepped(state, -cost, jnp.zeros((), bool), jnp.zeros((), bool))


def riccati(steps):
    """The least cost from BEGIN: `x' (P_0 - I) x`, for here the first state costs nothing."""
    cost, identity = np.eye(2), np.eye(2)
    for _ in range(steps):
        gain = np.linalg.solve(0.5 * np.eye(1) + B.T @ cost @ B, B.T @ cost @ A)
        cost = identity + A.T @ cost @ (A - B @ gain)
    return BEGIN @ (cost - identity) @ BEGIN


def test_searches_approach_the_cost_of_the_linear_quadratic_regulator():
    """Never below it; CEM, whose spread falls, comes nearer than MPPI, whose spread stays."""
    linear, steps = Task(_reset, _linear, SPEC, _state_of), 8
    dynamics = planning.dynamics_of("it", SPEC, linear, None)
    cem = CEMConfig(horizon=steps, samples=128, std=0.3, iterations=8, elites=16, floor=0.01)
    mppi = MPPIConfig(horizon=steps, samples=128, std=0.3, iterations=8, elites=0, temperature=0.1)

    @jax.jit
    def costs(keys):
        def cost(key, config):
            world, none = ((), jnp.asarray(BEGIN, jnp.float32), jnp.zeros(0)), jnp.zeros((steps, 1))
            plan = planning.search(key, dynamics, *world, none, config)
            return -planning.returns(key, dynamics, *world, plan[None], 1.0)[0]

        return [jax.vmap(lambda key, config=config: cost(key, config))(keys) for config in (cem, mppi)]

    best, even = (np.asarray(found) / riccati(steps) for found in costs(jax.random.split(KEY, 16)))
    assert min(best.min(), even.min()) > 1 - 1e-5
    assert best.mean() < 1.01 and best.mean() < even.mean() < 1.1, (best.mean(), even.mean())


def test_what_cannot_be_planned_in_is_refused():
    with pytest.raises(UserError, match="mppi plans in a model: give a simulator"):
        jdp.online.make(MPPIConfig(), SPEC)
    blind = PUSH._replace(state_of=None, spec=replace(SPEC, env_id="Hopper-v5"))
    with pytest.raises(UserError, match="mbdpo cannot plan in Hopper-v5: its observations do not tell"):
        jdp.online.make(MBDPOConfig(), SPEC, task=blind)
    with pytest.raises(
        UserError, match=r"mppi has 3 observations, 1 actions .* has 2, 1 and 0: give it the simulator"
    ):
        jdp.online.make(MPPIConfig(), Spec(3, 1), task=PUSH)
    with pytest.raises(UserError, match="online sac takes no task"):
        jdp.online.make("sac", SPEC, task=PUSH)
    with pytest.raises(UserError, match="elites is 9"):
        MPPIConfig(samples=8, elites=9)
    with pytest.raises(UserError, match="policy is 'both': choose one of search, network"):
        MBDPOConfig(policy="both")  # pyright: ignore[reportArgumentType]


PENDULUM = simulator("Pendulum-v1")
SMALL = {"horizon": 15, "samples": 128, "elites": 16}


def observed(key, count):
    """Pendulums at any angle and speed, as a batch."""
    angle, speed = jax.random.uniform(key, (2, count), minval=-1.0)
    angle, speed = jnp.pi * angle, 8 * speed
    seen, none = jnp.stack([jnp.cos(angle), jnp.sin(angle), speed], axis=1), jnp.zeros(count)
    return Transition(seen, none[:, None], none, seen, none)


@pytest.mark.slow
@pytest.mark.parametrize("config", [MPPIConfig(**SMALL), MBDPOConfig(**SMALL, levels=10)])
def test_plans_in_the_true_pendulum_swing_it_up(config):
    """What a search with four times the draws and twice the horizon comes to is -107, mean of ten starts."""
    method = jdp.online.make(config, PENDULUM.spec, task=PENDULUM)
    state = method.learner.init(KEY, observed(KEY, 8))
    states = jax.tree.map(lambda x: x[None], state)
    options = {"key": jax.random.key(1), "seeds": 1, "episodes": 10}
    returns = score_together(method.policy, states, PENDULUM, **options)["returns"]
    assert returns.mean() > -125 and returns.min() > -300


@pytest.mark.slow
@pytest.mark.optimised
def test_the_network_learns_the_score_better_than_the_draws_it_learns_from_know_it():
    config = MBDPOConfig(**SMALL)
    config = replace(config, network=replace(config.network, features=128, blocks=2, learning_rate=1e-3))
    method = jdp.online.make(config, PENDULUM.spec, task=PENDULUM)

    @jax.jit
    def train(key):
        def step(state, key):
            return method.learner.update(key, state, observed(key, 64))

        return jax.lax.scan(step, method.learner.init(key, observed(key, 1000)), jax.random.split(key, 1000))

    state, told = train(KEY)
    assert told["loss"][-50:].mean() < 0.8 * told["loss"][:50].mean()
    seen = observed(jax.random.key(8), 64).observation
    dynamics = planning.dynamics_of("it", PENDULUM.spec, PENDULUM, None)
    x = jnp.clip(jax.random.normal(jax.random.key(7), (64, 15, 1)), -1, 1)
    for sigma in config.sigmas()[jnp.array([0, 10])]:
        level = jnp.full(64, sigma)
        exact, drawn = (
            mbdpo.monte_carlo_plans(
                jax.random.key(n), (), seen, x, level, samples=n, dynamics=dynamics, config=config
            )
            for n in (4096, config.distilled_samples)
        )
        own = mbdpo.denoiser(state.network.ema, state.standardise(seen), config)(x.reshape(64, -1), level)
        gap, noise = (np.linalg.norm(np.ravel(y) - np.ravel(exact)) for y in (own, drawn))
        assert gap < 0.9 * noise, (gap, noise)
        score, wanted = (np.ravel(y) - np.ravel(x) for y in (own, exact))
        assert np.corrcoef(score, wanted)[0, 1] > 0.75
