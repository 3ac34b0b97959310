"""Offline RL: one agent, model-free or model-based, trained on a dataset and scored in the simulator.

    python experiments/offline_rl.py --agent td3_bc --env hopper-medium
    python experiments/offline_rl.py --agent mopo --env hopper-medium --settings.penalty 5

Model-based agents first train a world model (an ensemble, or where the agent asks no members of it also a
diffusion model), and then learn from its rollouts beside the data. The agent's own settings are --settings.*,
which --agent X --help lists. Everything goes to results/offline_rl/<dataset>/<run>/; a run that was cut goes
on with --resume; experiments/table.py makes tables of all runs. Presets: smoke (a minute, for the plumbing),
cpu (minutes on two cores), paper (the papers' updates, for an accelerator); any flag beats the preset.
"""

import dataclasses
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, TypeVar

import numpy as np
from command_line import given, run_main, use_compilation_cache
from methods import method_command
from opening import (
    check_batches,
    check_counts,
    compiled,
    figures,
    finish,
    load,
    open_job,
    scored,
)
from options import RunConfig, refuse_stream, with_options

import jdp
from jdp import devices, loops, plotting
from jdp.data import Episodes
from jdp.evaluation import behaviour_score, check_task, last_scores, score_name, scores_of, with_interval
from jdp.registry import Entry
from jdp.runs import Job
from jdp.types import Method
from jdp.world_models.diffusion_step import DiffusionStepConfig
from jdp.world_models.ensemble import EnsembleConfig
from jdp.world_models.unified import UnifiedConfig

T = TypeVar("T")


@dataclass(frozen=True)
class EvaluationConfig:
    """Scores in the simulator."""

    episodes: int = 10
    """Episodes of every seed."""
    every: int = 2_000
    """Updates between two evaluations for the learning curve; the last checkpoint is always evaluated."""


@dataclass(frozen=True, kw_only=True)
class Config(RunConfig, Generic[T]):
    """Train an offline-RL agent and score its last checkpoint."""

    settings: T
    """Of the agent's algorithm."""
    agent: str = "td3_bc"
    """The algorithm."""
    seeds: int = 3
    """Agent seeds, trained at once; those of a model-based agent share one world model."""
    updates: int = 10_000
    """Agent updates (of td3_bc and rebrac: 2 critic steps and 1 actor step each)."""
    batch_size: int = 256
    """Transitions in a minibatch."""
    world_model: Literal["ensemble", "diffusion_step", "unified"] = "ensemble"
    """Of the model-based agents; mopo and morel need an ensemble."""
    ensemble: EnsembleConfig = field(default_factory=EnsembleConfig)
    diffusion_step: DiffusionStepConfig = field(default_factory=DiffusionStepConfig)
    unified: UnifiedConfig = field(default_factory=UnifiedConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)


AgentConfig = Config[Any]  # of whatever agent
# What the presets say of all that is not the agent's own.
PRESETS: dict[str, dict[str, Any]] = {
    "smoke": {
        "ensemble": EnsembleConfig(members=3, elites=2, hidden=(32, 32), decay=(0.0,), epochs=2),
        "diffusion_step": DiffusionStepConfig(features=32, blocks=1, steps=300),
        "unified": UnifiedConfig(features=32, blocks=1, steps=300),
        "evaluation": EvaluationConfig(episodes=2, every=200),
    },
    "cpu": {"ensemble": EnsembleConfig(epochs=20), "evaluation": EvaluationConfig()},
    "paper": {"evaluation": EvaluationConfig(every=50_000)},
}


def main() -> None:
    entry, config = method_command("agent", "td3_bc", Config, __doc__ or "", lambda _: PRESETS)
    use_compilation_cache()
    compilations = devices.count_compilations()
    check_counts(config, "seeds", "updates", "batch_size", "evaluation.episodes", "evaluation.every")
    check_batches(config, "batch_size")
    model_based = bool(entry.options.get("model_based"))
    if model_based:
        refuse_stream(config, f"{entry.name} draws transitions and rollouts on the devices")
    parts = (config.world_model,) if model_based and config.world_model != "ensemble" else ()
    config = with_options(config, f"agent {entry.name} without a diffusion model", *parts)
    data = load(config)
    config = fit_to_data(entry, config, data)
    notes = f"agent {entry.name}, {config.seeds} seeds at once"
    job = open_job("offline_rl", config, data, notes, ("agents", "world_model", "rollouts"))
    train_model_based(job) if model_based else train_model_free(job)
    closing(job, model_based, compilations)


