"""What the presets of planners share: networks, samplers, and the sizes of smoke, cpu and paper runs."""

import dataclasses
from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

from jdp.learning.inverse import InverseConfig
from jdp.learning.plan_critics import CriticConfig
from jdp.learning.plan_models import ModelConfig
from jdp.networks import NetworkConfig, ValueNetworkConfig
from jdp.planners.trajectory import SamplingConfig
from jdp.registry import Preset, Task

T = TypeVar("T")
SMALL = ModelConfig(network=NetworkConfig("residual_unet", 32, 3))
LARGER = ModelConfig(network=NetworkConfig("residual_unet", 48, 3))
CRITIC = CriticConfig(network=ValueNetworkConfig("pooled", 32, 3))
CLEAN_CRITIC = replace(CRITIC, noisy=False)
COLD = SamplingConfig(sampler="dpmpp_2m", steps=10, warm_steps=0, sigma_max=20.0)
WARM = replace(COLD, warm_steps=4)  # from the last plan, re-noised: four calls instead of ten


def maze_rows(task: Task) -> tuple[int, int]:
    """`(stride, jump)` in a maze: about as many rows in each, and steps that inverse models tell apart."""
    return (16, 16) if task.horizon is not None and task.horizon >= 256 else (8, 16)


def in_maze(task: Task, **settings: Any) -> dict[str, Any]:
    """Settings of plans of states in a maze, as long as the way through it; `settings` go before."""
    found = {"horizon": task.horizon, "stride": maze_rows(task)[0], "model": LARGER, "sampling": COLD}
    # Plans that end at the goal are followed to their end: drawn anew, they would take as long again.
    return found | {"replan_every": 0 if task.stays else task.horizon} | settings


def by_waypoints(task: Task) -> dict[str, Any]:
    """Settings of plans that Diffuser's controller follows to a goal, to stay: rows are close together."""
    stride = 4 if task.way is not None and task.way < 256 else 8
    model = replace(LARGER, learning_rate=6e-4, ema=0.999)
    return {
        "stride": stride,
        "control": "waypoints",
        "model": model,
        "sampling": replace(COLD, steps=20, sigma_max=80.0),
    }


def presets_of(
    task: Task,
    cpu: T,
    paper: T | None = None,
    *,
    smoke: T | None = None,
    updates: int | None = None,
    batch_size: int = 64,
) -> dict[str, Preset]:
    """Smoke, cpu and paper runs; `tiny(cpu)` and `published(cpu)` unless they are given."""
    goals = task.way is not None
    size = 0 if task.way is None else 1 if task.way < 256 else 2
    updates = (2_000, 2_000, 3_000)[size] if updates is None else updates
    smoke, paper = smoke or tiny(cpu), paper or published(cpu)
    return {
        "smoke": Preset(smoke, updates=60, batch_size=16, episodes=2),
        "cpu": Preset(cpu, updates, batch_size, episodes=20 if goals else 5),
        "paper": Preset(paper, updates=1_000_000, batch_size=64, seeds=5, episodes=100 if goals else 10),
    }


def _nested(settings: T, change: Callable[[Any], Any]) -> T:
    """`settings` with `change(value)` in the place of every nested config, the innermost first."""
    found = {}
    for item in dataclasses.fields(settings):  # type: ignore[arg-type]
        value = getattr(settings, item.name)
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            found[item.name] = change(_nested(value, change))
    return replace(settings, **found)  # type: ignore[type-var]


def _least(value: Any) -> Any:
    if isinstance(value, NetworkConfig):
        return NetworkConfig("residual_unet", 16, 2)
    if isinstance(value, ValueNetworkConfig):
        return ValueNetworkConfig("pooled", 16, 2)
    if isinstance(value, InverseConfig):
        return replace(value, hidden=(64, 64))
    if isinstance(value, SamplingConfig):
        return replace(value, steps=4, warm_steps=min(value.warm_steps, 2))
    return replace(value, candidates=4) if hasattr(value, "candidates") else value


def tiny(settings: T) -> T:
    """Networks and counts of smoke runs: enough to run every line."""
    return _least(_nested(settings, _least))


def _published(value: Any) -> Any:
    if isinstance(value, NetworkConfig):
        return NetworkConfig("diffuser_unet", 32, 4)
    if isinstance(value, ValueNetworkConfig):
        return ValueNetworkConfig("half_unet", 32, 4)
    if isinstance(value, ModelConfig):
        return replace(value, learning_rate=2e-4, ema=0.9999)
    if isinstance(value, CriticConfig):
        return replace(value, learning_rate=2e-4)
    if isinstance(value, SamplingConfig):
        return replace(value, steps=20, warm_steps=0)
    return value


def published(settings: T) -> T:
    """The networks, rates and samplers of Diffuser (arXiv 2205.09991), which later papers took over."""
    return _published(_nested(settings, _published))
