"""Settings that depend on the dataset or on the length of training, filled in before a method is made."""

import dataclasses
from collections.abc import Collection
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike

from jdp.data import Episodes
from jdp.data.names import locomotion_reference
from jdp.errors import UserError

ROUNDING = 1e-6  # returns whose range is a smaller share of their size are equal but for rounding


class Fit(Protocol):
    """The option `fit` of a registered method."""

    def __call__(self, config: Any, episodes: Episodes, updates: int, given: Collection[str] = ()) -> Any:
        """`config` completed for training of `updates` updates on `episodes`.

        Settings that the user has `given`, by name ("steps", "model.steps"), stay as they are.
        """
        ...


def over_updates(settings: Any, updates: int, given: Collection[str] = (), prefix: str = "") -> Any:
    """`settings` whose learning rates fall over `updates`: every nested config with `steps` is told so."""
    changes: dict[str, Any] = {}
    for field in dataclasses.fields(settings):
        value, name = getattr(settings, field.name), prefix + field.name
        if field.name == "steps" and hasattr(settings, "learning_rate") and name not in given:
            changes["steps"] = updates
        elif dataclasses.is_dataclass(value) and not isinstance(value, type):
            changes[field.name] = over_updates(value, updates, given, f"{name}.")
    return dataclasses.replace(settings, **changes)


def reward_scale(returns: ArrayLike) -> float:
    """`1000 / (max - min)` of the dataset's episode returns `[E]`: the scale of IQL's authors for locomotion.

    Raises:
        UserError: if all returns are equal but for rounding, so that they say nothing about a scale.
    """
    returns = np.asarray(returns, np.float64)
    spread, size = (float(np.ptp(returns)), float(np.abs(returns).max())) if returns.size else (0.0, 0.0)
    if not spread > ROUNDING * size:
        raise UserError("all episode returns of the dataset are equal: set reward_scale yourself")
    return 1000.0 / spread


def scaled_rewards(config: Any, episodes: Episodes, updates: int = 0, given: Collection[str] = ()) -> Any:
    """A `Fit`: `reward_scale` of the dataset's returns where the task is locomotion, as IQL's authors do."""
    del updates
    if "reward_scale" in given or locomotion_reference(episodes.spec.env_id) is None:
        return config
    return dataclasses.replace(config, reward_scale=reward_scale(episodes.returns))


def falling_rates(config: Any, episodes: Episodes, updates: int, given: Collection[str] = ()) -> Any:
    """A `Fit`: learning rates fall over the updates that there are."""
    del episodes
    return over_updates(config, updates, given)


def falling_rates_and_scaled_rewards(
    config: Any, episodes: Episodes, updates: int, given: Collection[str] = ()
) -> Any:
    """A `Fit`: both."""
    return scaled_rewards(over_updates(config, updates, given), episodes, updates, given)
