"""How long a decision takes."""

import time
from typing import NamedTuple

import jax
import numpy as np
from jax import Array

from jdp.devices.mesh import on_one
from jdp.loops.controller import Controller, begin, controller
from jdp.loops.play import Environment, Make
from jdp.types import Policy, PyTree


class Latency(NamedTuple):
    """Wall time of decisions in one environment, in seconds, after compilation."""

    median: float
    percentile_95: float
    first: float  # the first decision of an episode, which has no earlier plan to begin from
    percentile_99: float
    step: float  # mean over all steps but an episode's first, those that only follow a plan among them


class _Times(NamedTuple):
    """Seconds of steps: an episode's first ones, those that decided anew, those that followed."""

    first: list[float]
    anew: list[float]
    following: list[float]

    def decisions(self) -> int:
        return len(self.first) + len(self.anew)

    def steps(self) -> int:
        return self.decisions() + len(self.following)


def latency(
    policy: Policy, key: Array, state: PyTree, make: Make, *, decisions: int = 30, seed: int = 0
) -> Latency:
    """How long a decision takes in one environment, in closed loop, after all has been compiled.

    A decision is a step at which the policy drew anew (`Decision.decided`); at the others it only follows. An
    episode that ends is begun again. One environment fills one device: others take no part.
    """
    actor, env, state = controller(policy), make(), on_one(state)
    times = _Times([], [], [])
    try:
        # Two episodes at least: the first decision of the first one compiles.
        while times.decisions() <= decisions or len(times.first) < 2:
            _episode(actor, key, state, env, times, decisions, seed)
    finally:
        env.close()
    first = times.first[1:]
    anew = times.anew or first  # where an episode's first decision is its only one
    return Latency(
        float(np.median(anew)),
        float(np.percentile(anew, 95)),
        float(np.median(first)),
        float(np.percentile(anew, 99)),
        float(np.mean([*anew, *times.following])),
    )


def _episode(
    actor: Controller, key: Array, state: PyTree, env: Environment, times: _Times, decisions: int, seed: int
) -> None:
    """Times the steps of an episode, until it ends or enough decisions were made."""
    observation, goal = (np.asarray(x, np.float32)[None] for x in env.reset(seed + len(times.first)))
    carry, ended, step = begin(actor, observation), False, 0
    while not ended and (step == 0 or times.decisions() <= decisions):
        began = time.perf_counter()
        decided = actor.act(key, times.steps(), state, carry, observation, goal)
        carry, decision = jax.block_until_ready(decided)
        took = time.perf_counter() - began
        anew = bool(np.asarray(decision.decided)[0])
        (times.first if step == 0 else times.anew if anew else times.following).append(took)
        o, g, _, terminated, truncated, _ = env.step(np.asarray(decision.action)[0])
        observation, goal = np.asarray(o, np.float32)[None], np.asarray(g, np.float32)[None]
        ended, step = terminated or truncated, step + 1
