"""What plan.py and policies.py share: options, closed loop, pictures and report of a method."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import numpy as np
from command_line import given
from opening import check_batches, check_counts, compiled, figures, finish, load, open_job
from options import RunConfig, with_options

from jdp import loops, plotting, registry
from jdp.devices import Compilations
from jdp.evaluation import (
    behaviour_score,
    check_task,
    control_score_name,
    environment_maker,
    has_behaviour,
    is_success,
    scores_of,
    summary_of_seeds,
    with_interval,
)
from jdp.learning.fitting import Fit, falling_rates
from jdp.loops import Played, Recorder
from jdp.loops.journal import Record
from jdp.registry import Entry, Kind, Preset
from jdp.runs import Job
from jdp.tasks import maze_of
from jdp.types import Method, PyTree

T = TypeVar("T")
C = TypeVar("C", bound="AnyConfig")
FRAMES = 80  # of a film of locomotion


@dataclass(frozen=True)
class EvaluationConfig:
    """Scores in the simulator, of the last checkpoint."""

    episodes: int = 20
    """Episodes of every seed, played as one batch."""
    decisions: int = 30
    """Decisions that are timed, in one environment, after compilation."""
    pictures: int = 4
    """Episodes that are drawn."""
    start: tuple[float, float] | None = None
    """Where every episode in a maze begins (x, y); otherwise drawn by the task."""
    goal: tuple[float, float] | None = None
    """Where every episode in a maze leads (x, y); otherwise drawn by the task."""

    @property
    def place(self) -> dict[str, tuple[float, float]]:
        """The places that were given."""
        return {k: v for k, v in (("start", self.start), ("goal", self.goal)) if v is not None}


@dataclass(frozen=True, kw_only=True)
class MethodConfig(RunConfig, Generic[T]):
    """Train a planner or a policy and play it in closed loop."""

    settings: T
    """Of the method."""
    seeds: int = 2
    """Training seeds, trained at once; each draws its own batches and initial weights."""
    updates: int = 3_000
    """Gradient steps."""
    batch_size: int = 64
    """Segments in a batch of one seed, over all devices."""
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)


AnyConfig = MethodConfig[Any]  # of whatever method


def presets(found: Mapping[str, Preset]) -> dict[str, dict[str, EvaluationConfig]]:
    """A method's presets as options of plan.py and policies.py."""
    made = {}
    for name, preset in found.items():
        evaluation = EvaluationConfig(decisions=5, pictures=2) if name == "smoke" else EvaluationConfig()
        if preset.episodes is not None:
            evaluation = dataclasses.replace(evaluation, episodes=preset.episodes)
        made[name] = {"evaluation": evaluation}
    return made


def open_method(experiment: str, kind: Kind, entry: Entry, config: C) -> tuple[Job[C], Method]:
    """The job of a command line and its method; what cannot work is refused before anything is written."""
    check_counts(config, "seeds", "updates", "batch_size")
    check_counts(config, "evaluation.episodes", "evaluation.decisions", "evaluation.pictures")
    config = with_options(config, f"{kind} {entry.name}", "settings")
    check_batches(config, "batch_size")
    data = load(config)
    check_task(data, place=config.evaluation.place)
    fit: Fit = entry.options.get("fit", falling_rates)
    config = dataclasses.replace(
        config, settings=fit(config.settings, data, config.updates, given("settings"))
    )
    method = registry.make(kind, config.settings, data.spec)
    loops.check_method(method, data)
    windows = getattr(method.learner.draws, "offsets", (0,))[-1] + 1
    notes = f"{kind} {entry.name}, {config.seeds} seeds at once"
    keys = ("train", "adapt", "play", "latency", "pictures")
    return open_job(experiment, config, data, notes, keys, windows=windows), method


