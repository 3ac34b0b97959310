"""The presets of plan.py: settings of every planner by kind of task, for two cores and as in the papers."""

import dataclasses
import re
from pathlib import Path
from typing import Any

from control import EvaluationConfig

from jdp.data.names import full_d4rl_name
from jdp.networks import NetworkConfig, ValueNetworkConfig
from jdp.planners import (
    AdaptDiffuserConfig,
    CriticConfig,
    DecisionDiffuserConfig,
    DiffuserPlannerConfig,
    GraphGuidedConfig,
    HierarchicalConfig,
    InverseConfig,
    ModelConfig,
    SamplingConfig,
    VeteranConfig,
)

# Steps that a plan spans in each maze (Diffuser, arXiv 2205.09991, appendix C).
MAZE_HORIZONS = {"umaze": 128, "open": 128, "medium": 256, "large": 384, "giant": 512}
# Decision Diffuser's (target, guidance) on D4RL's locomotion sets, as CleanDiffuser tuned them.
DECISION_TARGETS = {
    "halfcheetah-medium-expert-v2": (0.95, 1.2),
    "halfcheetah-medium-replay-v2": (0.95, 1.4),
    "halfcheetah-medium-v2": (1.1, 3.2),
    "hopper-medium-expert-v2": (0.95, 1.2),
    "hopper-medium-replay-v2": (0.6, 6.0),
    "hopper-medium-v2": (0.7, 4.4),
    "walker2d-medium-expert-v2": (1.0, 1.2),
    "walker2d-medium-replay-v2": (0.75, 2.4),
    "walker2d-medium-v2": (0.75, 6.0),
}


def maze_horizon(env: str) -> int | None:
    """The horizon in the maze that `env` names; None where it names none."""
    found = re.search(r"maze.*?(umaze|open|medium|large|giant|teleport)|maze.*", Path(env).name.lower())
    return None if found is None else MAZE_HORIZONS.get(found[1] or "", 256)


def presets(planner: str, env: str) -> dict[str, dict[str, Any]]:
    """The defaults of smoke, cpu and paper for one planner on one dataset."""
    horizon = maze_horizon(env)
    goals = horizon is not None
    cpu = _maze(planner, horizon) if horizon else _locomotion(planner, env)
    episodes = {"smoke": 2, "cpu": 20 if goals else 5, "paper": 100 if goals else 10}
    evaluation = {name: EvaluationConfig(episodes=count) for name, count in episodes.items()}
    # AdaptDiffuser's plans in mazes have a row for every step: fewer of them make a batch.
    dense = planner == "adapt_diffuser" and goals
    size = 0 if horizon is None else 1 if horizon < 256 else 2
    updates, batch = ((2_000, 2_000, 3_000)[size], 64) if not dense else (1_000 * size, 16)
    return {
        "smoke": {
            "settings": _tiny(cpu),
            "updates": 60,
            "batch_size": 16,
            "evaluation": dataclasses.replace(evaluation["smoke"], decisions=5, pictures=2),
        },
        "cpu": {"settings": cpu, "updates": updates, "batch_size": batch, "evaluation": evaluation["cpu"]},
        "paper": {
            "settings": _paper(cpu),
            "updates": 1_000_000,
            "seeds": 5,
            "batch_size": 64,
            "evaluation": evaluation["paper"],
        },
    }


SMALL = ModelConfig(network=NetworkConfig("residual_unet", 32, 3))
LARGER = ModelConfig(network=NetworkConfig("residual_unet", 48, 3))
CRITIC = CriticConfig(network=ValueNetworkConfig("pooled", 32, 3))
COLD = SamplingConfig(sampler="dpmpp_2m", steps=10, warm_steps=0, sigma_max=20.0)
WARM = dataclasses.replace(COLD, warm_steps=4)  # from the last plan, re-noised: four calls instead of ten


def _locomotion(planner: str, env: str) -> Any:
    target, guidance = DECISION_TARGETS.get(full_d4rl_name(env) or "", (0.95, 1.2))
    diffuser = DiffuserPlannerConfig(horizon=32, candidates=16, model=SMALL, critic=CRITIC, sampling=COLD)
    clean = dataclasses.replace(CRITIC, noisy=False)
    return {
        "diffuser": diffuser,
        "decision_diffuser": DecisionDiffuserConfig(
            horizon=32,
            target=min(target, 1.0),
            guidance=guidance,
            model=SMALL,
            sampling=dataclasses.replace(WARM, temperature=0.5),
        ),
        "hierarchical": HierarchicalConfig(
            horizon=32,
            jump=4,
            candidates=16,
            high=SMALL,
            low=SMALL,
            critic=CRITIC,
            sampling=COLD,
        ),
        "veteran": VeteranConfig(
            horizon=32, stride=4, candidates=16, model=SMALL, critic=clean, sampling=COLD
        ),
        "adapt_diffuser": AdaptDiffuserConfig(diffuser=diffuser, plans=1_000, rounds=1),
        "graph_guided": GraphGuidedConfig(horizon=32, stride=4, replan_every=4, model=SMALL, sampling=WARM),
    }[planner]


