"""Budgets that online agents share: smaller networks and larger steps for toys, the papers' for bodies."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from jdp.registry import Preset, Task

TOYS = ("Pendulum-v1", "jdp/DoubleIntegrator-v0")


def off_policy_presets(settings: Any, task: Task, rates: tuple[str, ...]) -> Mapping[str, Preset]:
    """The presets of an agent with a buffer whose authors' `settings` are given.

    Updates are steps of all environments.

    Args:
        rates: names of its learning rates.
    """
    brief = replace(settings.acting, capacity=100_000, warm_up=1_000)
    small, updates = replace(settings, acting=brief), 30_000
    if task.dataset in TOYS:
        brief, updates = replace(brief, capacity=20_000, warm_up=500, batch_size=128), 8_000
        faster = dict.fromkeys(rates, 1e-3)
        small = replace(settings, acting=brief, hidden=(64, 64), tau=0.01, **faster)
    least = replace(brief, capacity=2_000, warm_up=200, batch_size=32)
    tiny = replace(small, hidden=(32, 32), acting=least)
    return {
        "smoke": Preset(tiny, updates=200, batch_size=0, seeds=2),
        "cpu": Preset(small, updates=updates, batch_size=0, seeds=3),
        "paper": Preset(settings, updates=1_000_000, batch_size=0, seeds=5),
    }
