"""A `Task` as an environment of Gymnasium's, on the host; importing this registers those of jdp."""

from functools import lru_cache
from typing import Any, NamedTuple

import gymnasium as gym
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jdp.tasks import simulators
from jdp.types import PyTree, Task, named_keys


class _Programs(NamedTuple):
    """Compiled once for a task, whose environments share them."""

    reset: Any  # seed -> (carry, observation [O], goal [G])
    step: Any  # (carry, action [A]) -> (carry, [O + 3]: observation, reward, terminal, success)


@lru_cache(maxsize=64)
def _programs(task: Task) -> _Programs:
    def reset(seed: Array) -> tuple[PyTree, Array, Array]:
        keys = named_keys(jax.random.key(seed), "reset", "steps")
        state, observation, goal = task.reset(keys["reset"])
        return (keys["steps"], state), observation, goal

    def step(carry: PyTree, action: Array) -> tuple[PyTree, Array]:
        steps, state = carry
        keys = named_keys(steps, "step", "later")
        state, found = task.step(keys["step"], state, jnp.clip(action, -1.0, 1.0))
        flags = jnp.stack([found.terminal, found.success]).astype(jnp.float32)
        # All in one array: to bring an array to the host takes longer than a step.
        return (keys["later"], state), jnp.concatenate([found.observation, found.reward[None], flags])

    return _Programs(jax.jit(reset), jax.jit(step))


class TaskEnv(gym.Env):
    """One environment of a task in JAX, given itself or by its name.

    An episode depends on its seed and actions alone. `info` holds `goal` `[G]` and `success`. The time limit
    is Gymnasium's to count.
    """

    def __init__(self, task: Task | str):
        self.task = simulators.simulator(task) if isinstance(task, str) else task
        width, actions = self.task.spec.observation_dim, self.task.spec.action_dim
        self.observation_space = gym.spaces.Box(-np.inf, np.inf, (width,), np.float32)
        self.action_space = gym.spaces.Box(-1.0, 1.0, (actions,), np.float32)
        # Also beside an accelerator, which one step is too small for.
        self._host = jax.local_devices(backend="cpu")[0]

    def reset(self, *, seed: int | None = None, options: dict | None = None):
        """`(observation [O], info)`; without a seed it goes on with Gymnasium's generator."""
        super().reset(seed=seed)
        drawn = int(self.np_random.integers(1 << 32)) if seed is None else seed
        begun = _programs(self.task).reset(jax.device_put(np.uint32(drawn), self._host))
        self._carry, observation, self._goal = begun[0], np.asarray(begun[1]), np.asarray(begun[2])
        return observation, {"goal": self._goal, "success": False}

    def step(self, action: np.ndarray):
        """`(observation [O], reward, terminated, truncated, info)`; actions are clipped to [-1, 1]."""
        self._carry, told = _programs(self.task).step(self._carry, np.asarray(action, np.float32))
        found = np.asarray(told)
        reward, terminal, success = found[-3:].tolist()
        return found[:-3], reward, terminal > 0, False, {"goal": self._goal, "success": success > 0}


for _name in simulators.names():
    if _name.startswith("jdp/"):
        gym.register(
            _name,
            "jdp.tasks.task_env:TaskEnv",
            max_episode_steps=simulators.simulator(_name).spec.max_episode_steps,
            disable_env_checker=True,
            kwargs={"task": _name},
        )
