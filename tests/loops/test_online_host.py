"""Environments on the host that never stop: the laws of those in JAX, and the same methods learn in them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_online import KEY, LIMIT, ON, STEERED, STEERED_RUN, TASK, Told, check_steered, jdp_rows

from jdp.errors import UserError
from jdp.learning.acting import OffPolicyConfig, OnPolicyConfig
from jdp.loops import Memory, train_online_host
from jdp.loops.host import HostEnvironments
from jdp.types import pack


class Hosted:
    """A JAX task as an environment on the host (`jdp.loops.Environment`)."""

    max_episode_steps: int | None = LIMIT
    closed = 0

    def reset(self, seed, **place):
        self.state, observation, self.goal = TASK.reset(jax.random.key(seed))
        self.steps = 0
        return np.asarray(observation), np.asarray(self.goal)

    def step(self, action):
        self.state, found = TASK.step(KEY, self.state, jnp.asarray(action))
        self.steps += 1
        ended = bool(found.terminal)
        late = self.steps >= LIMIT
        return (
            np.asarray(found.observation),
            np.asarray(self.goal),
            float(found.reward),
            ended,
            late,
            bool(found.success),
        )

    def close(self):
        Hosted.closed += 1


def environments(count=3):
    return HostEnvironments(Hosted, count, 1, seed=5)


def test_host_environments_tell_the_state_before_a_reset_and_begin_anew():
    envs, seen = environments(), []
    for _ in range(40):
        before = envs.observation.copy()
        out = envs.step(np.full((3, 1), 0.5))
        steps, last = before.T
        np.testing.assert_array_equal(out.observation[:, 0], steps + 1)
        np.testing.assert_array_equal(out.terminal, steps + 1 == last)
        np.testing.assert_array_equal(out.truncated, (steps + 1 == LIMIT) & (last > LIMIT))
        np.testing.assert_array_equal(envs.observation[:, 0], np.where(out.ended, 0, steps + 1))
        np.testing.assert_array_equal(envs.goal[:, 0], envs.observation[:, 1])
        np.testing.assert_allclose(out.total, 1.5 * out.length)
        np.testing.assert_array_equal(out.reached, out.length >= 2)
        seen += [tuple(row) for row in envs.observation[out.ended]]
    assert len({last for _, last in seen}) >= 5  # every episode is another draw


def test_environments_stand_again_where_they_stood():
    def go_on(envs, steps):
        rng = np.random.default_rng(9)
        return [jax.tree.map(np.copy, envs.step(rng.uniform(-1, 1, (3, 1)))) for _ in range(steps)]

    one, other = environments(), environments()
    go_on(one, 17)
    other.restore(jax.tree.map(np.copy, one.state))
    np.testing.assert_array_equal(one.observation, other.observation)
    jax.tree.map(np.testing.assert_array_equal, go_on(one, 20), go_on(other, 20))


def test_a_task_without_a_limit_is_refused_and_all_are_closed(monkeypatch):
    monkeypatch.setattr(Hosted, "max_episode_steps", None)
    with pytest.raises(UserError, match="give max_episode_steps"):
        environments()


def test_methods_learn_on_the_host_as_they_do_in_jax():
    offline = np.asarray(pack(jax.tree.map(jnp.asarray, jdp_rows(20))))
    config = OffPolicyConfig(
        environments=2, updates=3, batch_size=8, capacity=64, warm_up=40, offline_share=0.25
    )
    journal, closed = Memory(), Hosted.closed
    options = {"key": KEY, "updates": 10, "seeds": 2, "chunk": 10, "journal": journal}
    train_online_host(Told(2).method, Hosted, TASK.spec, config, rows=offline, **options)
    assert Hosted.closed == closed + 4
    (told,) = journal.records("online")
    np.testing.assert_allclose(told["rows"], 16)
    np.testing.assert_allclose(told["loss"], 4)
    np.testing.assert_allclose([told["first"], told["last"], told["late"]], [[1, 1], [0, 0], [0, 0]])

    journal, config = Memory(), OffPolicyConfig(environments=2, batch_size=8, capacity=64, warm_up=40)
    train_online_host(STEERED, Hosted, TASK.spec, config, journal=journal, **STEERED_RUN)
    check_steered(journal.records("online")[-1])

    journal, asked = Memory(), []
    options |= {"journal": journal, "chunk": 3}
    evaluate = lambda step, states: asked.append(step) or {"returns": []}  # noqa: E731
    train_online_host(
        ON, Hosted, TASK.spec, OnPolicyConfig(4, 5), evaluate=evaluate, evaluate_every=4, **options
    )
    assert asked == [4, 8, 10]
    rewards = sum(
        np.asarray(r["loss"]) * n for r, n in zip(journal.records("online"), (3, 1, 2, 2, 1, 1), strict=True)
    )
    assert (rewards > 10 * 20).all()  # 200 steps of reward 1 and more
