"""Budgets that the agents share: a minute for the plumbing, minutes on two cores, the papers' own."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from jdp.registry import Preset


def presets_of(
    settings: Any,
    *,
    smaller: Mapping[str, Any] | None = None,
    updates: int = 1_000_000,
    batch_size: int = 256,
) -> dict[str, Preset]:
    """The presets of an agent whose authors' `settings` are given.

    Args:
        smaller: what changes on two cores: two hidden layers, fewer samples, as many critics as fit.
        updates: of the paper, as are `batch_size` rows in a minibatch.
    """
    small = dataclasses.replace(settings, **(smaller or {}))
    tiny = dataclasses.replace(small, hidden=(64, 64))
    if hasattr(tiny, "rollouts"):
        rollouts = dataclasses.replace(tiny.rollouts, batch=500, every=200, capacity=5_000)
        tiny = dataclasses.replace(tiny, rollouts=rollouts)
    return {
        "smoke": Preset(tiny, updates=400, batch_size=256, seeds=2, episodes=2),
        "cpu": Preset(small, updates=10_000, batch_size=256, seeds=3, episodes=10),
        "paper": Preset(settings, updates=updates, batch_size=batch_size, seeds=5, episodes=10),
    }
