"""Returns of policies in the simulator."""

from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import gymnasium as gym
import jax
import numpy as np
from jax import Array
from jax.sharding import Mesh

from jdp.devices.mesh import gathered, padded, replicate, split_batch
from jdp.errors import UserError
from jdp.evaluation.environments import make_env
from jdp.types import Agent, Bound, PyTree

PolicyStep = Callable[[PyTree, np.ndarray], Any]  # (state [S, ...], observations [S, n, O]) -> [S, n, A]


class Returns(NamedTuple):
    """What `evaluate` saw: the first episode of every environment."""

    returns: np.ndarray  # [S, n], undiscounted sums of rewards, float64
    lengths: np.ndarray  # [S, n], steps
    terminated: np.ndarray  # [S, n], False where the time limit ended the episode


def _mean_action(state: PyTree, observation: Array, *, act: Callable, mesh: Mesh | None) -> Array:
    observation = split_batch(observation, mesh, 1)
    action = jax.vmap(lambda s, o: act(s, o).mean)(state, observation)
    return gathered(split_batch(action, mesh, 1), mesh)


@lru_cache
def make_policy_step(agent: Agent, mesh: Mesh | None = None) -> PolicyStep:
    """The jitted mean action of `agent`: `(state [S, ...], observations [S, n, O]) -> [S, n, A]`.

    Equal agents give the same function, and the weights are arguments of it: it compiles once in a
    run, however often it is used. Over a mesh the `n` observations of every agent are split over its
    devices; n must divide.
    """
    return jax.jit(Bound(_mean_action, (("act", agent.act), ("mesh", mesh))))


def _reset_seeds(seed: int, agents: int, episodes: int) -> list[int]:
    """A reset seed for every environment; those of the first agents do not depend on `agents`."""
    return np.random.SeedSequence(seed).generate_state(agents * episodes).tolist()


def _boxes(env: gym.Env, env_id: str) -> gym.spaces.Box:
    """The action space of `env`. Raises `UserError` unless it and the observations are vectors."""
    for name, space in (("observations", env.observation_space), ("actions", env.action_space)):
        if not isinstance(space, gym.spaces.Box) or len(space.shape) != 1:
            raise UserError(f"{name} of {env_id} are not vectors of numbers but {space}")
    assert isinstance(env.action_space, gym.spaces.Box)
    return env.action_space


def evaluate(
    policy_step: PolicyStep,
    state: PyTree,
    env_id: str | None,
    *,
    episodes: int = 10,
    seed: int = 0,
    max_episode_steps: int | None = None,
    progress: Callable[[int, int], None] | None = None,
    mesh: Mesh | None = None,
) -> Returns:
    """Plays `episodes` episodes with each of the S policies in `state`; equal seeds give equal bits.

    One environment stands for one episode: it is stepped until that episode ends and never again, so
    nothing is added after the end and no reset state is mistaken for a next state. (Gymnasium's vector
    environments would restart and simulate the finished ones until the slowest is done.) The shape of
    the observations never changes, so `policy_step` compiles once.

    Args:
        policy_step: `(state, observations [S, n, O] float32) -> actions [S, n, A]`, compiled by the
            caller: `make_policy_step(agent, mesh)`. Actions are clipped into the action space.
        state: of S agents, stacked: every leaf is `[S, ...]`.
        env_id: a Gymnasium task with vector observations and actions, for instance "Hopper-v5".
        episodes: n, for each agent.
        seed: of the initial states; every agent gets its own.
        max_episode_steps: replaces the task's own time limit.
        progress: called after every step with (steps so far, episodes finished so far).
        mesh: that of `policy_step`; observations are filled up with copies to a multiple of its devices.

    Raises:
        UserError: if there is no such task, or none of its episodes need ever end.
    """
    agents, state = jax.tree.leaves(state)[0].shape[0], replicate(state, mesh)
    envs: list[gym.Env] = []
    try:
        envs.extend(make_env(env_id, max_episode_steps=max_episode_steps) for _ in range(agents * episodes))
        return _play(policy_step, state, envs, agents, _reset_seeds(seed, agents, episodes), progress, mesh)
    finally:
        for env in envs:
            env.close()


def _play(
    policy_step: PolicyStep,
    state: PyTree,
    envs: list[gym.Env],
    agents: int,
    seeds: list[int],
    progress: Callable[[int, int], None] | None,
    mesh: Mesh | None,
) -> Returns:
    spec = envs[0].spec
    if spec is None or spec.max_episode_steps is None:
        raise UserError(f"{spec and spec.id} has no time limit: give max_episode_steps")
    box = _boxes(envs[0], spec.id)
    count = len(envs)
    observations = np.stack([env.reset(seed=s)[0] for env, s in zip(envs, seeds, strict=True)])
    observations = observations.astype(np.float32)
    returns, lengths = np.zeros(count), np.zeros(count, np.int64)
    running, terminated = np.ones(count, bool), np.zeros(count, bool)
    step = 0
    while running.any():
        seen = observations.reshape(agents, -1, observations.shape[1])
        actions = np.asarray(policy_step(state, padded(seen, mesh, 1)))[:, : seen.shape[1]]
        actions = np.clip(actions.reshape(count, -1), box.low, box.high).astype(box.dtype)
        for i in np.flatnonzero(running):
            observation, reward, terminated[i], truncated, _ = envs[i].step(actions[i])
            observations[i] = observation
            returns[i] += float(reward)
            lengths[i] += 1
            running[i] = not (terminated[i] or truncated)
        step += 1
        if progress is not None:
            progress(step, int(count - running.sum()))
    shape = (agents, -1)
    return Returns(returns.reshape(shape), lengths.reshape(shape), terminated.reshape(shape))
