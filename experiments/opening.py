"""How training scripts begin and end: the dataset shown, a run directory opened, a report written."""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path

import jax
from matplotlib.figure import Figure
from options import NOT_IN_HASH, O, RunConfig, TrainingOptions
from progress import Bar

from jdp import devices, loops, runs
from jdp.data import Episodes
from jdp.data.sources import at_home
from jdp.errors import check_seed
from jdp.evaluation import describe, environment_maker, score_name, seed_scores, with_interval
from jdp.loops.journal import Record
from jdp.loops.rounds import RoundOptions
from jdp.runs import LoadedRun
from jdp.runs.directories import replace_text
from jdp.runs.job import Job, load_dataset, open_run
from jdp.runs.journal import RunJournal
from jdp.runs.load import load_trained
from jdp.types import Json, Method, PyTree, named_keys


def load(config: RunConfig) -> Episodes:
    """The dataset of `--env`; with --stream its rows are mapped from files."""
    check_seed(config.seed, "--seed")
    for sink in config.log:
        runs.check_sink(sink)
    files = config.out / "streams" if config.stream else None
    return load_dataset(lambda: config.load(mapped=files))


@lru_cache(maxsize=1)  # presets may ask for its task before it is opened
def trained_run(where: str | Path) -> LoadedRun:
    """A run directory, a file of weights, or a model that comes with jdp, by its name."""
    return load_trained(at_home(Path(where)))


def open_job(
    experiment: str,
    config: O,
    data: Episodes,
    notes: str,
    keys: Sequence[str],
    *,
    not_in_hash: tuple[str, ...] = NOT_IN_HASH,
    facts: Json | None = None,
    windows: int = 1,
) -> Job[O]:
    """Shows dataset, task, devices and preset, and opens the run directory.

    Args:
        keys: the names of their uses.
        windows: steps of what is trained on; rows that lie in none are told.
    """
    spec, found = data.spec, jax.devices()
    if data.origin.kind != "none":
        print("dataset    " + "\n           ".join(describe(data, windows)))
    print(f"task       {spec.env_id}, {spec.observation_dim} observations, {spec.action_dim} actions")
    print(f"device     {len(found)} x {found[0].device_kind}")
    print(f"preset     {config.preset}; {notes}")
    run = open_run(experiment, config, data, not_in_hash=not_in_hash, facts=facts)
    print(f"run        {run.shared or run.path}")
    if run.notice:
        print(f"           goes on under others than it began with, so digits may differ: {run.notice}")
    journal = RunJournal(run, config.checkpoint_minutes, Bar, print)
    return Job(config, data, journal, devices.data_mesh(), named_keys(jax.random.key(config.seed), *keys))


def agent_options(
    job: Job[RunConfig], phase: str, method: Method, evaluate_every: int | None = None
) -> RoundOptions:
    """As the command line says, and how all seeds are evaluated together, always on the same resets."""
    config, spec = job.config, job.data.spec
    make = environment_maker(spec)

    def evaluate(step: int, states: PyTree) -> Record:
        record = loops.play_together(
            method.policy,
            states,
            make,
            key=jax.random.key(config.seed),  # agents are evaluated by their mean action, which draws nothing
            seeds=config.seeds,
            episodes=config.evaluation.episodes,
            seed=config.seed + 1_000_000,
            mesh=job.mesh,
            journal=job.journal,
            label=f"{phase}: evaluate",
        )
        shown = ", ".join(f"{s:.1f}" for s in seed_scores(record, spec))
        print(f"{phase}: {score_name(spec)} after {step:,} updates: {shown} (one a seed)")
        return record

    return {
        "key": job.keys["agents"],
        "seeds": config.seeds,
        "updates": config.updates,
        "batch_size": config.batch_size,
        "mesh": job.mesh,
        "journal": job.journal,
        "phase": phase,
        "evaluate": evaluate,
        "evaluate_every": evaluate_every,
    }


def save_figure(job: Job[TrainingOptions], name: str, figure: Figure) -> None:
    """Saves a figure of the run as `figures/<name>.png`."""
    figure.savefig(figures(job) / f"{name}.png")


def figures(job: Job[TrainingOptions]) -> Path:
    """The folder of figures, made where it is missing."""
    folder = job.run.path / "figures"
    folder.mkdir(exist_ok=True)
    return folder


def heading(job: Job[TrainingOptions], method: str) -> str:
    """The first line of the report of a method."""
    data, config = job.data, job.config
    return (
        f"{data.origin.name}, {data.spec.env_id}: {method}, {config.updates:,} updates, "
        f"{config.evaluation.episodes} episodes a seed, last checkpoint"
    )


def score_line(name: str, found: Record) -> str:
    """The line of a report that says a score: its interval, and that of every seed."""
    each = " ".join(f"{score:.1f}" for score in found["seeds"])
    return f"{name} {with_interval(*found['interval'])} (seeds {each})"


def rate_lines(name: str, found: Record) -> list[str]:
    """The lines of a report that say the scores in real time, where there are any."""
    return [
        f"at {at['hz']:g} Hz it acts {at['ticks']} ticks late: {at.get('why') or score_line(name, at)}"
        for at in found.get("at_rates") or ()
    ]


def filter_lines(found: Record) -> list[str]:
    """The line of a report that says what a filter did, where there was one."""
    if not (did := found.get("filter")):
        return []
    broken = f"its rules were broken all the same in {100 * did['broken']:.2f} %"
    worst = f", by {did['worst']:.3g} at most" if did["broken"] else ""
    return [f"the filter changed {100 * did['changed']:.1f} % of the steps; {broken}{worst}"]


def minutes(job: Job[TrainingOptions], *phases: str) -> dict[str, float]:
    """Of training, by phase."""
    return {p: loops.training_seconds(job.journal, p) / 60 for p in phases if job.journal.records(p)}


def finish(
    job: Job[TrainingOptions],
    lines: Sequence[str],
    scores: Record,
    minutes: Mapping[str, float],
    compilations: devices.Compilations,
    together: str | None = None,
) -> None:
    """Writes and prints the report, then `scores.json`, which says that the run is finished.

    Args:
        scores: with the `behaviour` policy's, where it compares.
        minutes: of training, by phase; `together` says of how many models, without it of all seeds.
    """
    spent = ", ".join(f"{phase} {m:.1f} min" for phase, m in minutes.items())
    cached = f"({compilations.cache_hits} from the cache)"
    compiled = f"{compilations.count} programs compiled in {compilations.seconds:.0f} s {cached}"
    config, data = job.config, job.data
    of = together or f"all {config.seeds} seeds at once"
    own = "behaviour policy (mean of the dataset's episodes): {:.1f}".format
    behaviour = [] if scores.get("behaviour") is None else [own(scores["behaviour"])]
    text = "\n".join([*lines, *behaviour, f"training: {spent} ({of})", compiled])
    replace_text(job.run.path / "report.txt", text + "\n")
    facts = {
        "dataset": data.origin.name,
        "task": data.spec.env_id,
        "preset": config.preset,
        "updates": config.updates,
        "episodes": config.evaluation.episodes,
        "minutes": minutes,
        "compilations": compilations.summary(),
    }
    job.run.write("scores.json", facts | scores)
    print(f"\n{text}\nwritten to {job.run.shared or job.run.path}")
