"""The one loop that plays: any policy, in environments on the host, all episodes as one batch.

Policies that decide at every step may be played for all seeds at once (`seeds`). Planners and policies that
follow a plan or a chunk are played one seed after another (`jdp.loops.evaluation.play_in_turn`): they draw
under a `lax.cond`, of which both branches would run at every step under the `vmap` over seeds.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple, Protocol

import numpy as np
from jax import Array
from jax.sharding import Mesh
from numpy.typing import ArrayLike

from jdp.devices.mesh import padded, replicate
from jdp.errors import UserError
from jdp.loops.controller import Controller, begin, controller
from jdp.types import Decision, Policy, PyTree


class Environment(Protocol):
    """One environment on the host (`jdp.evaluation.GoalEnv`). Tasks without goals have goals `[0]`."""

    @property
    def max_episode_steps(self) -> int | None:
        """The time limit, or None."""
        ...

    def reset(
        self, seed: int, *, start: ArrayLike | None = None, goal: ArrayLike | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """`(observation [O], goal [G])` of a new episode; `start` and `goal` are given in mazes alone."""
        ...

    def step(self, action: np.ndarray) -> tuple[np.ndarray, np.ndarray, float, bool, bool, bool]:
        """`(observation [O], goal [G], reward, terminated, truncated, success)` after `action` `[A]`.

        The environment maps actions into the task's box and clips them there.
        """
        ...

    def close(self) -> None:
        """Frees what it holds."""
        ...


Make = Callable[[], Environment]


class Watch(Protocol):
    """Sees every step of a play."""

    def __call__(
        self, step: int, decision: Decision, observation: np.ndarray, running: np.ndarray, /
    ) -> None:
        """What was decided at `observation` `[..., n, O]`, where `running` `[..., n]` still plays.

        Over a mesh the rows of `decision` are followed by copies of the last one.
        """
        ...


class Played(NamedTuple):
    """The episodes of one policy `[n]`, or of S seeds of it `[S, n]`, stepped together."""

    returns: np.ndarray  # [..., n] float64, undiscounted sums of rewards
    lengths: np.ndarray  # [..., n], steps
    terminated: np.ndarray  # [..., n] bool, False where the time limit ended the episode
    success: np.ndarray  # [..., n] bool, whether the task said so at any step; False without goals
    goal: np.ndarray  # [..., n, G], of the beginning
    decided: np.ndarray  # [T, ..., n] bool, at which steps the policy drew anew; False after the end
    observation: np.ndarray | None  # [T + 1, ..., n, O], what was seen; an episode's last row is repeated
    action: np.ndarray | None = None  # [T, ..., n, A], what was done, likewise; with `observation`


def play(
    policy: Policy,
    key: Array,
    state: PyTree,
    make: Make,
    *,
    episodes: int,
    seeds: int | None = None,
    seed: int = 0,
    place: Mapping[str, tuple[float, float]] | None = None,
    progress: Callable[[int, int], None] | None = None,
    watch: Watch | None = None,
    observations: bool = False,
    mesh: Mesh | None = None,
) -> Played:
    """Plays `episodes` = n episodes at once; equal seeds and keys give equal bits.

    Each environment plays one episode and is never stepped after its end; its last observation stays in the
    batch, whose shape never changes. (Gymnasium's vector environments would restart and simulate the finished
    ones until the slowest is done.)

    Over a `mesh` decisions are split over its devices, whatever the number of episodes: the batch is filled
    up with copies of its last row. The environments are stepped on the host, one after another.

    Args:
        key: of the policy's own randomness; consumed.
        state: of one policy; with `seeds` = S of S policies, stacked `[S, ...]`, which play n episodes each.
        make: makes one environment (`jdp.evaluation.environment_maker`).
        seed: of the initial states and goals; every environment has its own, and those of the first policies
            do not depend on how many there are.
        place: `start` and `goal` of every episode in a maze, instead of those drawn.
        progress: called after every step with (steps so far, episodes finished so far).
        watch: called at every step, after the policy has decided and before the environments are stepped.
        observations: whether all that was seen and done is returned.

    Raises:
        UserError: if a task has no time limit, or a place is in a wall or outside the maze.
    """
    envs: list[Environment] = []
    try:
        for _ in range(episodes * (seeds or 1)):
            envs.append(make())
            if envs[-1].max_episode_steps is None:
                raise UserError("the task has no time limit: give max_episode_steps")
        found = _Batch(envs, seeds, seed, place or {}, observations)
        actor = controller(policy, mesh, seeds is not None)
        _play(actor, key, replicate(state, mesh), found, progress, watch, mesh)
        return found.played()
    finally:
        for env in envs:
            env.close()


class _Batch:
    """Environments that are stepped together, as arrays on the host `[N, ...]`, N = S n."""

    def __init__(
        self,
        envs: list[Environment],
        seeds: int | None,
        seed: int,
        place: Mapping[str, tuple[float, float]],
        observations: bool,
    ):
        count = len(envs)
        self.envs, self.lead = envs, (count,) if seeds is None else (seeds, count // seeds)
        starts = np.random.SeedSequence(seed).generate_state(count).tolist()
        began = [env.reset(s, **place) for env, s in zip(envs, starts, strict=True)]
        self.observation, self.goal = (np.stack(x).astype(np.float32) for x in zip(*began, strict=True))
        self.first_goal = self.goal.copy()
        self.returns, self.lengths = np.zeros(count), np.zeros(count, np.int64)
        self.running, self.terminated, self.success = (np.full(count, x) for x in (True, False, False))
        self.decided: list[np.ndarray] = []
        self.seen = [self.observation.copy()] if observations else None
        self.done: list[np.ndarray] = []

    def shown(self) -> tuple[np.ndarray, np.ndarray]:
        """`(observations, goals)` `[..., n, *]`."""
        return self.shaped(self.observation), self.shaped(self.goal)

    def shaped(self, x: np.ndarray) -> np.ndarray:
        """`[N, ...]` with the axes of the batch."""
        return x.reshape(*self.lead, *x.shape[1:])

    def flat(self, x: Array) -> np.ndarray:
        """The first rows of `[..., n', *]`, those of environments, as `[N, *]`."""
        axis, rows = len(self.lead) - 1, self.lead[-1]
        found = np.asarray(x)
        found = found[:, :rows] if axis else found[:rows]
        return found.reshape(len(self.envs), *found.shape[axis + 1 :])

    def step(self, actions: np.ndarray, decided: np.ndarray) -> None:
        """Steps the environments that still play."""
        began = self.running.copy()
        self.decided.append(decided & began)
        self.observation, self.goal = self.observation.copy(), self.goal.copy()
        for i in np.flatnonzero(self.running):
            found = self.envs[i].step(actions[i])
            self.observation[i], self.goal[i], reward, self.terminated[i], truncated, reached = found
            self.returns[i] += float(reward)
            self.lengths[i] += 1
            self.success[i] |= reached
            self.running[i] = not (self.terminated[i] or truncated)
        if self.seen is not None:
            self.seen.append(self.observation.copy())
            playing = began.reshape(-1, *(1,) * (actions.ndim - 1))
            self.done.append(np.where(playing, actions, self.done[-1]) if self.done else actions)

    def played(self) -> Played:
        """All episodes."""
        return Played(
            returns=self.shaped(self.returns),
            lengths=self.shaped(self.lengths),
            terminated=self.shaped(self.terminated),
            success=self.shaped(self.success),
            goal=self.shaped(self.first_goal),
            decided=np.stack([self.shaped(x) for x in self.decided]),
            observation=None if self.seen is None else np.stack([self.shaped(x) for x in self.seen]),
            action=np.stack([self.shaped(x) for x in self.done]) if self.done else None,
        )


def _play(
    actor: Controller,
    key: Array,
    state: PyTree,
    batch: _Batch,
    progress: Callable[[int, int], None] | None,
    watch: Watch | None,
    mesh: Mesh | None,
) -> None:
    axis, step = len(batch.lead) - 1, 0
    carry = begin(actor, padded(batch.shown()[0], mesh, axis))
    while batch.running.any():
        shown = padded(batch.shown(), mesh, axis)
        carry, decision = actor.act(key, step, state, carry, *shown)
        if watch is not None:
            watch(step, decision, batch.shown()[0], batch.shaped(batch.running))
        batch.step(batch.flat(decision.action), batch.flat(decision.decided))
        step += 1
        if progress is not None:
            progress(step, int(len(batch.envs) - batch.running.sum()))