def fit_to_data(entry: Entry, config: AgentConfig, data: Episodes) -> AgentConfig:
    """Fills in what depends on the dataset, and refuses what could not be trained or scored."""
    check_task(data, goals=False)
    if "fit" in entry.options:
        settings = entry.options["fit"](config.settings, data, config.updates, given("settings"))
        config = dataclasses.replace(config, settings=settings)
    model = make_model(config, data) if entry.options.get("model_based") else None
    jdp.agents.make(config.settings, data.spec, model=model)
    return config


def make_model(config: AgentConfig, data: Episodes) -> jdp.types.WorldModel:
    """The world model of a model-based agent, untrained."""
    settings, termination = getattr(config, config.world_model), config.ensemble.termination
    return loops.make_world_model(settings, data, termination=termination, mesh=devices.data_mesh())


def train_model_free(job: Job[AgentConfig]) -> None:
    """All seeds on the dataset alone."""
    config = job.config
    method = jdp.agents.make(config.settings, job.data.spec)
    loops.train_in_rounds(
        method,
        jdp.data.prepared(method.learner.draws, job.data, files=job.files),
        stream=config.stream,
        key=job.keys["agents"],
        every=config.evaluation.every,
        **shared(job, method),
    )


def train_model_based(job: Job[AgentConfig]) -> None:
    """The world model, then all seeds on the dataset and rollouts of their own policies in it."""
    config = job.config
    trained = loops.train_world_model(
        job.data,
        getattr(config, config.world_model),
        key=job.keys["world_model"],
        termination=config.ensemble.termination,
        mesh=job.mesh,
        journal=job.journal,
    )
    method = jdp.agents.make(config.settings, job.data.spec, model=trained.model)
    loops.train_model_based(
        method,
        trained.state,
        jdp.data.prepared(method.learner.draws, job.data),
        job.data,
        config.settings.rollouts,
        key=job.keys["agents"],
        rollout_key=job.keys["rollouts"],
        evaluate_every=config.evaluation.every,
        **shared(job, method),
    )


def shared(job: Job[AgentConfig], method: Method) -> dict[str, Any]:
    """What both ways of training take."""
    config = job.config
    return {
        "seeds": config.seeds,
        "updates": config.updates,
        "batch_size": config.batch_size,
        "mesh": job.mesh,
        "journal": job.journal,
        "evaluate": scored(job, "agent", method, config.seeds, config.evaluation.episodes),
    }


def closing(job: Job[AgentConfig], model_based: bool, compilations: devices.Compilations) -> None:
    """`scores.json`, `report.txt` and the learning curve."""
    config, data, spec = job.config, job.data, job.data.spec
    records = job.journal.records("agent/evaluation")
    score, behaviour = last_scores(records, spec, config.updates), behaviour_score(data)
    phases = (config.world_model, "agent") if model_based else ("agent",)
    minutes = {phase: loops.training_seconds(job.journal, phase) / 60 for phase in phases}
    lines = [
        f"{data.origin.name}, {spec.env_id}: {config.agent}, {config.updates:,} updates, "
        f"{config.evaluation.episodes} episodes a seed, last checkpoint",
        "",
        f"{score_name(spec)} {with_interval(*score['interval'])}"
        f" (seeds {' '.join(f'{s:.1f}' for s in score['seeds'])})",
        f"behaviour policy (mean of the dataset's episodes): {behaviour:.1f}",
        f"interval: Student's t over {config.seeds} agent seeds"
        + (" that share one world model" if model_based else ""),
        "training: "
        + ", ".join(f"{phase} {m:.1f} min" for phase, m in minutes.items())
        + f" (all {config.seeds} seeds at once)",
        compiled(compilations),
    ]
    values = np.stack([scores_of(r["returns"], spec).mean(axis=1) for r in records])
    plotting.curves(
        None,
        {config.agent: ([r["step"] for r in records], values)},
        behaviour=behaviour,
        title=data.origin.name,
        score=score_name(spec),
    ).savefig(figures(job) / "learning_curve.png")
    finish(
        job,
        "\n".join(lines),
        {
            "dataset": data.origin.name,
            "task": spec.env_id,
            "agent": config.agent,
            "score_name": score_name(spec),
            "preset": config.preset,
            "updates": config.updates,
            "episodes": config.evaluation.episodes,
            **score,
            "behaviour": behaviour,
            "minutes": minutes,
            "compilations": compilations.summary(),
        },
    )


if __name__ == "__main__":
    run_main(main, spans_processes=True)
