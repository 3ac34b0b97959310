"""A MuJoCo task that can be set to any observation."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from jdp.errors import UserError
from jdp.tasks.environments import Task, make_env
from jdp.types import Spec

CHECK_STEPS = 20
CHECK_TOLERANCE = 1e-6
NEAR_LIMIT = 0.99  # a velocity beyond this share of the limit shown may have been clipped to it


class Simulator:
    """Sets the task `env_id`, or that of a dataset's `Spec`, to an observation and steps it with an action.

    For tasks whose observation begins `[qpos[k:], qvel]`: Hopper, HalfCheetah, Walker2d, Swimmer, Ant
    and others, v4 and v5. The k coordinates that it hides are where the root stands in the world, on
    which neither dynamics nor rewards depend: they are set to 0. Whether a task is of this kind is not
    believed but tried: a short real rollout must be reproduced from its observations alone.

    Two things an observation does not tell, so print the error of real data beside that of generated:
    - Hopper and Walker2d clip the velocities they show to [-10, 10]; from a state with a clipped
      velocity the step differs from the real one. `determined` says which states have none.
    - Ant and Humanoid measure their speed with body positions that lag one substep behind, so their
      rewards differ by up to 5e-2 (and 1e-3) from those of an uninterrupted episode.

    Raises:
        UserError: if there is no such task or its observation does not determine its state.
    """

    def __init__(self, env_id: Task, *, render_mode: str | None = None):
        self._spec = env_id if isinstance(env_id, Spec) else Spec(0, 0, env_id)
        self.env_id = env_id = str(self._spec.env_id)
        made = make_env(self._spec, render_mode=render_mode)
        self._env: Any = made.unwrapped  # without wrappers: they cost half of the time
        if not hasattr(self._env, "set_state") or not hasattr(self._env, "model"):
            raise UserError(f"{env_id} is not a MuJoCo task: it cannot be set to an observation")
        self._nq, self._nv = self._env.model.nq, self._env.model.nv
        self.observation_dim = int(np.prod(self._env.observation_space.shape or (0,)))
        self._hidden = self._hidden_coordinates()
        self._action_low, self._action_high = self._env.action_space.low, self._env.action_space.high
        if self._hidden is None or not self._reproduces():
            raise UserError(f"the observation of {env_id} does not determine its MuJoCo state")
        self._shown = self._shown_velocity()

    def _hidden_coordinates(self) -> int | None:
        """How many leading entries of qpos the observation leaves out; None if it is of another kind."""
        structure = getattr(self._env, "observation_structure", None)  # v5 tasks tell
        hidden = structure.get("skipped_qpos", 0) if structure else self._nq + self._nv - self.observation_dim
        return hidden if 0 <= hidden <= self._nq else None

    def _reproduces(self) -> bool:
        """Whether steps from observations alone equal those of a real rollout.

        Of small actions: Hopper and Walker2d hide velocities beyond 10.
        """
        rng = np.random.default_rng(0)
        observation, _ = self._env.reset(seed=0)
        real = []
        for _ in range(CHECK_STEPS):
            action = 0.1 * rng.uniform(self._action_low, self._action_high)
            following, *_ = self._env.step(action)
            real.append((observation, self._spec.unit_actions(action), following))
            observation = following
        observations, actions, following = (np.stack(x) for x in zip(*real, strict=True))
        again, _, _ = self.steps(observations, actions)
        return bool(np.allclose(again, following, rtol=0, atol=CHECK_TOLERANCE))

    def _shown_velocity(self) -> float:
        """The largest velocity that an observation shows."""
        qpos = self._env.data.qpos.copy()
        self._env.set_state(qpos, np.full(self._nv, 1e3))
        start = self._nq - (self._hidden or 0)
        shown = float(np.max(self._env.unwrapped._get_obs()[start : start + self._nv]))
        self._env.reset(seed=0)
        return shown if shown < 1e3 else np.inf

    def determined(self, observations: ArrayLike) -> np.ndarray:
        """`[...]` bool: whether observations `[..., O]` show all velocities, none being (nearly) clipped.

        A velocity well beyond the limit is none that the task shows, and so none that it clipped.
        """
        start = self._nq - (self._hidden or 0)
        velocities = np.asarray(observations)[..., start : start + self._nv]
        speed = np.abs(velocities) / self._shown
        return np.asarray(((speed < NEAR_LIMIT) | (speed > 2 - NEAR_LIMIT)).all(axis=-1))

    def _place(self, observation: np.ndarray) -> None:
        qpos = np.zeros(self._nq)
        split = self._nq - (self._hidden or 0)
        qpos[self._nq - split :] = observation[:split]
        self._env.set_state(qpos, observation[split : split + self._nv])

    def frame(self, observation: np.ndarray) -> np.ndarray:
        """`[H, W, 3]` picture of the state `observation` `[O]`; needs `render_mode="rgb_array"`."""
        self._place(observation)
        return np.asarray(self._env.render())

    def step(self, observation: np.ndarray, action: np.ndarray) -> tuple[np.ndarray, float, bool]:
        """`(next observation [O], reward, terminated)` after `action` `[A]` in `observation` `[O]`."""
        self._place(observation)
        action = np.clip(self._spec.task_actions(action), self._action_low, self._action_high)
        following, reward, terminated, _, _ = self._env.step(action)
        return following, float(reward), bool(terminated)

    def steps(self, observations: ArrayLike, actions: ArrayLike) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """`(next observations [M, O], rewards [M], terminated [M])` of M separate steps.

        From an observation or action that is not finite, what follows is NaN.
        """
        observations, actions = np.asarray(observations, np.float64), np.asarray(actions, np.float64)
        count = len(observations)
        following = np.full((count, self.observation_dim), np.nan)
        rewards, terminated = np.full(count, np.nan), np.zeros(count, bool)
        finite = np.isfinite(observations).all(axis=1) & np.isfinite(actions).all(axis=1)
        for i in np.flatnonzero(finite):
            following[i], rewards[i], terminated[i] = self.step(observations[i], actions[i])
        return following, rewards, terminated

    def close(self) -> None:
        self._env.close()


def supports(env_id: Task, spec: Spec) -> bool:
    """Whether `Simulator(env_id)` exists and its observations have the dataset's size."""
    if env_id is None or (isinstance(env_id, Spec) and env_id.env_id is None):
        return False
    try:
        simulator = Simulator(env_id)
    except UserError:
        return False
    simulator.close()
    return simulator.observation_dim == spec.observation_dim
