"""Scenes: their experts succeed, and whoever does not see what a scene is about does not."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdp.data.recipes.scenes import planner_of
from jdp.evaluation import make_env, make_goal_env
from jdp.loops.online import score_together
from jdp.tasks.groups import group, groups_of
from jdp.tasks.scenes import SCENES, Planner, cameras, clutter, cue, places, push, stages
from jdp.tasks.simulators import names, simulator
from jdp.tasks.task_env import TaskEnv
from jdp.types import Spec

KEY, EPISODES, CHUNK = jax.random.key(0), 256, 16


def successes(task, act, begin=lambda state: None):
    """`[EPISODES]`, whether `act(memory, state, t) -> (memory, action)` comes to a success before any end."""

    def episode(key):
        def step(carry, t):
            memory, state, over, won = carry
            memory, action = act(memory, state, t)
            state, found = task.step(jax.random.fold_in(key, t), state, jnp.clip(action, -1.0, 1.0))
            return (memory, state, over | found.terminal, won | (found.success & ~over)), None

        state, *_ = task.reset(key)
        none = jnp.zeros((), bool)
        steps = jnp.arange(task.spec.max_episode_steps)
        return jax.lax.scan(step, (begin(state), state, none, none), steps)[0][-1]

    return np.asarray(jax.jit(jax.vmap(episode))(jax.random.split(KEY, EPISODES)))


def expert_of(scene):
    """The expert that is a function."""
    assert not isinstance(scene.expert, Planner)
    return scene.expert


def share(name, seen, task=None):
    """How often the expert succeeds who takes the state for `seen(state)`."""
    scene = SCENES[name]
    return successes(task or scene.task, lambda none, state, t: (none, expert_of(scene)(seen(state)))).mean()


@pytest.mark.parametrize("name", [n for n, scene in SCENES.items() if not isinstance(scene.expert, Planner)])
def test_an_expert_succeeds(name):
    assert share(name, lambda state: state) >= 0.95


def test_who_does_not_see_what_it_takes_fails():
    assert share("jdp/Hidden-v0", lambda s: s._replace(velocity=0 * s.velocity)) < 0.1
    assert 0.4 < share("jdp/Cue-v0", lambda s: s._replace(side=-jnp.ones(()))) < 0.6
    assert 0.4 < share("jdp/Clean-v0", lambda s: s._replace(goal=cameras.coarse(s.goal))) < 0.8


def test_who_trusts_a_broken_camera_fails():
    def trusting(state):
        broken = jnp.any(state.garbage != 0)
        seen = jnp.where(broken, state.garbage, state.goal - state.position)
        return state._replace(goal=state.position + seen)

    assert share("jdp/Clean-v0", trusting) >= 0.95
    assert share("jdp/Corrupted-v0", trusting) < 0.1


@pytest.mark.parametrize(("sees", "low", "high"), [(True, 0.95, 1.0), (False, 0.0, 0.15)])
def test_forces_jump_within_chunks(sees, low, high):
    """Chunks of an expert that knows all of the present, and takes the force for one that stays.

    They suffice if what is executed is corrected by the force alone, as it is seen at each step.
    """
    still = push.push_scene(jump=0.0)

    def act(imagined, state, t):
        now = jax.tree.map(lambda new, old: jnp.where(t % CHUNK == 0, new, old), state, imagined)
        action = expert_of(still)(now)
        jumped = jnp.stack([jnp.zeros(()), state.force - now.force])
        return still.task.step(KEY, now, action)[0], action - jumped if sees else action

    assert low <= successes(SCENES["jdp/Push-v0"].task, act, begin=lambda state: state).mean() <= high


def test_moved_scenes_are_placed_ones_elsewhere():
    @jax.jit
    def both(keys):
        far = jax.vmap(SCENES["jdp/Moved-v0"].task.reset)(keys)[0]
        near = jax.tree.map(lambda x: x - far.obstacle, far)
        expert = jax.vmap(expert_of(SCENES["jdp/Placed-v0"]))
        return far, expert(far), expert(near)

    far, there, here = both(jax.random.split(KEY, EPISODES))
    assert np.linalg.norm(np.stack(far), axis=-1).min() > places.FAR - 1.5
    np.testing.assert_allclose(there, here, atol=2e-5)  # translations change no action


def test_a_subtask_is_the_place_that_is_touched_next():
    scene = SCENES["jdp/Stages-v0"]

    @jax.jit
    def episode(key):
        def step(carry, _):
            state, seen = carry
            after, found = scene.task.step(KEY, state, expert_of(scene)(state))
            away = jnp.linalg.norm(after.places - after.position[None], axis=-1)
            return (after, found.observation), (stages.subtask(seen), away, found.success)

        state, seen, _ = scene.task.reset(key)
        return jax.lax.scan(step, (state, seen), None, scene.task.spec.max_episode_steps)[1]

    for seed in range(4):
        labels, away, success = map(np.asarray, episode(jax.random.key(seed)))
        touched, last = away <= stages.TOUCH, int(success.argmax())
        first = np.where(touched.any(0), touched.argmax(0), 999)  # [3], when each place is touched
        expected = [int(np.where(first >= row, first, 999).argmin()) for row in range(last + 1)]
        assert success.any() and labels[: last + 1].tolist() == expected and len(set(expected)) == 2


@pytest.fixture(scope="module")
def cluttered():
    """`[64, T, ...]` of random accelerations: states, what led there, and what is observed of it again."""
    task = SCENES["jdp/Shaken-v0"].task

    @jax.jit
    def episodes(keys):
        def episode(key):
            def step(state, key):
                act, go = jax.random.split(key)
                after, found = task.step(go, state, jax.random.uniform(act, (2,), minval=-1.0))
                again = clutter.state_of(found.observation)
                return after, (after, found, clutter.observe(again))

            return jax.lax.scan(step, task.reset(key)[0], jax.random.split(key, 60))[1]

        return jax.vmap(episode)(keys)

    return jax.tree.map(np.asarray, episodes(jax.random.split(KEY, 64)))


def test_a_point_collides_where_numpy_says(cluttered):
    state, found, _ = cluttered
    gap = state.discs.astype(np.float64) - state.position[:, :, None]
    away = np.sqrt(np.square(gap).sum(-1)).min(-1)
    to_goal = np.sqrt(np.square((state.goal - state.position).astype(np.float64)).sum(-1))
    clear = (np.abs(away - clutter.RADIUS) > 1e-6) & (np.abs(to_goal - clutter.REACHED) > 1e-6)
    hit, there = away < clutter.RADIUS, to_goal <= clutter.REACHED
    assert clear.mean() > 0.999 and 0.01 < hit.mean() < 0.5
    np.testing.assert_array_equal((found.terminal & ~found.success)[clear], hit[clear])
    np.testing.assert_array_equal(found.success[clear], (there & ~hit)[clear])
    np.testing.assert_array_equal(found.reward, found.success)


def test_what_is_seen_of_clutter_tells_the_state_but_for_where_it_lies(cluttered):
    state, found, again = cluttered
    seen = found.observation
    np.testing.assert_array_equal(again, seen)
    discs = seen[..., 4:].reshape(64, 60, clutter.DISCS, 2)
    away = np.square(discs).sum(-1)
    assert (np.diff(away, axis=-1) >= -1e-6).all()  # the nearest one first
    mine = np.sort(np.linalg.norm(state.discs - state.position[:, :, None], axis=-1))
    np.testing.assert_allclose(np.sqrt(away), mine, atol=1e-6)


@pytest.mark.slow
def test_the_planner_of_clutter_succeeds_where_its_force_is_not_foreseen_too():
    for name, least in (("jdp/Clutter-v0", 0.85), ("jdp/Shaken-v0", 0.8)):
        method = planner_of(SCENES[name])
        state = jax.tree.map(lambda x: x[None], method.learner.init(KEY, ()))
        options = {"key": KEY, "seeds": 1, "episodes": 32}
        assert score_together(method.policy, state, SCENES[name].task, **options)["success"].mean() >= least


def test_a_cue_is_gone_after_the_first_steps():
    entry = group(SCENES["jdp/Cue-v0"].task.spec, "cue")
    env, seen = make_env("jdp/Cue-v0"), []
    seen.append(env.reset(seed=0)[0])
    for _ in range(cue.SHOWN + 1):
        seen.append(env.step(np.zeros(2))[0])
    shown = np.array(seen)[:, entry[0]]
    assert (np.abs(shown[: cue.SHOWN]) == 1).all() and not shown[cue.SHOWN :].any()


@pytest.mark.parametrize("name", ["jdp/Push-v0", "jdp/DoubleIntegrator-v0", "Pendulum-v1"])
def test_an_environment_is_its_task_step_by_step(name):
    task, rng = simulator(name), np.random.default_rng(0)
    env = TaskEnv(name) if name == "Pendulum-v1" else make_env(name)
    assert name in names() and env.action_space.shape == (task.spec.action_dim,)
    keys = jax.random.split(jax.random.key(7))
    state, expected, goal = jax.jit(task.reset)(keys[0])
    seen, info = env.reset(seed=7)
    step, key = jax.jit(task.step), keys[1]
    for _ in range(4):
        np.testing.assert_allclose(seen, expected, atol=1e-6)
        np.testing.assert_array_equal(info["goal"], goal)
        action = rng.uniform(-1.5, 1.5, task.spec.action_dim).astype(np.float32)
        now, key = jax.random.split(key)
        state, found = step(now, state, np.clip(action, -1, 1))
        seen, reward, terminal, truncated, info = env.step(action)
        expected = found.observation
        assert (reward, terminal, truncated) == (found.reward, bool(found.terminal), False)
        assert info["success"] == bool(found.success)


def test_environments_of_scenes_end_with_their_task_and_have_its_groups():
    env, scene = make_goal_env("jdp/Clean-v0"), SCENES["jdp/Clean-v0"]
    limit = env.max_episode_steps
    assert limit is not None and limit == scene.task.spec.max_episode_steps and env.goal_dim == 0
    assert make_goal_env("jdp/DoubleIntegrator-v0").goal_dim == 2
    first = env.reset(3)[0]
    np.testing.assert_array_equal(env.reset(3)[0], first)
    assert np.any(env.reset(4)[0] != first)
    for step in range(1, limit + 1):  # away from the goal
        found = env.step(-np.sign(first[group(Spec(8, 2, "jdp/Clean-v0"), "camera"),]))
        assert not found.terminated and found.truncated == (step == limit)
    for name, scene in SCENES.items():
        spec = Spec(scene.task.spec.observation_dim, 2, name)
        assert groups_of(spec) == scene.task.spec.groups and len(groups_of(spec)) > 1
        assert groups_of(replace(spec, observation_dim=99)) == (("observation", tuple(range(99))),)
