"""Loops that act: what is collected, kept and learned from, in a task whose every step is known."""

from functools import lru_cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hand_made import bits

from jdp.data.draws import NoDraw, TransitionDraw
from jdp.errors import UserError
from jdp.learning.acting import OffPolicyConfig, OnPolicyConfig
from jdp.loops import Memory, online
from jdp.loops.collect import collect, score, start
from jdp.loops.off_policy import empty, insert, off_policy
from jdp.loops.online import score_together, steps_of, steps_of_update, train_online
from jdp.tasks.simulators import simulator
from jdp.types import Decision, Learner, Method, Policy, Spec, Stepped, Task, pack

KEY = jax.random.key(0)
LIMIT = 6


def _reset(key):
    """Ends by itself after 3 to 8 steps, the limit is 6; observations `[steps so far, the last one]`."""
    last = jax.random.randint(key, (), 3, 9).astype(jnp.float32)
    return (jnp.zeros(()), last), jnp.stack([jnp.zeros(()), last]), last[None]


def _step(key, state, action):
    steps, last = state[0] + 1, state[1]
    found = Stepped(jnp.stack([steps, last]), 1 + action[0], steps == last, steps == 2)
    return (steps, last), found


TASK = Task(_reset, _step, Spec(2, 1, "counter", LIMIT, goal=(1,)))


def _count(observation):
    return jnp.zeros(observation.shape[0])


def _act(key, state, carry, observation, goal):
    """Remembers how many decisions it made in this episode; acts by what it has learned."""
    action = jnp.full((len(observation), 1), 0.5) * state["w"]
    return carry + 1, Decision(action, jnp.ones(len(observation), bool), value=carry)


POLICY = Policy(_count, _act)


def _learn(key, state, seen):
    rollout = seen[0] if type(seen) is tuple else seen
    total = jnp.sum(rollout.reward)
    return {"w": state["w"] + 1e-3 * jax.random.normal(key)}, {"loss": total}


ON = Method(Learner(lambda key, data: {"w": jnp.ones(())}, _learn, NoDraw()), POLICY)


@lru_cache
def rolled():
    return jax.jit(
        lambda key: collect(TASK, POLICY, key, {"w": jnp.ones(())}, start(TASK, POLICY, key, 16), 25)
    )(KEY)


def test_a_rollout_knows_the_state_before_a_reset_and_forgets_with_the_episode():
    _, rollout, _ = rolled()
    steps, last = np.moveaxis(np.asarray(rollout.observation), -1, 0)
    np.testing.assert_array_equal(rollout.next_observation[..., 0], steps + 1)
    np.testing.assert_array_equal(rollout.next_observation[..., 1], last)
    np.testing.assert_array_equal(rollout.goal[..., 0], last)
    np.testing.assert_array_equal(rollout.terminal, (steps + 1 == last))
    np.testing.assert_array_equal(rollout.truncated, (steps + 1 == LIMIT) & (last > LIMIT))
    np.testing.assert_array_equal(steps[1:], np.where(rollout.ended[:-1], 0, steps[:-1] + 1))
    np.testing.assert_array_equal(rollout.decision.value, steps)  # the carry begins anew
    assert rollout.terminal.any() and rollout.truncated.any()
    assert len(np.unique(last)) == 6  # new episodes are new draws


def test_sums_over_the_episodes_that_ended():
    _, rollout, ended = rolled()
    lengths = (rollout.observation[..., 0] + 1)[rollout.ended]
    assert ended["episodes"] == len(lengths) == ended["successes"]  # all pass step 2
    np.testing.assert_allclose(ended["lengths"], lengths.sum())
    np.testing.assert_allclose(ended["returns"], 1.5 * lengths.sum())


