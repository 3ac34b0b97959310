"""What plan.py and policies.py share: options, closed loop, pictures and report of a method."""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from guiding import GuideOptions, executed, rule_lines, satisfaction
from methods import MethodConfig, fitted
from opening import figures, finish, heading, load, minutes, open_job, rate_lines, score_line
from options import (
    EvaluationConfig,
    TrainingOptions,
    check_batches,
    check_counts,
    check_positive,
    check_rates,
    with_options,
)

from jdp import evaluation, loops, plotting, registry
from jdp.devices import Compilations
from jdp.loops import Played, Recorder
from jdp.loops.journal import Record
from jdp.registry import Entry, Kind, Preset
from jdp.runs import Job
from jdp.tasks import maze_of
from jdp.types import Method, PyTree, Spec

T = TypeVar("T")
C = TypeVar("C", bound="PlayedConfig[Any]")
FRAMES = 80  # of a film of locomotion


@dataclass(frozen=True)
class PlayConfig(EvaluationConfig):
    """Scores in the simulator, of the last checkpoint."""

    episodes: int = 20
    """Episodes of every seed, played as one batch."""
    decisions: int = 30
    """Decisions that are timed, in one environment, after compilation."""
    pictures: int = 4
    """Episodes that are drawn; 0: no pictures of them."""
    start: tuple[float, float] | None = None
    """Where every episode in a maze begins (x, y); otherwise drawn by the task."""
    goal: tuple[float, float] | None = None
    """Where every episode in a maze leads (x, y); otherwise drawn by the task."""
    hz: tuple[float, ...] | None = None
    """Score also as if the task ticked so often a second and waited for nobody: 10 50 200. A decision that
    takes longer than a tick acts late."""

    @property
    def place(self) -> dict[str, tuple[float, float]]:
        """The places that were given."""
        return {k: v for k, v in (("start", self.start), ("goal", self.goal)) if v is not None}


@dataclass(frozen=True, kw_only=True)
class PlayOptions(TrainingOptions):
    """What every script asks for that plays in closed loop, one seed after another."""

    evaluation: PlayConfig = field(default_factory=PlayConfig)


@dataclass(frozen=True, kw_only=True)
class PlayedConfig(MethodConfig[T], PlayOptions, GuideOptions):
    """Train a planner or a policy and play it in closed loop."""

    seeds: int = 2
    """Training seeds, trained at once; each draws its own batches and initial weights."""
    evaluation: PlayConfig = field(default_factory=PlayConfig)


AnyConfig = PlayedConfig[Any]  # of whatever method


def presets(entry: Entry, found: Mapping[str, Preset]) -> dict[str, dict[str, PlayConfig]]:
    """A method's presets as options of plan.py and policies.py."""
    del entry
    made = {}
    for name, preset in found.items():
        play = PlayConfig(decisions=5, pictures=2) if name == "smoke" else PlayConfig()
        episodes = play.episodes if preset.episodes is None else preset.episodes
        made[name] = {"evaluation": dataclasses.replace(play, episodes=episodes)}
    return made


def open_method(experiment: str, kind: Kind, entry: Entry, config: C) -> tuple[Job[C], Method]:
    """The job of a command line and its method; what cannot work is refused before anything is written."""
    check_counts(config, "evaluation.decisions")
    check_positive({"--evaluation.pictures": config.evaluation.pictures}, 0)
    check_rates("--evaluation.hz", config.evaluation.hz)
    config = with_options(config, f"{kind} {entry.name}", "settings")
    check_batches(config)
    data = load(config)
    evaluation.check_task(data, place=config.evaluation.place)
    config = dataclasses.replace(config, settings=fitted(entry, config.settings, data, config.updates))
    guided = config.guided(kind, config.settings, data.spec)
    method = registry.make(kind, config.settings, data.spec) if guided is None else guided
    decision = loops.check_method(method, data)
    if (rule := config.rule(config.settings)) is not None:
        chunk, stride = (getattr(config.settings, name, 1) for name in ("chunk", "stride"))
        loops.check_rule_on(rule, decision, data, stride=stride, chunk=chunk)
    windows = getattr(method.learner.draws, "offsets", (0,))[-1] + 1
    notes = f"{kind} {entry.name}, {config.seeds} seeds at once"
    keys = ("train", "adapt", "play", "latency", "pictures")
    return open_job(experiment, config, data, notes, keys, windows=windows), method