def _maze(planner: str, horizon: int) -> Any:
    # Rows 8 or 16 steps apart: as many rows in every maze, and steps that the inverse model can tell apart.
    stride, jump = (8, 16) if horizon < 256 else (16, 16)
    # Plans that end at the goal are followed to their end: drawn anew, they would take as long again.
    diffuser = DiffuserPlannerConfig(
        horizon=horizon, stride=stride, replan_every=horizon, candidates=1, model=LARGER, sampling=COLD
    )
    small = dataclasses.replace(SMALL, network=NetworkConfig("residual_unet", 32, 4))
    dense = dataclasses.replace(diffuser, stride=1, model=small)
    return {
        "diffuser": diffuser,
        "decision_diffuser": DecisionDiffuserConfig(
            horizon=horizon,
            stride=stride,
            replan_every=horizon // 2,
            model=LARGER,
            sampling=dataclasses.replace(COLD, temperature=0.5),
        ),
        "hierarchical": HierarchicalConfig(
            horizon=horizon,
            jump=jump,
            replan_every=horizon - jump,
            refine="all",
            follow="states",
            high=LARGER,
            low=dataclasses.replace(SMALL, network=NetworkConfig("residual_unet", 32, 2)),
            sampling=COLD,
        ),
        "veteran": VeteranConfig(
            horizon=horizon,
            stride=stride,
            replan_every=horizon,
            goals="last_row",
            model=LARGER,
            critic=dataclasses.replace(CRITIC, noisy=False),
            sampling=COLD,
        ),
        "adapt_diffuser": AdaptDiffuserConfig(diffuser=dense, plans=500, reference=128, rounds=1),
        "graph_guided": GraphGuidedConfig(
            horizon=128, stride=8, replan_every=16, model=LARGER, sampling=WARM
        ),
    }[planner]


def _replaced(settings: Any, change: Any) -> Any:
    """`settings` with `change(value)` in the place of every nested configuration that it changes."""
    found = {}
    for item in dataclasses.fields(settings):
        value = getattr(settings, item.name)
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            found[item.name] = change(_replaced(value, change))
    return dataclasses.replace(settings, **found)


def _tiny(settings: Any) -> Any:
    """Networks and counts for the smoke preset: enough to run every line."""

    def change(value: Any) -> Any:
        if isinstance(value, NetworkConfig):
            return NetworkConfig("residual_unet", 16, 2)
        if isinstance(value, ValueNetworkConfig):
            return ValueNetworkConfig("pooled", 16, 2)
        if isinstance(value, InverseConfig):
            return dataclasses.replace(value, hidden=(64, 64))
        if isinstance(value, SamplingConfig):
            return dataclasses.replace(value, steps=4, warm_steps=min(value.warm_steps, 2))
        return dataclasses.replace(value, candidates=4) if hasattr(value, "candidates") else value

    small = change(_replaced(settings, change))
    if isinstance(small, AdaptDiffuserConfig):
        small = dataclasses.replace(
            small, plans=16, reference=16, rounds=1, value_quantile=0.0, error_quantile=1.0, quantile=1.0
        )
    return small


def _paper(settings: Any) -> Any:
    """The papers' networks and samplers."""

    def change(value: Any) -> Any:
        if isinstance(value, NetworkConfig):
            return NetworkConfig("diffuser_unet", 32, 4)
        if isinstance(value, ValueNetworkConfig):
            return ValueNetworkConfig("half_unet", 32, 4)
        if isinstance(value, ModelConfig):
            return dataclasses.replace(value, learning_rate=2e-4, ema=0.9999)
        if isinstance(value, CriticConfig):
            return dataclasses.replace(value, learning_rate=2e-4)
        if isinstance(value, SamplingConfig):
            return dataclasses.replace(value, steps=20, warm_steps=0)
        return value

    return change(_replaced(settings, change))
