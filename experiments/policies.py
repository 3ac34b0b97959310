"""Diffusion policies: one policy trained on a dataset, then played in closed loop.

    python experiments/policies.py --policy idql --env hopper-medium
    python experiments/policies.py --policy beso --env pointmaze-large

Policies: diffusion_policy, beso, dql, idql, edp, fql. The policy's own settings are --settings.*, which
--policy X --help lists. Everything goes to results/policies/<dataset>/<run>/: scores of the last checkpoint
of every seed, the time of a decision, and in mazes pictures. A run that was cut goes on with --resume;
experiments/planning_table.py makes one table of all runs, planners' and policies'. Presets: smoke (a minute,
for the plumbing), cpu (minutes on two cores), paper (the papers' sizes, for an accelerator); any flag beats
the preset.
"""

import dataclasses
from dataclasses import dataclass
from typing import Any, TypeVar

import jax
from common import choose, option, parse, run_main, use_compilation_cache
from control import (
    ControlConfig,
    EvaluationConfig,
    closing,
    evaluate,
    open_job,
    rows_for,
    train_all,
    with_steps,
)
from options import with_options
from planning_presets import maze_horizon

import jdp
from jdp import devices
from jdp.data.names import full_d4rl_name, locomotion_reference
from jdp.policies import POLICIES, IDQLConfig, tuned

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Config(ControlConfig[T]):
    """Train a diffusion policy and play it in closed loop."""

    policy: str = "idql"
    """The algorithm."""
    batch_size: int = 256
    """Segments in a batch of one seed, over all devices."""


def presets(policy: str, env: str) -> dict[str, Config]:
    """The presets for one policy on one dataset."""
    settings = tuned(policy, full_d4rl_name(env) or "")
    goals = maze_horizon(env) is not None
    # Learning rates of the papers fall over a million updates; a few thousand need larger ones.
    width = "hidden" if hasattr(settings, "hidden") else "features"
    sizes: dict[str, Any] = {"hidden": ((256, 256, 256), (64, 64)), "features": (256, 64)}
    small = dataclasses.replace(settings, learning_rate=1e-3, **{width: sizes[width][0]})
    if hasattr(settings, "candidates"):
        small = dataclasses.replace(small, candidates=min(16, settings.candidates))
    tiny = dataclasses.replace(small, **{width: sizes[width][1]})
    return {
        "smoke": Config(
            policy=policy,
            preset="smoke",
            settings=tiny,
            updates=100,
            batch_size=64,
            evaluation=EvaluationConfig(episodes=2, decisions=5, pictures=2),
        ),
        "cpu": Config(
            policy=policy,
            settings=small,
            updates=1_000 if goals else 2_000,
            evaluation=EvaluationConfig(episodes=20 if goals else 5),
        ),
        "paper": Config(
            policy=policy,
            preset="paper",
            settings=settings,
            updates=1_000_000,
            seeds=5,
            evaluation=EvaluationConfig(episodes=100 if goals else 10),
        ),
    }


def main() -> None:
    name = choose("--policy", POLICIES, "idql")
    kind: Any = Config[POLICIES[name]]  # type: ignore[misc]
    device = "cpu" if jax.default_backend() == "cpu" else "paper"
    config = parse(presets(name, option("--env") or Config.env), lambda: device, __doc__ or "", kind)
    use_compilation_cache()
    compilations = devices.count_compilations()
    job = open_job("policies", config, f"policy {name}", fit_to_data)
    learner = jdp.policies.make(job.config.settings, job.data.spec)
    rows = rows_for(job, learner.offsets)
    states = train_all(job, "policy", learner, rows, jdp.policies.hindsight(job.config.settings))
    found = evaluate(job, learner.policy, states, getattr(job.config.settings, "execute", 1))
    closing(job, found, ("policy",), compilations)


def fit_to_data(config: Config, data: Any) -> Config:
    """Fills in what depends on the dataset: learning rates over the updates, and the scale of rewards."""
    config = with_options(config, f"policy {config.policy}", "settings")
    settings = with_steps(config.settings, config.updates)
    # IQL scales rewards; the authors of the other critics tuned them on the rewards as they are.
    scaled = isinstance(settings, IDQLConfig) and option("--settings.reward-scale") is None
    if scaled and locomotion_reference(data.spec.env_id) is not None:
        settings = dataclasses.replace(settings, reward_scale=jdp.agents.iql_reward_scale(data.returns))
    jdp.policies.make(settings, data.spec)
    return dataclasses.replace(config, settings=settings)


if __name__ == "__main__":
    run_main(main, spans_processes=True)
