"""How training scripts begin and end: the dataset shown, a run directory opened, a report written."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import jax
from options import NOT_IN_HASH, RunConfig, check_positive
from progress import Bar, MakingBar, show_download

import jdp
from jdp import devices, loops, runs
from jdp.data import Episodes
from jdp.data.recipes import Making
from jdp.errors import check_seed
from jdp.evaluation import behaviour_score, environment_maker, score_name, scores_of
from jdp.loops.journal import Record
from jdp.runs.directories import replace_text
from jdp.runs.job import Job, load_dataset, open_run
from jdp.runs.journal import RunJournal
from jdp.types import Method, PyTree, named_keys

C = TypeVar("C", bound=RunConfig)


def load(config: RunConfig) -> Episodes:
    """The dataset of `--env`; with --stream its rows are mapped from files."""
    check_seed(config.seed, "--seed")
    for sink in config.log:
        runs.check_sink(sink)
    files = config.out / "streams" if config.stream else None
    return load_dataset(
        lambda: jdp.data.load(
            config.env,
            source=config.source,
            env_id=config.env_id,
            max_episode_steps=config.max_episode_steps,
            actions=config.actions,
            progress=show_download,
            making=Making(progress=MakingBar()),
            mapped=files,
        )
    )


def open_job(
    experiment: str,
    config: C,
    data: Episodes,
    notes: str,
    keys: Sequence[str],
    *,
    not_in_hash: tuple[str, ...] = NOT_IN_HASH,
    facts: Mapping[str, Any] | None = None,
    windows: int = 1,
) -> Job[C]:
    """Shows dataset, task, devices and preset, and opens the run directory.

    Args:
        keys: the names of their uses.
        windows: steps of what is trained on; rows that lie in none are told.
    """
    show(config, data, notes, windows)
    run = open_run(experiment, config, data, not_in_hash=not_in_hash, facts=facts)
    print(f"run        {run.shared or run.path}")
    if run.notice:
        print(f"           goes on under others than it began with, so digits may differ: {run.notice}")
    journal = RunJournal(run, config.checkpoint_minutes, Bar, print)
    return Job(config, data, journal, devices.data_mesh(), named_keys(jax.random.key(config.seed), *keys))


def show(config: RunConfig, data: Episodes, notes: str, windows: int) -> None:
    """Prints which data, task, devices and preset this is."""
    origin, spec, found = data.origin, data.spec, jax.devices()
    print(f"dataset    {origin.name}")
    print(f"           {origin.path} ({origin.size / 1e6:.1f} MB, SHA-256 {origin.sha256[:16]}...)")
    if origin.notice:
        print(f"           {origin.notice}")
    print(
        f"           {len(data):,} transitions, {len(data.starts):,} episodes, "
        f"mean return {data.returns.mean():.0f} ({score_name(spec)} {behaviour_score(data):.1f})"
    )
    if left_out := jdp.data.left_out_notice(data, windows):
        print(f"           {left_out}")
    print(f"task       {spec.env_id}, {spec.observation_dim} observations, {spec.action_dim} actions")
    print(f"device     {len(found)} x {found[0].device_kind}")
    print(f"preset     {config.preset}; {notes}")


def check_counts(config: RunConfig, *options: str) -> None:
    """Raises `UserError` for an option below 1; "diffusion.steps" is the option --diffusion.steps."""
    values = {}
    for option in options:
        value: Any = config
        for name in option.split("."):
            value = getattr(value, name)
        values["--" + option.replace("_", "-")] = value
    check_positive(values)


def check_batches(config: RunConfig, *options: str) -> None:
    """Raises `UserError` where a batch of these options does not divide over the devices."""
    mesh = devices.data_mesh()
    for option in options:
        *path, name = option.split(".")
        part: Any = config
        for step in path:
            part = getattr(part, step)
        parts = getattr(part, "accumulate", 1)
        devices.check_divisible(getattr(part, name), mesh, "--" + option.replace("_", "-"), parts)


def finish(job: Job[RunConfig], text: str, scores: Record) -> None:
    """Writes and prints the report, then `scores.json`, which says that the run is finished."""
    replace_text(job.run.path / "report.txt", text + "\n")
    job.run.write("scores.json", scores)
    print(f"\n{text}\nwritten to {job.run.shared or job.run.path}")


def compiled(found: devices.Compilations) -> str:
    """How much was compiled, in a line of a report."""
    cached = f"({found.cache_hits} from the cache)"
    return f"{found.count} programs compiled in {found.seconds:.0f} s {cached}"


def figures(job: Job[RunConfig]) -> Path:
    """The folder of figures, made where it is missing."""
    folder = job.run.path / "figures"
    folder.mkdir(exist_ok=True)
    return folder


def scored(
    job: Job[RunConfig], phase: str, method: Method, seeds: int, episodes: int
) -> Callable[[int, PyTree], Record]:
    """What evaluates all seeds of an agent, played together; the reset seeds depend on nothing else."""
    config, spec = job.config, job.data.spec

    def evaluate(step: int, states: PyTree) -> Record:
        record = loops.play_together(
            method.policy,
            states,
            environment_maker(spec),
            key=jax.random.key(config.seed),  # agents are evaluated by their mean action, which draws nothing
            seeds=seeds,
            episodes=episodes,
            seed=config.seed + 1_000_000,
            mesh=job.mesh,
            journal=job.journal,
            label=f"{phase}: evaluate",
        )
        scores = scores_of(record["returns"], spec).mean(axis=1)
        shown = ", ".join(f"{s:.1f}" for s in scores)
        print(f"{phase}: {score_name(spec)} after {step:,} updates: {shown} (one a seed)")
        return record

    return evaluate
