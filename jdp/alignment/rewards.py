"""Rewards of samples in the units of the task: built-in ones, a critic's, a user's, and their check.

A reward of plans is `(observations [B, T, O], actions [B, T, A], goal [B, G]) -> [B]`, one of chunks of
actions `(observation [B, O], actions [B, E, A], goal [B, G]) -> [B]`; of samples without a task
`(samples [B, D], condition [B, C]) -> [B]`. The built-in ones are frozen dataclasses, so equal settings are
equal functions, and differentiable almost everywhere, so each is a cost for guidance too.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.tree_util import Partial

from jdp.alignment.models import Model, Reward
from jdp.errors import UserError, check_settings
from jdp.registry import named
from jdp.types import Params, bind

CHECKED = 8  # samples of a first draw


@dataclass(frozen=True)
class Avoid:
    """Of plans: away from a disc. Minus how deep the deepest row lies in it: 0 outside, -1 at its centre."""

    centre: tuple[float, float] = (0.0, 0.0)
    """Of the disc, in the units of the task."""
    radius: float = 0.5
    """Of the disc."""
    entries: tuple[int, int] = (0, 1)
    """Of observations, that say where a row is."""

    def __post_init__(self) -> None:
        check_settings("avoid", radius=(self.radius, 1e-9, np.inf))

    def __call__(self, observation: Array, action: Array, goal: Array) -> Array:
        """`[B]`, within [-1, 0]."""
        del action, goal
        away = _entries("avoid", observation, self.entries) - jnp.array(self.centre)[None, None]
        distance = jnp.sqrt(jnp.sum(jnp.square(away), axis=-1) + 1e-12)
        return -jnp.max(jnp.maximum(1 - distance / self.radius, 0.0), axis=1)


@dataclass(frozen=True)
class Arrive:
    """Of plans: slowly, at the end. Minus the mean speed over the last rows."""

    velocity: tuple[int, ...] = (2, 3)
    """Entries of observations, the velocity."""
    rows: int = 4
    """The last ones of a plan, that count."""

    def __post_init__(self) -> None:
        check_settings("arrive", rows=(self.rows, 1, np.inf))

    def __call__(self, observation: Array, action: Array, goal: Array) -> Array:
        """`[B]`."""
        del action, goal
        speed = _entries("arrive", observation, self.velocity)[:, -self.rows :]
        return -jnp.mean(jnp.sqrt(jnp.sum(jnp.square(speed), axis=-1) + 1e-12), axis=1)


@dataclass(frozen=True)
class Steady:
    """Of plans: an even pace. Minus the variance of one entry of the observations over the rows."""

    entry: int = 5
    """Of observations; 5 is the speed of hopper's torso, 8 that of walker2d and halfcheetah."""

    def __call__(self, observation: Array, action: Array, goal: Array) -> Array:
        """`[B]`."""
        del action, goal
        return -jnp.var(_entries("steady", observation, (self.entry,))[..., 0], axis=1)


@dataclass(frozen=True)
class Gentle:
    """Of chunks, and of plans with actions: small actions. Minus their mean square."""

    def __call__(self, observation: Array, action: Array, goal: Array) -> Array:
        """`[B]`, within [-1, 0]."""
        del observation, goal
        if not action.shape[1]:
            raise UserError("--reward gentle judges actions, and these plans hold states alone")
        return -jnp.mean(jnp.square(action), axis=(1, 2))


def _entries(name: str, observation: Array, entries: tuple[int, ...]) -> Array:
    """`[B, T, n]`, these entries of planned observations.

    Raises:
        UserError: if there are none of these, or no plans.
    """
    if observation.ndim != 3:
        raise UserError(f"--reward {name} judges plans, and a policy draws actions: choose gentle or critic")
    if not all(0 <= i < observation.shape[-1] for i in entries):
        raise UserError(
            f"--reward {name}: observations have no entries {entries}, but {observation.shape[-1]}"
        )
    return observation[..., jnp.array(entries)]


BUILT_IN: dict[str, Callable[..., Array]] = {
    "avoid": Avoid(),
    "arrive": Arrive(),
    "steady": Steady(),
    "gentle": Gentle(),
}
CriticOf = Callable[[Array, Array], Array]  # (observation [B, O], action [B, A]) -> [B], a pytree


def valued(critic: CriticOf) -> Partial:
    """The reward of a critic of single steps: of a chunk its first one, of a plan the mean over its rows."""
    return bind(_valued, critic)


def _valued(critic: CriticOf, observation: Array, action: Array, goal: Array) -> Array:
    del goal
    if observation.ndim == 2:
        return critic(observation, action[:, 0])
    if action.shape[1] != observation.shape[1]:
        raise UserError("--reward critic judges actions, and these plans hold states alone")
    rows = observation.shape[:2]
    flat = (x.reshape(-1, x.shape[-1]) for x in (observation, action))
    return jnp.mean(critic(*flat).reshape(rows), axis=1)


def loaded(source: str) -> Reward:
    """A user's reward, `module:function` or `file.py:function`.

    Raises:
        UserError: if it cannot be imported, or is no function.
    """
    if ":" not in source:
        known = ", ".join((*BUILT_IN, "critic"))
        raise UserError(f"--reward {source}: choose one of {known}, or give file.py:function")
    found = named(source, "--reward")
    if not callable(found):
        raise UserError(f"--reward {source} is no function: give one of what is judged")
    return cast(Reward, found)


def check_reward(key: Array, model: Model, params: Params, judge: Partial, condition: Array) -> None:
    """Judges a first draw of the model; the key is consumed.

    Raises:
        UserError: if the reward cannot be computed under `jit`, is not `[B]`, or is not finite.
    """
    seen = condition[jnp.arange(CHECKED) % len(condition)]
    x0 = model.sample(key, params, seen)
    try:
        found = np.asarray(jax.jit(lambda judge, *rows: judge(*rows))(judge, x0, seen))
    except UserError:
        raise
    except Exception as error:  # whatever a user's function does wrong
        raise UserError(
            f"the reward cannot be computed ({_line(error)}): give a function of jax arrays"
        ) from error
    if found.shape != (CHECKED,):
        raise UserError(
            f"the reward of {CHECKED} samples has the shape {found.shape}: give one number a sample"
        )
    if not np.isfinite(found).all():
        bad = found[~np.isfinite(found)]
        raise UserError(f"the reward is not finite: {bad[0]} on {len(bad)} of {CHECKED} first samples")


def _line(error: Exception) -> str:
    line = str(error).splitlines()[0] if str(error) else ""
    return f"{type(error).__name__}: {line}"[:200]
