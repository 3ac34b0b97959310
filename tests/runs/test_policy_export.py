"""Exported policies: the same numbers for any number of environments, flat memory, clear refusals."""

import importlib.util

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdp.errors import StorageError, UserError
from jdp.runs.export import export_policy, read_export
from jdp.types import Decision, Policy, Spec

pytest.importorskip("flatbuffers")
SPEC = Spec(2, 2, goal=(0, 1))
GAIN = {"gain": np.array([2.0, -1.0], np.float32)}


def act(key, state, carry, observation, goal):
    """Remembers the sum of what was seen; heads for the goal from there, with noise."""
    seen = {"sum": carry["sum"] + observation, "steps": carry["steps"] + 1}
    gain = jnp.broadcast_to(state["gain"], observation.shape)
    return seen, decision(gain * (goal - seen["sum"]) + 0.1 * jax.random.normal(key, observation.shape))


def decision(action):
    return Decision(action, jnp.ones(action.shape[0], bool))


def begin(observation):
    return {"sum": jnp.zeros_like(observation), "steps": jnp.zeros(observation.shape[0], jnp.int32)}


SUMS = Policy(begin, act)


def test_one_file_remembers_and_acts_in_any_number_of_environments(tmp_path):
    card = export_policy(tmp_path / "p", SUMS, GAIN, SPEC, facts={"dataset": "d"})
    made = read_export(tmp_path / "p")
    assert made.card == card and card["dataset"] == "d" and card["batch"] == "any"
    assert card["functions"]["act"] == "(key_data, carry, observation, goal) -> (carry, action)"
    assert card["arrays"]["carry"] == ["['steps']: int32 [b]", "['sum']: float32 [b, 2]"]
    for batch in (1, 3):
        seen = np.random.default_rng(batch).normal(size=(4, batch, 2)).astype(np.float32)
        carry = made.start(seen[0])
        for step, observation in enumerate(seen):
            key = jax.random.key(step)
            before = carry
            carry, action = made.act(jax.random.key_data(key), before, observation, seen[-1])
            noise = 0.1 * np.asarray(jax.random.normal(key, (batch, 2)))
            wanted = np.array([[2.0, -1.0]]) * (seen[-1] - seen[: step + 1].sum(axis=0)) + noise
            np.testing.assert_allclose(action, wanted, atol=1e-5)
            again = made.act(jax.random.key_data(key), before, observation, seen[-1])[1]
            np.testing.assert_array_equal(action, again)
        np.testing.assert_array_equal(carry[0], [4] * batch)


def test_actions_leave_in_the_units_of_the_task(tmp_path):
    spec = Spec(2, 2, action_low=(-2.0, 0.0), action_high=(2.0, 5.0))
    policy = Policy(lambda _: (), lambda key, state, carry, o, goal: (carry, decision(o)))
    export_policy(tmp_path / "p", policy, {}, spec, platforms=["cpu"])
    seen = np.array([[-1.0, -1.0], [1.0, 1.0], [0.5, 0.0]], np.float32)
    _, action = read_export(tmp_path / "p").act(np.zeros(2, np.uint32), (), seen)
    np.testing.assert_allclose(action, [[-2.0, 0.0], [2.0, 5.0], [1.0, 2.5]], atol=1e-6)


def test_of_tasks_without_goals_none_is_asked_for(tmp_path):
    policy = Policy(lambda _: (), lambda key, state, carry, o, goal: (carry, decision(o + goal.shape[1])))
    card = export_policy(tmp_path / "p", policy, {}, Spec(2, 2), platforms=["cpu"])
    assert card["functions"]["act"] == "(key_data, carry, observation) -> (carry, action)"
    _, action = read_export(tmp_path / "p").act(np.zeros(2, np.uint32), (), np.ones((3, 2), np.float32))
    np.testing.assert_array_equal(action, np.ones((3, 2)))


def test_what_depends_on_the_number_of_environments_is_exported_for_one(tmp_path):
    def odd(key, state, carry, observation, goal):
        return carry, decision(observation if observation.shape[0] < 3 else -observation)

    policy = Policy(lambda _: (), odd)
    with pytest.raises(UserError, match="batch=1"):
        export_policy(tmp_path / "p", policy, {}, Spec(2, 2))
    assert not list(tmp_path.iterdir())
    export_policy(tmp_path / "p", policy, {}, Spec(2, 2), batch=1)
    _, action = read_export(tmp_path / "p").act(np.zeros(2, np.uint32), (), np.ones((1, 2), np.float32))
    np.testing.assert_array_equal(action, np.ones((1, 2)))


def test_mistakes_get_one_line(tmp_path, monkeypatch):
    path = tmp_path / "p"
    export_policy(path, SUMS, GAIN, SPEC)
    with pytest.raises(UserError, match=r"\(environments, 2\), not \(1, 3\)"):
        read_export(path).start(np.zeros((1, 3), np.float32))
    with pytest.raises(UserError, match="no platform abacus"):
        export_policy(path, SUMS, GAIN, SPEC, platforms=["abacus"])
    with pytest.raises(UserError, match="batch is 0"):
        export_policy(path, SUMS, GAIN, SPEC, batch=0)
    with pytest.raises(StorageError, match="nowhere"):
        export_policy(tmp_path / "nowhere" / "p", SUMS, GAIN, SPEC)
    path.write_bytes(path.read_bytes()[:400])
    for wrong in (path, tmp_path, tmp_path / "none"):
        with pytest.raises(UserError, match="no policy exported by jdp"):
            read_export(wrong)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"jdp\[export\]"):
        export_policy(path, SUMS, GAIN, SPEC)
