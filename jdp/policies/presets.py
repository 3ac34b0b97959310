"""Budgets that the policies share: a minute for the plumbing, minutes on two cores, the papers' sizes."""

import dataclasses
from typing import Any

from jdp.registry import Preset, Task

# Learning rates of the papers fall over a million updates; a few thousand need larger ones.
QUICK_RATE = 1e-3


def presets_of(settings: Any, task: Task, **smoke: Any) -> dict[str, Preset]:
    """The presets of a policy whose authors' `settings` for the dataset are given.

    Args:
        smoke: what is smaller for the plumbing, beside the width.
    """
    goals = task.maze is not None
    small = dataclasses.replace(settings, learning_rate=QUICK_RATE)
    if hasattr(settings, "candidates"):
        small = dataclasses.replace(small, candidates=min(16, settings.candidates))
    if hasattr(settings, "hidden"):
        small, tiny = (dataclasses.replace(small, hidden=h) for h in ((256, 256, 256), (64, 64)))
    else:
        small, tiny = (dataclasses.replace(small, features=f) for f in (256, 64))
    tiny = dataclasses.replace(tiny, **smoke)
    return {
        "smoke": Preset(tiny, updates=100, batch_size=64, episodes=2),
        "cpu": Preset(small, updates=1_000 if goals else 2_000, batch_size=256, episodes=20 if goals else 5),
        "paper": Preset(settings, updates=1_000_000, batch_size=256, seeds=5, episodes=100 if goals else 10),
    }
