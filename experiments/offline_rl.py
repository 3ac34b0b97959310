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
from typing import Any, TypeVar

from command_line import run_main
from methods import MethodConfig, Options, fitted, method_command
from models import MODEL_PRESETS, WorldModelConfig, train_world_model
from opening import agent_options, finish, heading, load, minutes, open_job, save_figure, score_line
from options import EvaluationConfig, check_batches, check_counts, refuse_stream, with_options

import jdp
from jdp import devices, evaluation, loops, plotting
from jdp.runs import Job

T = TypeVar("T")


@dataclass(frozen=True)
class CurveConfig(EvaluationConfig):
    """Scores in the simulator."""

    every: int = 2_000
    """Updates between two evaluations for the learning curve; the last checkpoint is always evaluated."""


@dataclass(frozen=True, kw_only=True)
class Config(MethodConfig[T], WorldModelConfig):
    """Train an offline-RL agent and score its last checkpoint."""

    agent: str = "td3_bc"
    """The algorithm."""
    evaluation: CurveConfig = field(default_factory=CurveConfig)


AgentConfig = Config[Any]  # of whatever agent
# What the presets say of all that is not the agent's own.
PRESETS: dict[str, Options] = {
    "smoke": MODEL_PRESETS["smoke"] | {"evaluation": CurveConfig(episodes=2, every=200)},
    "cpu": MODEL_PRESETS["cpu"] | {"evaluation": CurveConfig()},
    "paper": {"evaluation": CurveConfig(every=50_000)},
}


def main() -> None:
    entry, config = method_command("agent", "td3_bc", Config, __doc__ or "", lambda *_: PRESETS)
    compilations = devices.count_compilations()
    check_counts(config, "evaluation.every")
    check_batches(config)
    model_based = bool(entry.options.get("model_based"))
    if model_based:
        refuse_stream(config, f"{entry.name} draws transitions and rollouts on the devices")
    parts = (config.world_model,) if model_based and config.world_model != "ensemble" else ()
    config = with_options(config, f"agent {entry.name} without a diffusion model", *parts)
    data = load(config)
    evaluation.check_task(data, goals=False)
    config = dataclasses.replace(config, settings=fitted(entry, config.settings, data, config.updates))
    jdp.agents.make(config.settings, data.spec, model=config.check_world_model(data) if model_based else None)
    notes = f"agent {entry.name}, {config.seeds} seeds at once"
    job = open_job("offline_rl", config, data, notes, ("agents", "world_model", "rollouts"))
    train_model_based(job) if model_based else train_model_free(job)
    closing(job, model_based, compilations)


def train_model_free(job: Job[AgentConfig]) -> None:
    """All seeds on the dataset alone."""
    config = job.config
    method = jdp.agents.make(config.settings, job.data.spec)
    loops.train_in_rounds(
        method,
        jdp.data.prepared(method.learner.draws, job.data, files=job.files),
        stream=config.stream,
        every=config.evaluation.every,
        **agent_options(job, "agent", method),
    )


def train_model_based(job: Job[AgentConfig]) -> None:
    """The world model, then all seeds on the dataset and rollouts of their own policies in it."""
    config = job.config
    trained = train_world_model(job, job.keys["world_model"])
    method = jdp.agents.make(config.settings, job.data.spec, model=trained.model)
    loops.train_model_based(
        method,
        trained.state,
        jdp.data.prepared(method.learner.draws, job.data),
        job.data,
        config.settings.rollouts,
        rollout_key=job.keys["rollouts"],
        **agent_options(job, "agent", method, config.evaluation.every),
    )


def closing(job: Job[AgentConfig], model_based: bool, compilations: devices.Compilations) -> None:
    """`scores.json`, `report.txt` and the learning curve."""
    config, data, spec = job.config, job.data, job.data.spec
    records, behaviour = job.journal.records("agent/evaluation"), evaluation.behaviour_score(data)
    score, name = evaluation.last_scores(records, spec, config.updates), evaluation.score_name(spec)
    over = "Clopper-Pearson over the episodes of all" if evaluation.is_success(spec) else "Student's t over"
    lines = [
        heading(job, config.agent),
        "",
        score_line(name, score),
        f"interval: {over} {config.seeds} agent seeds"
        + (" that share one world model" if model_based else ""),
    ]
    curve = {config.agent: evaluation.learning_curve(records, spec)}
    drawn = plotting.curves(None, curve, behaviour=behaviour, title=data.origin.name, score=name)
    save_figure(job, "learning_curve", drawn)
    spent = minutes(job, *([config.world_model] if model_based else []), "agent")
    scores = {"agent": config.agent, "score_name": name, **score, "behaviour": behaviour}
    finish(job, lines, scores, spent, compilations)


if __name__ == "__main__":
    run_main(main, spans_processes=True)