def evaluate(
    job: Job[PlayOptions],
    name: str,
    method: Method,
    states: PyTree,
    phase: str = "evaluation",
    *,
    many_goals: bool = False,
    judged: Callable[[int, Played], np.ndarray] | None = None,
) -> Record:
    """Plays every seed's last checkpoint and times its decisions; what was played before is not repeated.

    Pictures are of the phase "evaluation". What `judged(seed, played)` says of each episode, `[n]`, is kept
    as `executed` `[S, n]`.
    """
    config, spec = job.config, job.data.spec

    def after(seed: int, record: Record, played: Played, recorder: Recorder) -> None:
        scores = evaluation.scores_of(played.returns, spec).mean()
        scores = 100 * played.success.mean() if evaluation.is_success(spec) else scores
        took = 1e3 * record["latency"]["median"]
        if judged is not None:
            record["executed"] = judged(seed, played)
        print(f"seed {seed}: {evaluation.score_name(spec)} {scores:.1f}, a decision takes {took:.1f} ms")
        if seed == 0 and phase == "evaluation" and config.evaluation.pictures:
            draw_episodes(figures(job), spec, f"{name}, {job.data.origin.name}", played, recorder)

    play = partial(
        loops.play_in_turn,
        states=states,
        make=evaluation.environment_maker(spec, many_goals=many_goals),
        keys=job.keys,
        seeds=config.seeds,
        episodes=config.evaluation.episodes,
        seed=config.seed + 1_000_000,
        place=config.evaluation.place,
        mesh=job.mesh,
        journal=job.journal,
    )
    records = play(
        method.policy,
        decisions=config.evaluation.decisions,
        pictures=min(config.evaluation.pictures, config.evaluation.episodes),
        after=after,
        phase=phase,
    )
    found = evaluation.summary_of_seeds(records, spec)
    if config.evaluation.hz:
        late = partial(loops.late, method.policy, action_dim=spec.action_dim)
        found["at_rates"] = evaluation.scores_at_rates(config.evaluation.hz, found, spec, play, late)
    return found if judged is None else found | {"executed": [r["executed"] for r in records]}


def evaluate_guided(job: Job[AnyConfig], name: str, method: Method, states: PyTree) -> Record:
    """`evaluate`, and as `rule` how the episodes kept the rule of --guide."""
    formula = job.config.formula(job.config.settings)
    if formula is None:
        return evaluate(job, name, method, states)
    found = evaluate(job, name, method, states, judged=lambda _, played: executed(formula, played))
    return found | {"rule": satisfaction(job.config, found.pop("executed"))}


def draw_episodes(folder: Path, spec: Spec, title: str, played: Played, recorder: Recorder) -> None:
    """plans.png and closed_loop.gif in a maze; elsewhere the film alone, where this machine can render."""
    maze = maze_of(spec) if spec.goal else None
    assert played.observation is not None  # asked for by play_in_turn
    if maze is None:
        seen = played.observation[: played.lengths[0] + 1, 0]
        frames = plotting.render(spec, seen[:: max(1, len(seen) // FRAMES)])
        frames = None if frames is None else frames[:, ::3, ::3]
    else:
        episodes = plotting.episodes(spec, played, recorder)
        plotting.plans(maze, episodes, title=title).savefig(folder / "plans.png")
        frames = plotting.film(maze, episodes[0], title=title)
    if frames is not None:
        plotting.save_film(folder / "closed_loop.gif", frames)


def closing(
    job: Job[AnyConfig], entry: Entry, found: Record, phases: tuple[str, ...], compilations: Compilations
) -> None:
    """`scores.json` and `report.txt`."""
    data, spec, took, config = job.data, job.data.spec, found["latency"], job.config
    behaviour = evaluation.behaviour_score(data)
    lengths, name = np.concatenate(found["lengths"]), evaluation.score_name(spec)
    over = "Clopper-Pearson over the episodes of all" if evaluation.is_success(spec) else "Student's t over"
    ms = {name: f"{1e3 * seconds:.1f} ms" for name, seconds in took.items()}
    lines = [
        heading(job, entry.name),
        "",
        score_line(name, found),
        f"episode length {lengths.mean():.0f} steps (mean), {lengths.max()} (longest)",
        f"decision in one environment: median {ms['median']}, 95th percentile {ms['percentile_95']}, "
        f"99th {ms['percentile_99']}, "
        f"first of an episode {ms['first']}, mean per step {ms['step']}",
        f"interval: {over} {config.seeds} training seeds",
        *rule_lines(found),
        *rate_lines(name, found),
    ]
    scores = {"method": entry.name, "score_name": name, **found, "behaviour": behaviour}
    finish(job, lines, scores, minutes(job, *phases), compilations)
