"""Several agents in a square: their dynamics, where they begin, and that barriers keep them apart."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdp import online, registry
from jdp.learning.filters import filtered, keep_apart
from jdp.loops.collect import score
from jdp.loops.online import train_online
from jdp.networks.mlp import mlp
from jdp.networks.shared import shared
from jdp.tasks.barriers import project
from jdp.tasks.simulators import Swap, simulator, swap_task, tuned_task
from jdp.tasks.simulators.swap import HOMING, REACHED, conditions, homing, nearest
from jdp.tasks.simulators.tuned import ETA, PRICE, TWO, ZETA, act, parameters
from jdp.types import Decision, Policy

KEY = jax.random.key(0)


def test_agents_begin_and_end_apart_and_move_by_the_closed_form():
    task = simulator("jdp/Swap-v0")
    state, seen, goal = jax.vmap(task.reset)(jax.random.split(KEY, 500))
    for places in (state.position, state.goal):
        assert nearest(places).min() >= 0.4 and jnp.abs(places).max() > 0.95
    assert task.spec.goal == tuple(range(8)) and dict(task.spec.groups)["velocity"] == tuple(range(8, 16))
    np.testing.assert_array_equal(seen[:, :8].reshape(500, 4, 2), state.position)
    np.testing.assert_array_equal(goal.reshape(500, 4, 2), state.goal)
    again = jax.vmap(task.state_of)(seen, goal)
    jax.tree.map(np.testing.assert_array_equal, again, state)
    one, push = jax.tree.map(lambda x: x[0], state), jnp.linspace(-1, 1, 8)
    step = jax.jit(swap_task(Swap(ends=False)).step)
    moved, begun = one, one.position
    for count in range(1, 11):
        moved, found = step(KEY, moved, push)
        expected = begun + push.reshape(4, 2) * (0.1 * count) ** 2 / 2
        np.testing.assert_allclose(moved.position, expected, atol=1e-6)
    np.testing.assert_allclose(found.observation[8:], push, atol=1e-6)


def test_a_collision_ends_an_episode_and_success_is_of_all_at_once():
    task = simulator("jdp/Swap-v0")
    state = task.reset(KEY)[0]._replace(velocity=jnp.zeros((4, 2)))
    none = jnp.zeros(8)
    home = task.step(KEY, state._replace(position=state.goal + 0.7 * REACHED / np.sqrt(2)), none)[1]
    assert home.success and home.terminal and home.reward == 1
    one_away = state.goal.at[2, 0].add(1.01 * REACHED)
    assert not task.step(KEY, state._replace(position=one_away), none)[1].success
    hit = state._replace(position=state.position.at[0].set(state.position[1] + jnp.array([0.19, 0.0])))
    assert (
        task.step(KEY, hit, none)[1].terminal
        and not swap_task(Swap(ends=False)).step(KEY, hit, none)[1].terminal
    )
    touching = state._replace(position=state.position.at[0].set(state.position[1] + jnp.array([0.21, 0.0])))
    assert not task.step(KEY, touching, none)[1].terminal


def test_two_agents_swap_places_in_any_direction():
    state = jax.vmap(tuned_task().reset)(jax.random.split(KEY, 400))[0]
    np.testing.assert_allclose(state.goal, state.position[:, ::-1], atol=2 * TWO.noise + 1e-6)
    angle = np.arctan2(*np.moveaxis(np.asarray(state.position[:, 0]), -1, 0))
    assert np.histogram(angle, bins=4, range=(-np.pi, np.pi))[0].min() > 70


def scores(task, policy, episodes):
    found = jax.jit(lambda key: score(task, policy, key, (), episodes))(KEY)
    return jax.tree.map(np.asarray, found)


def check_apart(episodes, agents=4):
    """Against the policy that passes through the others; alone it would collide in most episodes."""
    swap = Swap(agents, limit=80)
    free, blind = (
        scores(swap_task(swap._replace(ends=False)), HOMING, episodes),
        scores(swap_task(swap), HOMING, episodes),
    )
    task = swap_task(swap)
    kept = scores(task, filtered(HOMING, keep_apart(swap), task.spec), episodes)
    assert (kept.success | (kept.lengths == swap.limit)).all()  # no collision ends an episode
    assert kept.success.mean() >= 0.9 * free.success.mean() and free.success.mean() > 0.99
    assert kept.lengths[kept.success].mean() <= 1.5 * free.lengths[free.success].mean()
    assert 0.05 * agents < 1 - blind.success.mean() < 0.2 * agents


def test_agents_that_would_collide_never_do_and_arrive_in_time():
    check_apart(64, agents=2)


@pytest.mark.slow
def test_four_never_do_in_a_thousand_starts_half_of_which_would_be_collisions():
    check_apart(1000)


def test_two_that_want_to_meet_keep_their_barrier_at_0_or_above():
    """Pushed at each other and at random for 20 s; a normal is found to 1e-4 m."""
    swap = Swap(agents=2)
    task = swap_task(swap._replace(ends=False))

    def move(state, key):
        noise = jax.random.normal(key, state.position.shape)
        wish = jnp.clip(3 * (state.position[:, ::-1] - state.position) + noise, -1, 1)
        found = conditions(state.position, state.velocity, swap, 10.0, 1.0)
        done = project(wish, found.row, found.bound)
        state, _ = jax.vmap(task.step)(jax.random.split(key, 64), state, done.action.reshape(64, -1))
        return state, (found.barrier, nearest(state.position), done.violation)

    @jax.jit
    def run(key):
        state = jax.vmap(task.reset)(jax.random.split(key, 64))[0]
        return jax.lax.scan(move, state, jax.random.split(key, 200))[1]

    barrier, away, violation = run(KEY)
    assert barrier.min() > -1e-3 and away.min() >= 2 * swap.radius and violation.max() == 0
    assert jnp.median(away.min(0)) < 2.3 * swap.radius  # and they do meet


def test_what_a_tuner_decides_are_the_agents_cautions():
    task, low, high = tuned_task(), -jnp.ones(4), jnp.ones(4)
    np.testing.assert_allclose(jnp.stack(parameters(low)), [[ETA[0]] * 2, [ZETA[0]] * 2], rtol=1e-6)
    np.testing.assert_allclose(jnp.stack(parameters(high)), [[ETA[1]] * 2, [ZETA[1]] * 2], rtol=1e-6)

    @jax.jit
    def begun_and_moved(key):
        state, seen, _ = task.reset(key)
        return state, seen, task.step(key, state, high)

    state, seen, (after, found) = jax.tree.map(np.asarray, begun_and_moved(KEY))
    assert seen.shape == (task.spec.observation_dim,) and task.spec.action_dim == 4
    own = seen.reshape(2, 8)
    np.testing.assert_allclose(own[:, :2], state.goal - state.position, atol=1e-6)
    np.testing.assert_allclose(own[0, 4:6], state.position[1] - state.position[0], atol=1e-6)
    near = [np.linalg.norm(s.goal - s.position, axis=-1).mean() for s in (state, after)]
    np.testing.assert_allclose(found.reward, near[0] - near[1] - PRICE, atol=1e-5)
    alone = homing(state.position, state.velocity, state.goal)
    np.testing.assert_allclose(after.velocity, 0.1 * alone, atol=1e-6)  # far apart nothing is changed
    close = state._replace(position=np.array([[0, 0], [0.3, 0]], np.float32), goal=state.goal * 0)
    close = close._replace(velocity=np.array([[0.2, 0.1], [-0.3, 0]], np.float32))
    found = jax.jit(act, static_argnums=3)(close, *parameters(jnp.zeros(4)), TWO)
    (eta, zeta), d, v = (1.0, 2.0), 0.3, np.array([-0.5, -0.1])  # of the second, less the first
    h, rate, bend = d - 0.21, v[0], v[1] ** 2 / d
    psi = rate + eta * h**zeta
    lacking = -eta * abs(psi) ** zeta * np.sign(psi) - bend - eta * zeta * h ** (zeta - 1) * rate
    assert found.action[1, 0] == pytest.approx(min(lacking / 2, 1), abs=1e-4)


def test_one_network_decides_for_every_agent_from_its_own_part():
    one = mlp((8, 2))
    both = shared(one, 3)
    x = jax.random.normal(KEY, (5, 12))
    params = both.init(KEY, x[0])
    expected = jnp.concatenate([one.apply(params, part) for part in jnp.split(x, 3, -1)], -1)
    np.testing.assert_array_equal(both.apply(params, x), expected)


def fixed(key, state, carry, observation, goal):
    return carry, Decision(
        jnp.broadcast_to(state[None], (len(observation), 4)), jnp.ones(len(observation), bool)
    )


@pytest.mark.slow
def test_ppo_tunes_agents_that_beat_cautious_and_bold_ones():
    """Cautious ones are late, bold ones cannot keep their conditions; learning begins between."""
    task = tuned_task()
    preset = registry.entry("online", "ppo").presets(registry.task_of(str(task.spec.env_id), ""))["cpu"]
    method = online.make(preset.settings, task.spec)
    states = train_online(method, task, preset.settings.acting, key=KEY, updates=100, seeds=1)
    policy = Policy(lambda observation: (), fixed)

    def played(policy, state):
        found = jax.tree.map(np.asarray, jax.jit(lambda s: score(task, policy, KEY, s, 200))(state))
        return found.success.mean(), found.lengths.mean()

    cautious, bold, middle = (played(policy, x * jnp.ones(4)) for x in (-1.0, 1.0, 0.0))
    learned = played(method.policy, jax.tree.map(lambda x: x[0], states))
    told = f"(success, steps): {learned} learned, {cautious} cautious, {bold} bold, {middle} between"
    assert learned[0] > max(0.94, cautious[0]) and learned[1] < 0.6 * cautious[1], told
    assert bold[0] < 0.5 and learned[1] < 0.9 * middle[1], told
