"""Policies and planners in the simulator: all episodes as one batch, and how long a decision takes."""

import time
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import Array
from jax.sharding import Mesh

from jdp.devices.mesh import gathered, on_one, padded, replicate, split_batch, split_rows
from jdp.errors import UserError
from jdp.types import Policy, PyTree

Watch = Callable[[int, PyTree, np.ndarray, np.ndarray], None]


class Played(NamedTuple):
    """The episodes of one policy, `n` of them, stepped together."""

    returns: np.ndarray  # [n] float64, undiscounted sums of rewards
    lengths: np.ndarray  # [n], steps
    success: np.ndarray  # [n] bool, whether the task said so at any step; False without goals
    observation: np.ndarray  # [T + 1, n, O], what was seen; an episode's last row is repeated after its end
    goal: np.ndarray  # [n, G], of the beginning


class Latency(NamedTuple):
    """Wall time of decisions in one environment, in seconds, after compilation."""

    median: float
    percentile_95: float
    first: float  # the first decision of an episode, which has no earlier plan to begin from
    step: float  # mean over all steps, those that only follow a plan among them


class Controller(NamedTuple):
    """A policy's two functions, compiled."""

    init: Callable[..., PyTree]
    act: Callable[..., tuple[PyTree, Array]]


@lru_cache(maxsize=64)
def controller(policy: Policy, mesh: Mesh | None = None) -> Controller:
    """The jitted functions of `policy`; equal arguments give the same ones, so they compile once.

    Over a mesh the environments (a multiple of its devices) are split, and actions come back whole.
    """
    if mesh is None:
        return Controller(jax.jit(policy.init), jax.jit(policy.act))

    def init(observation: Array) -> PyTree:
        return remembered(policy.init(split_batch(observation, mesh)), observation)

    def act(key: Array, state: PyTree, carry: PyTree, observation: Array, goal: Array):
        seen, goal = split_batch((observation, goal), mesh)
        carry, action = policy.act(key, state, carry, seen, goal)
        return remembered(carry, observation), gathered(split_batch(action, mesh), mesh)

    def remembered(carry: PyTree, observation: Array) -> PyTree:
        # Where a mesh spans processes each must be able to look into it.
        whole = jax.process_count() > 1
        return gathered(carry, mesh) if whole else split_rows(carry, mesh, observation.shape[0])

    return Controller(jax.jit(init), jax.jit(act))


def play(
    policy: Policy,
    key: Array,
    state: PyTree,
    make: Callable[[], Any],
    *,
    episodes: int,
    seed: int = 0,
    place: Mapping[str, Any] | None = None,
    progress: Callable[[int, int], None] | None = None,
    watch: Watch | None = None,
    mesh: Mesh | None = None,
) -> Played:
    """Plays `episodes` episodes at once; equal seeds and keys give equal bits.

    Each environment plays one episode and is never stepped after its end; its last observation stays in the
    batch, whose shape never changes.

    Over a `mesh` decisions are split over its devices, whatever the number of episodes: the batch is filled
    up with copies of its last row. The environments are stepped on the host, one after another.

    Args:
        key: of the policy's own randomness; consumed.
        make: makes one environment (`jdp.evaluation.make_goal_env`).
        seed: of the initial states and goals.
        place: `start` and `goal` of every episode in a maze, instead of those drawn.
        progress: called after every step with (steps so far, episodes finished so far).
        watch: called before every step with (step, carry, observations [n, O], running [n] bool);
            the carry of n environments, over a mesh followed by the copies.

    Raises:
        UserError: if a task has no time limit, or a place is in a wall or outside the maze.
    """
    act, state = controller(policy, mesh), replicate(state, mesh)
    envs = [make() for _ in range(episodes)]
    try:
        if any(env.max_episode_steps is None for env in envs):
            raise UserError("the task has no time limit: choose one that ends its episodes")
        return _play(act, key, state, envs, seed, place or {}, progress, watch, mesh)
    finally:
        for env in envs:
            env.close()


def _play(
    act: Controller,
    key: Array,
    state: PyTree,
    envs: list,
    seed: int,
    place: Mapping[str, Any],
    progress: Callable[[int, int], None] | None,
    watch: Watch | None,
    mesh: Mesh | None,
) -> Played:
    count = len(envs)
    seeds = np.random.SeedSequence(seed).generate_state(count).tolist()
    began = [env.reset(s, **place) for env, s in zip(envs, seeds, strict=True)]
    observation, goal = (np.stack(x).astype(np.float32) for x in zip(*began, strict=True))
    first = goal.copy()
    returns, lengths = np.zeros(count), np.zeros(count, np.int64)
    running, success, seen = np.ones(count, bool), np.zeros(count, bool), [observation.copy()]
    carry, step = act.init(padded(observation, mesh)), 0
    while running.any():
        if watch is not None:
            watch(step, carry, observation, running)
        shown = padded((observation, goal), mesh)
        carry, actions = act.act(jax.random.fold_in(key, step), state, carry, *shown)
        actions = np.asarray(actions)[:count]
        observation, goal = observation.copy(), goal.copy()
        for i in np.flatnonzero(running):
            observation[i], goal[i], reward, terminated, truncated, reached = envs[i].step(actions[i])
            returns[i] += reward
            lengths[i] += 1
            success[i] |= reached
            running[i] = not (terminated or truncated)
        seen.append(observation.copy())
        step += 1
        if progress is not None:
            progress(step, int(count - running.sum()))
    return Played(returns, lengths, success, np.stack(seen), first)


def latency(
    policy: Policy,
    key: Array,
    state: PyTree,
    make: Callable[[], Any],
    *,
    decisions: int = 30,
    every: int = 1,
    seed: int = 0,
) -> Latency:
    """How long a decision takes in one environment, in closed loop, after all has been compiled.

    A decision is a step at which the policy plans or samples: every `every`-th one. Steps in between only
    follow. An episode that ends is begun again. One environment fills one device: others take no part.
    """
    act, env, state = controller(policy), make(), on_one(state)
    planning, following, first = [], [], []
    try:
        # Two episodes at least: the first decision of the first one compiles.
        while len(planning) + len(first) <= decisions or len(first) < 2:
            observation, goal = (np.asarray(x, np.float32)[None] for x in env.reset(seed + len(first)))
            carry, ended, step = act.init(observation), False, 0
            while not ended and (step == 0 or len(planning) + len(first) <= decisions):
                k = jax.random.fold_in(key, len(planning) + len(following) + len(first))
                began = time.perf_counter()
                carry, action = jax.block_until_ready(act.act(k, state, carry, observation, goal))
                kind = first if step == 0 else planning if step % every == 0 else following
                kind.append(time.perf_counter() - began)
                o, g, _, terminated, truncated, _ = env.step(np.asarray(action)[0])
                observation, goal = np.asarray(o, np.float32)[None], np.asarray(g, np.float32)[None]
                ended, step = terminated or truncated, step + 1
    finally:
        env.close()
    planning = planning or first[1:]
    between = (every - 1) * float(np.mean(following)) if following else 0.0
    return Latency(
        float(np.median(planning)),
        float(np.percentile(planning, 95)),
        float(np.median(first[1:])),
        (float(np.mean(planning)) + between) / every,
    )
