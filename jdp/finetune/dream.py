"""A trained world model as a task: policies learn in it without one step of the environment.

Episodes begin at rows of the dataset and end after a horizon. Rewards are less where the members of an
ensemble disagree, as MOPO's are where it is uncertain (Yu et al. 2020, arXiv 2005.13239), so that a policy
gains nothing from what the model does not know.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jdp.agents.pessimism import disagreement
from jdp.errors import UserError, check_settings
from jdp.tasks.simulators import chunked
from jdp.types import AnyArray, Bound, PyTree, Spec, Stepped, Task, WorldModel, bind
from jdp.world_models.rollout import without_learner


@dataclass(frozen=True)
class DreamConfig:
    """Episodes in a world model."""

    horizon: int = 32
    """Steps of an episode, whatever the task's own limit is."""
    penalty: float = 1.0
    """Reward lost for a unit of disagreement, which is the spread of what a step changes in the dataset."""

    def __post_init__(self) -> None:
        check_settings(
            type(self).__name__, horizon=(self.horizon, 1, 1_000_000), penalty=(self.penalty, 0, 1e9)
        )


class World(NamedTuple):
    """The arrays that a dream is made of: arguments of the programs that run in it, never part of them."""

    model: PyTree  # the state of the world model
    observations: AnyArray  # [W, H, O], histories that episodes begin with
    actions: AnyArray  # [W, H - 1, A], between these observations
    spread: AnyArray  # [O + 1], standard deviations of a step's change of the observation, and of its reward
    rewards: AnyArray  # [2], least and largest of the dataset


class Dream(NamedTuple):
    """What loops take in the place of a `Task`."""

    make: Callable[[World], Task]  # hashable; equal dreams compile once
    world: World


def spread_of(observations: AnyArray, next_observations: AnyArray, rewards: AnyArray) -> AnyArray:
    """`[O + 1]`, the units that disagreement is counted in; what never changes has the unit 1."""
    found = np.append(np.std(next_observations - observations, axis=0), np.std(rewards)).astype(np.float32)
    return np.where(found > 1e-6, found, np.float32(1))


def check_goalless(spec: Spec) -> None:
    """Raises `UserError` where the task `spec` has goals, of which rewards of a model know nothing."""
    if spec.goal:
        raise UserError(f"{spec.env_id} has goals, of which a world model's rewards know nothing: no dreams")


def check_dream(model: WorldModel, config: DreamConfig, spec: Spec, execute: int = 1) -> None:
    """Whether a policy that decides on `execute` actions at once can dream of the task `spec` in `model`.

    Raises:
        UserError: if the task has goals, if the horizon has no room for one decision, or if there is a
            penalty but no member to disagree.
    """
    check_goalless(spec)
    if config.horizon < execute:
        raise UserError(
            f"dreams of {config.horizon} steps end before the policy's {execute} actions are executed: "
            f"give --settings.dream.horizon {execute} or more"
        )
    if config.penalty and model.predict is None:
        raise UserError(
            "this world model has no members that could disagree: give --settings.dream.penalty 0, "
            "or --world-model ensemble"
        )


def dream(model: WorldModel, world: World, config: DreamConfig, spec: Spec, *, execute: int = 1) -> Dream:
    """Episodes of `config.horizon` steps in `model`, for policies that decide on `execute` actions at once.

    Args:
        spec: of the task that `model` has learned.

    Raises:
        UserError: see `check_dream`.
    """
    check_dream(model, config, spec, execute)
    inside = replace(spec, env_id=f"a dream of {spec.env_id}", max_episode_steps=config.horizon)
    settings = {"model": without_learner(model), "config": config, "spec": inside, "execute": execute}
    return Dream(Bound(dreamt, tuple(sorted(settings.items()))), world)


def dreamt(world: World, *, model: WorldModel, config: DreamConfig, spec: Spec, execute: int) -> Task:
    """The task, of functions whose leaves are the arrays of `world`."""
    step = bind(_step, world, model=model, penalty=config.penalty)
    task = Task(bind(_reset, world, model=model), step, spec)
    return task if execute == 1 else chunked(task, execute)


def _reset(world: World, key: Array, *, model: WorldModel) -> tuple[tuple[PyTree, Array], Array, Array]:
    """A history of the dataset, drawn uniformly."""
    row = jax.random.randint(key, (1,), 0, len(world.observations))
    observations, actions = jnp.asarray(world.observations)[row], jnp.asarray(world.actions)[row]
    seen = observations[0, -1]
    return (model.start(observations, actions), seen), seen, jnp.zeros(0)


def _step(
    world: World,
    key: Array,
    state: tuple[PyTree, Array],
    action: Array,
    *,
    model: WorldModel,
    penalty: float,
) -> tuple[tuple[PyTree, Array], Stepped]:
    """The model's step. Rewards beyond those of the dataset are cut to them before they are penalised.

    Where the model says what is not finite the episode is over, with the least reward, where it stood.
    """
    carry, before = state
    carry, following, reward, terminal = model.step(key, world.model, carry, action[None])
    reward = jnp.clip(reward, world.rewards[0], world.rewards[1])
    if penalty:
        reward = reward - penalty * doubt(world, before[None], action[None], model=model)
    fails = ~(jnp.isfinite(following).all() & jnp.isfinite(reward[0]))
    following = jnp.where(fails, before, following[0])
    reward = jnp.where(fails, world.rewards[0], reward[0])
    return (carry, following), Stepped(following, reward, fails | (terminal[0] > 0), jnp.zeros((), bool))


def doubt(world: World, observation: Array, action: Array, *, model: WorldModel) -> Array:
    """`[B]`, the largest distance between members' next observations and rewards, in units of `spread`.

    At observations `[B, O]` and actions `[B, A]`.
    """
    assert model.predict is not None  # `dream` has asked
    mean = model.predict(world.model, observation, action).mean
    return disagreement(mean / jnp.asarray(world.spread)[None, None])
