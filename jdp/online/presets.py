"""Budgets that agents with a buffer share."""

import dataclasses
from typing import Any

from jdp.registry import Preset


def off_policy_presets(settings: Any) -> dict[str, Preset]:
    """The presets of an agent whose authors' `settings` are given; updates are steps of all environments."""
    brief = dataclasses.replace(settings.acting, capacity=100_000, warm_up=1_000)
    small = dataclasses.replace(settings, acting=brief)
    least = dataclasses.replace(brief, capacity=2_000, warm_up=200, batch_size=32)
    tiny = dataclasses.replace(settings, hidden=(32, 32), acting=least)
    return {
        "smoke": Preset(tiny, updates=200, batch_size=0, seeds=2, episodes=2),
        "cpu": Preset(small, updates=30_000, batch_size=0, seeds=3, episodes=20),
        "paper": Preset(settings, updates=1_000_000, batch_size=0, seeds=5, episodes=20),
    }
