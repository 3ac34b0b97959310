"""Which decisions are timed: those that drew anew, after all has been compiled."""

import sys

import jax
import numpy as np
from hand_made import CONSTANT, Countdown

from jdp.loops import latency as timing
from jdp.types import Decision

KEY = jax.random.key(0)


class Clock:
    """Time that passes only in the environment, before the decisions it is told of."""

    def __init__(self):
        self.now = 0.0

    def perf_counter(self):
        return self.now


def timed(monkeypatch, length: int, **options):
    """`latency` in episodes of `length` steps, where the first decision of all takes 1000 s, the first of an
    episode 30 s, every third step 6 s, another step 1 s."""

    module = sys.modules["jdp.loops.latency"]
    clock, calls = Clock(), []

    def act(key, step, state, carry, observation, goal):
        assert step == len(calls)
        assert observation.shape == (1, 2) and goal.shape == (1, 1)
        kind = 30.0 if carry == 0 else 6.0 if carry % 3 == 0 else 1.0
        calls.append(carry)
        clock.now += kind if len(calls) > 1 else 1000.0
        return carry + 1, Decision(np.zeros((1, 1)), np.array([carry % 3 == 0]))

    class Long(Countdown):
        def reset(self, seed):
            return super().reset(seed, left=length)

    monkeypatch.setattr(module, "time", clock)
    monkeypatch.setattr(module, "controller", lambda policy: module.Controller(lambda observation: 0, act))
    monkeypatch.setattr(module, "begin", lambda actor, observation: 0)
    return timing(CONSTANT, KEY, None, Long, **options), calls


def test_latency_counts_decisions_and_leaves_compilation_out(monkeypatch):
    found, calls = timed(monkeypatch, 100, decisions=4)
    assert (found.median, found.percentile_95, found.first) == (6.0, 6.0, 30.0)
    assert found.step == (6.0 + 2 * 1.0) / 3  # one that plans, two that follow
    assert [c for c in calls if c and c % 3 == 0] == [3, 6, 9, 12]  # as many as were asked for
    assert calls.count(0) == 2


def test_latency_begins_again_when_an_episode_ends(monkeypatch):
    found, calls = timed(monkeypatch, 5, decisions=4)  # decisions at steps 0 and 3 of each episode
    assert calls == [0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 0]
    assert (found.median, found.first) == (6.0, 30.0)
    found, calls = timed(monkeypatch, 2, decisions=3)  # the first decision of an episode is its only one
    assert set(calls) == {0, 1} and (found.median, found.first) == (30.0, 30.0)