def evaluate(job: Job[AnyConfig], name: str, method: Method, states: PyTree) -> Record:
    """Plays every seed's last checkpoint and times its decisions; what was played before is not repeated."""
    config, spec = job.config, job.data.spec

    def after(seed: int, record: Record, played: Played, recorder: Recorder) -> None:
        scores = scores_of(played.returns, spec).mean()
        scores = 100 * played.success.mean() if is_success(spec) else scores
        took = 1e3 * record["latency"]["median"]
        print(f"seed {seed}: {control_score_name(spec)} {scores:.1f}, a decision takes {took:.1f} ms")
        if seed == 0:
            draw_episodes(job, name, played, recorder)

    records = loops.play_in_turn(
        method.policy,
        states,
        environment_maker(spec),
        keys=job.keys,
        seeds=config.seeds,
        episodes=config.evaluation.episodes,
        decisions=config.evaluation.decisions,
        seed=config.seed + 1_000_000,
        place=config.evaluation.place,
        pictures=min(config.evaluation.pictures, config.evaluation.episodes),
        mesh=job.mesh,
        journal=job.journal,
        after=after,
    )
    return summary_of_seeds(records, spec)


def draw_episodes(job: Job[AnyConfig], name: str, played: Played, recorder: Recorder) -> None:
    """plans.png and closed_loop.gif in a maze; elsewhere the film alone, where this machine can render."""
    spec, title = job.data.spec, f"{name}, {job.data.origin.name}"
    maze = maze_of(spec) if spec.goal else None
    assert played.observation is not None  # asked for by play_in_turn
    if maze is None:
        seen = played.observation[: played.lengths[0] + 1, 0]
        frames = plotting.render(spec, seen[:: max(1, len(seen) // FRAMES)])
        frames = None if frames is None else frames[:, ::3, ::3]
    else:
        episodes = plotting.episodes(spec, played, recorder)
        plotting.plans(maze, episodes, title=title).savefig(figures(job) / "plans.png")
        frames = plotting.film(maze, episodes[0], title=title)
    if frames is not None:
        plotting.save_film(figures(job) / "closed_loop.gif", frames)


def interval_name(job: Job[AnyConfig]) -> str:
    """What the interval of a score says."""
    if is_success(job.data.spec):
        return f"Clopper-Pearson over the episodes of all {job.config.seeds} training seeds"
    return f"Student's t over {job.config.seeds} training seeds"


def closing(
    job: Job[AnyConfig], entry: Entry, found: Record, phases: tuple[str, ...], compilations: Compilations
) -> None:
    """`scores.json` and `report.txt`."""
    config, data, spec, took = job.config, job.data, job.data.spec, found["latency"]
    seconds = {p: loops.training_seconds(job.journal, p) for p in phases if job.journal.records(p)}
    minutes = {phase: s / 60 for phase, s in seconds.items()}
    behaviour = behaviour_score(data) if has_behaviour(data) else None
    lengths = np.concatenate(found["lengths"])
    lines = [
        f"{data.origin.name}, {spec.env_id}: {entry.name}, {config.updates:,} updates, "
        f"{config.evaluation.episodes} episodes a seed, last checkpoint",
        "",
        f"{control_score_name(spec)} {with_interval(*found['interval'])} "
        f"(seeds {' '.join(f'{s:.1f}' for s in found['seeds'])})",
        f"episode length {lengths.mean():.0f} steps (mean), {lengths.max()} (longest)",
        "" if behaviour is None else f"behaviour policy (mean of the dataset's episodes): {behaviour:.1f}",
        f"decision in one environment: median {1e3 * took['median']:.1f} ms, 95th percentile "
        f"{1e3 * took['percentile_95']:.1f} ms, first of an episode {1e3 * took['first']:.1f} ms, "
        f"mean per step {1e3 * took['step']:.1f} ms",
        f"interval: {interval_name(job)}",
        f"training: {', '.join(f'{phase} {m:.1f} min' for phase, m in minutes.items())} (all seeds at once)",
        compiled(compilations),
    ]
    finish(
        job,
        "\n".join(line for i, line in enumerate(lines) if line or i == 1),
        {
            "dataset": data.origin.name,
            "task": spec.env_id,
            "method": entry.name,
            "score_name": control_score_name(spec),
            "preset": config.preset,
            "updates": config.updates,
            "episodes": config.evaluation.episodes,
            **found,
            "behaviour": behaviour,
            "minutes": minutes,
            "compilations": compilations.summary(),
        },
    )