def test_a_score_is_of_each_environments_first_episode_alone():
    found = jax.jit(lambda key: score(TASK, POLICY, key, {"w": jnp.ones(())}, 200))(KEY)
    np.testing.assert_allclose(found.returns, 1.5 * np.asarray(found.lengths))
    shares = np.bincount(found.lengths, minlength=7)[3:] / 200
    np.testing.assert_allclose(shares, [1 / 6, 1 / 6, 1 / 6, 1 / 2], atol=0.1)
    assert found.success.all()
    with pytest.raises(ValueError, match="time limit"):
        score(TASK._replace(spec=Spec(2, 1)), POLICY, KEY, None, 2)


def test_the_buffer_is_a_ring():
    buffer, rows = empty(7, 1), np.arange(40, dtype=np.float32)[:, None]
    for i, part in enumerate(np.split(rows, [3, 6, 8, 15, 20])):
        if len(part) <= 7:
            buffer = insert(buffer, part)
            end = int(part[-1, 0]) + 1
            assert buffer.size == min(end, 7)
            assert set(np.asarray(buffer.rows)[: int(buffer.size), 0]) == set(
                rows[max(end - 7, 0) : end, 0]
            ), i


class Told:
    """What an off-policy learner was given, told by its metrics."""

    def __init__(self, minibatches):
        draw = TransitionDraw(2, 1, minibatches)
        self.method = Method(
            Learner(lambda key, data: {"w": jnp.zeros(()), "seen": data.reward.shape[0]}, self.learn, draw),
            POLICY,
        )

    def learn(self, key, state, batch):
        given = (batch.reward > 90).astype(jnp.float32)
        at_limit = (batch.next_observation[:, 0] == LIMIT) & (batch.observation[:, 1] > LIMIT)
        odd = jnp.sum(batch.terminal * at_limit.astype(jnp.float32))
        metrics = {
            "loss": jnp.sum(given),
            "rows": jnp.float32(len(batch.reward)),
            "first": given[0],
            "last": given[-1],
            "late": odd,
        }
        return state, metrics


def test_a_minibatch_holds_its_share_of_the_dataset_and_time_limits_are_no_terminals(minibatches=2):
    method = Told(minibatches).method
    config = OffPolicyConfig(
        environments=4, updates=3, batch_size=8, capacity=64, warm_up=40, offline_share=0.25
    )
    offline = np.asarray(pack(jax.tree.map(jnp.asarray, jdp_rows(20))))
    journal = Memory()
    train_online(method, TASK, config, key=KEY, updates=20, seeds=2, rows=offline, chunk=20, journal=journal)
    (told,) = journal.records("online")
    np.testing.assert_allclose(told["rows"], 8 * minibatches)
    np.testing.assert_allclose(told["loss"], 2 * minibatches)
    np.testing.assert_allclose([told["first"], told["last"], told["late"]], [[1, 1], [0, 0], [0, 0]])
    alone = Memory()
    config = OffPolicyConfig(environments=4, batch_size=8, capacity=64, warm_up=40)
    train_online(method, TASK, config, key=KEY, updates=20, seeds=2, chunk=20, journal=alone)
    (told,) = alone.records("online")
    np.testing.assert_allclose(told["loss"], 0)
    assert steps_of_update(config) == 4 and steps_of(config, 20) == 40 + 20 * 4  # random ones too


def _steered(key, state, carry, observation, goal):
    """Acts by what it began with, and keeps what it acts of."""
    del key, goal
    latent = jnp.full((len(observation), 3), state["base"] / 2)
    return carry, Decision(jnp.full((len(observation), 1), state["base"]), carry >= 0, latent=latent)


def _tell(key, state, batch):
    """Means of a minibatch: of observations' last entries, of actions, and of rewards."""
    told = {"loss": batch.reward, "goal": batch.observation[:, 2], "action": batch.action[:, 0]}
    told |= {"same": (batch.observation[:, 2] == batch.next_observation[:, 2]).astype(jnp.float32)}
    assert batch.action.shape == (8, 3) and batch.observation.shape == (8, 3)
    return state, jax.tree.map(jnp.mean, told)


