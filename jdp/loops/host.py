"""Environments on the host (Gymnasium's, in C) for methods that learn while they act.

Environments are stepped one after another, decisions and updates are compiled programs. What the environments
hold is saved as the actions of the episodes that run, and made again from them: so a run that was killed
goes on to the same bits in every task whose episodes depend on seed and actions alone.
"""

from typing import Any, NamedTuple

import jax
import numpy as np
from jax import Array

from jdp.errors import UserError
from jdp.loops.play import Environment, Make
from jdp.tasks.simulators.batch import Outcome, renewed
from jdp.types import Policy, PyTree


class HostState(NamedTuple):
    """What it takes to make n environments again."""

    episodes: np.ndarray  # [n] int32, begun so far; of the one that runs the seed is made
    lengths: np.ndarray  # [n] int32, steps of it so far
    actions: np.ndarray  # [n, limit, A], of these steps


class HostEnvironments:
    """n environments that never stop: what has ended begins anew, as in `jdp.tasks.simulators.advance`."""

    def __init__(self, make: Make, count: int, actions: int, seed: int):
        self.envs: list[Environment] = [make() for _ in range(count)]
        limit = self.envs[0].max_episode_steps
        if limit is None:
            raise UserError("the task has no time limit: give max_episode_steps")
        self.seed, none = seed, np.zeros(count, np.int32)
        self.state = HostState(none, none.copy(), np.zeros((count, limit, actions), np.float32))
        self.total, self.reached = np.zeros(count), np.zeros(count, bool)
        begun = [self._begin(i) for i in range(count)]
        self.observation, self.goal = (np.stack(x).astype(np.float32) for x in zip(*begun, strict=True))

    def _begin(self, i: int) -> tuple[np.ndarray, np.ndarray]:
        """Episode `episodes[i] + 1` of environment `i`."""
        self.state.episodes[i] += 1
        self.state.lengths[i], self.total[i], self.reached[i] = 0, 0.0, False
        words = np.random.SeedSequence([self.seed, i, int(self.state.episodes[i])]).generate_state(1)
        return self.envs[i].reset(int(words[0]))

    def step(self, actions: np.ndarray) -> Outcome:
        """One step of all under `actions` `[n, A]`."""
        count, actions = len(self.envs), np.clip(actions, -1.0, 1.0)
        seen, goal = self.observation.copy(), self.goal.copy()
        reward, (terminal, late, success) = np.zeros(count, np.float32), np.zeros((3, count), bool)
        for i, env in enumerate(self.envs):
            found = env.step(actions[i])
            seen[i], goal[i], reward[i], terminal[i], late[i], success[i] = found
        self.state.actions[np.arange(count), self.state.lengths] = actions
        self.state.lengths[:] += 1
        self.total += reward
        self.reached |= success
        ended, following = terminal | late, seen.copy()
        outcome = Outcome(
            observation=seen,
            reward=reward,
            terminal=terminal,
            truncated=late & ~terminal,
            success=success,
            length=self.state.lengths.copy(),
            total=self.total.astype(np.float32),
            reached=self.reached.copy(),
        )
        for i in np.flatnonzero(ended).tolist():
            following[i], goal[i] = self._begin(i)
        self.observation, self.goal = following, goal
        return outcome

    def restore(self, state: HostState) -> None:
        """Stands where `state` was taken: the episodes that run are played again."""
        for i in range(len(self.envs)):
            self.state.episodes[i] = state.episodes[i] - 1
            self.observation[i], self.goal[i] = self._begin(i)
            for action in state.actions[i, : state.lengths[i]]:
                self.observation[i], self.goal[i], reward, *_, success = self.envs[i].step(action)
                self.total[i] += np.float32(reward)
                self.reached[i] |= success
            self.state.lengths[i] = state.lengths[i]
            self.state.actions[i] = state.actions[i]

    def close(self) -> None:
        """Frees what they hold."""
        for env in self.envs:
            env.close()


class ChunkedEnvironment:
    """An environment with actions `[E * A]` of E steps, as `jdp.tasks.simulators.chunked`."""

    def __init__(self, env: Environment, execute: int):
        self.env, self.execute = env, execute

    @property
    def max_episode_steps(self) -> int | None:
        """In chunks, whole ones."""
        limit = self.env.max_episode_steps
        return None if limit is None else limit // self.execute

    def reset(self, seed: int, **place: Any) -> tuple[np.ndarray, np.ndarray]:
        """As of the environment."""
        self.chunks = 0
        return self.env.reset(seed, **place)

    def step(self, action: np.ndarray) -> tuple[np.ndarray, np.ndarray, float, bool, bool, bool]:
        """Steps until the chunk or the episode ends; rewards are summed, and a success at any step is one."""
        self.chunks += 1
        total, ever = 0.0, False
        for one in np.reshape(action, (self.execute, -1)):
            observation, goal, reward, terminated, truncated, success = self.env.step(one)
            total, ever = total + float(reward), ever or success
            if terminated or truncated:
                break
        late = self.chunks == self.max_episode_steps
        return observation, goal, total, terminated, truncated or late, ever

    def close(self) -> None:
        """Frees what it holds."""
        self.env.close()


def acted(
    policy: Policy,
    key: Array,
    step: Array,
    states: PyTree,
    carry: PyTree,
    ended: Array,
    observation: Array,
    goal: Array,
) -> tuple[PyTree, Any]:
    """`(carry, decisions)` of S seeds `[S, N, ...]`; where an episode `ended` memory begins anew.

    `step` is folded into the key, inside the program: outside it, that takes longer than all else here.
    """

    def one(key: Array, state: PyTree, carry: PyTree, ended: Array, observation: Array, goal: Array) -> Any:
        if jax.tree.leaves(carry):
            carry = renewed(ended, policy.init(observation), carry)
        return policy.act(key, state, carry, observation, goal)

    keys = jax.random.split(jax.random.fold_in(key, step), observation.shape[0])
    return jax.vmap(one)(keys, states, carry, ended, observation, goal)