STEERED = Method(
    Learner(lambda key, data: {"base": data["base"]}, _tell, TransitionDraw(3, 3)),
    Policy(_count, _steered),
    warm_up=Policy(_count, _steered),
)
STEERED_RUN = {"key": KEY, "updates": 4, "seeds": 2, "chunk": 4, "base": {"base": jnp.float32(0.25)}}


def check_steered(told):
    """What stands in the buffer from the first step on: goals, and what actions were made of."""
    np.testing.assert_allclose(
        [told["action"], told["loss"], told["same"]], [[0.125] * 2, [1.25] * 2, [1, 1]]
    )
    assert (told["goal"] > 3).all() and (told["goal"] < 8).all()


def test_a_fine_tuners_buffer_holds_goals_and_latent_actions_and_begins_with_its_own_steps():
    journal, config = Memory(), OffPolicyConfig(environments=4, batch_size=8, capacity=64, warm_up=40)
    train_online(STEERED, TASK, config, journal=journal, **STEERED_RUN)
    check_steered(journal.records("online")[-1])


def jdp_rows(count):
    from jdp.types import Transition

    none = np.zeros((count, 2), np.float32)
    return Transition(none, none[:, :1], np.full(count, 99, np.float32), none, none[:, 0])


def test_what_learns_from_more_than_single_steps_is_refused():
    with pytest.raises(UserError, match="off-policy learning needs a method of single transitions"):
        off_policy(ON, TASK, OffPolicyConfig())


def test_training_evaluates_in_rounds_scores_and_compiles_once():
    acting, journal, asked = OnPolicyConfig(4, 5), Memory(), []

    def evaluate(step, states):
        asked.append(step)
        return score_together(POLICY, states, TASK, key=KEY, seeds=2, episodes=3)

    options = {"key": KEY, "updates": 10, "seeds": 2, "chunk": 3, "journal": journal}
    states = train_online(ON, TASK, acting, evaluate=evaluate, evaluate_every=4, **options)
    assert asked == [4, 8, 10] and states["w"].shape == (2,) and states["w"][0] != states["w"][1]
    records = journal.records("online/evaluation")
    assert [r["step"] for r in records] == asked and np.shape(records[0]["returns"]) == (2, 3)
    assert sum(np.sum(r["episodes"]) for r in journal.records("online")) > 0
    assert online._scores(POLICY, TASK, 3)._cache_size() == 1  # type: ignore[attr-defined]
    assert steps_of_update(acting) == 20 and steps_of(acting, 10) == 200


def test_equal_runs_are_equal_bits():
    options = {"key": KEY, "updates": 6, "seeds": 2, "chunk": 4}
    first, second = (bits(train_online(ON, TASK, OnPolicyConfig(4, 5), **options)) for _ in range(2))
    assert first == second


PENDULUM = {"ppo": 60, "sac": 6_000, "td3": 6_000}


@pytest.mark.slow
@pytest.mark.parametrize("name", PENDULUM)
def test_agents_swing_a_pendulum_up(name):
    """A policy that does nothing scores about -1,200; -250 keeps it up from nearly every start."""
    import jdp.online
    from jdp import registry

    task, config = simulator("Pendulum-v1"), registry.entry("online", name).config
    if name == "ppo":
        config = config(acting=OnPolicyConfig(16, 128), learning_rate=1e-3, discount=0.9, target_kl=0.03)
    else:
        acting = OffPolicyConfig(batch_size=128, capacity=10_000, warm_up=500)
        rates = {"sac": ("actor_", "critic_", "alpha_"), "td3": ("",)}[name]
        config = config(
            acting=acting, hidden=(64, 64), tau=0.01, **{f"{r}learning_rate": 1e-3 for r in rates}
        )
    method = jdp.online.make(config, task.spec)
    states = train_online(method, task, config.acting, key=KEY, updates=PENDULUM[name], seeds=3, chunk=1000)
    scores = score_together(method.policy, states, task, key=KEY, seeds=3, episodes=20)["returns"].mean(1)
    assert np.median(scores) > -250, scores
