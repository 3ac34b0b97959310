"""What the training scripts share: a run and its phases, each trained, saved, resumed and evaluated alike."""

import dataclasses
import hashlib
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
import preemption
from common import Bar, show_download

import jdp
from jdp import training
from jdp.data.mapped import map_rows
from jdp.data.sources import Source
from jdp.data.stream import Stream, blocks
from jdp.evaluation import normalised_score
from jdp.networks import Precision
from jdp.training import checkpoints, distributed
from jdp.training.runs import writing

INIT = 2**31 - 1  # folded into a phase's key for its initial weights; update i uses i


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """What every training script asks for."""

    env: str = "hopper-medium"
    """D4RL name with or without version, Minari id, or path to a D4RL-layout HDF5 file."""
    preset: Literal["smoke", "cpu", "paper"] = "cpu"
    """Defaults of everything else; without it, cpu or paper by device."""
    source: Source = "auto"
    """auto: D4RL on disk, D4RL download, the bundled set; or one of them."""
    env_id: str | None = None
    """Gymnasium task for evaluation, where the dataset does not name one."""
    seed: int = 0
    """Of everything."""
    checkpoint_minutes: float = 3.0
    """Minutes between two checkpoints within a phase."""
    log: tuple[training.SinkName, ...] = ()
    """Where metrics go besides metrics.jsonl (extras tensorboard and wandb)."""
    resume: str | None = None
    """Go on with the newest unfinished run of this configuration, or with the run directory given; auto: the
    newest unfinished one if there is one, else a new one, but nothing where a finished one is there."""
    precision: Precision = "float32"
    """Of the arithmetic of diffusion networks and judges of plans; bf16 is for accelerators. Weights,
    optimisers, averages, losses and targets stay float32, and so do the MLPs of agents, of critics of actions
    and of inverse models."""
    accumulate: int = 1
    """Micro-batches that a batch of a trajectory diffuser or planner is computed in, one after another: less
    memory, the same gradient."""
    stream: bool = False
    """Keep the rows of the dataset in files (under OUT/streams), and gather batches ahead of the updates: for
    datasets larger than the devices."""
    distributed: str | None = None
    """One of many processes of this run: HOST:PORT of process 0, or auto on a cluster that JAX knows
    ($JDP_COORDINATOR)."""
    processes: int | None = None
    """How many there are ($JDP_PROCESSES)."""
    process: int | None = None
    """Which one this is, from 0 ($JDP_PROCESS)."""
    out: Path = Path("results")
    """Where results are written."""


# What changes no number (processes share the batches that one would make).
NOT_IN_HASH = ("out", "resume", "checkpoint_minutes", "log", "stream", "distributed", "processes", "process")


@dataclass(frozen=True)
class Job:
    """What every phase needs: settings, data, where to write, devices, keys by name."""

    config: Any
    data: Any
    run: training.Run
    mesh: Any
    keys: dict[str, jax.Array]


def opening(config: Any, data: Any, notes: str) -> None:
    """Prints which data, task, devices and preset this is."""
    origin, spec, devices = data.origin, data.spec, jax.devices()
    print(f"dataset    {origin.name}")
    print(f"           {origin.path} ({origin.size / 1e6:.1f} MB, SHA-256 {origin.sha256[:16]}...)")
    if origin.notice:
        print(f"           {origin.notice}")
    print(
        f"           {len(data):,} transitions, {len(data.starts):,} episodes, "
        f"mean return {data.returns.mean():.0f} ({score_name(spec)} {behaviour(data):.1f})"
    )
    print(f"task       {spec.env_id}, {spec.observation_dim} observations, {spec.action_dim} actions")
    print(f"device     {len(devices)} x {devices[0].device_kind}")
    print(f"preset     {config.preset}; {notes}")


def load(config: Any) -> Any:
    """The dataset; process 0 goes first, for it may have to download it."""
    where = config.out / "streams" if config.stream else None
    with distributed.main_first("data"):
        return jdp.data.load(
            config.env, source=config.source, env_id=config.env_id, progress=show_download, mapped=where
        )


def _has(settings: Any, name: str) -> bool:
    nested = [getattr(settings, item.name) for item in dataclasses.fields(settings)]
    return hasattr(settings, name) or any(_has(x, name) for x in nested if dataclasses.is_dataclass(x))


def everywhere(settings: Any, name: str, value: Any) -> Any:
    """`settings` whose fields `name`, those of nested settings too, are `value`."""
    changes: dict[str, Any] = {}
    for item in dataclasses.fields(settings):
        old = getattr(settings, item.name)
        if item.name == name:
            changes[name] = value
        elif dataclasses.is_dataclass(old) and not isinstance(old, type):
            changes[item.name] = everywhere(old, name, value)
    return dataclasses.replace(settings, **changes)


def with_options(config: Any, method: str, *parts: str) -> Any:
    """`config` whose `parts` (fields with settings) compute as --precision and --accumulate say.

    Raises:
        UserError: if one of these is given and nothing in the parts has a use for it.
    """
    check_positive({"--accumulate": config.accumulate})
    for name, default in (("precision", "float32"), ("accumulate", 1)):
        value = getattr(config, name)
        if value == default:  # what --settings.*.precision says stays
            continue
        if not any(_has(getattr(config, part), name) for part in parts):
            raise jdp.UserError(f"--{name} {value}: {method} has no network that heeds it: leave it out")
        changes = {part: everywhere(getattr(config, part), name, value) for part in parts}
        config = dataclasses.replace(config, **changes)
    return config


def refuse_stream(config: Any, why: str) -> None:
    """Raises `UserError` where --stream is given but training keeps its rows on the devices."""
    if config.stream:
        raise jdp.UserError(f"--stream: {why}; leave it out")


def mapped(job: Job, what: str, names: Sequence[str], write: Callable[[Path], Any]) -> dict[str, np.memmap]:
    """The memory-mapped arrays `names` of this dataset, which `write(folder)` writes where there are none.

    `what` says what they depend on besides the dataset.
    """
    known = f"{job.data.origin.sha256} {job.data.spec} {what}"
    folder = job.config.out / "streams" / hashlib.sha256(known.encode()).hexdigest()[:16]
    with distributed.main_first("stream"):
        if not all((folder / f"{name}.npy").exists() for name in names):
            write(folder)
        return map_rows(folder, names)


def stream_of(lookup: Any, tables: Any, rows: Any) -> Stream:
    """Of which every process reads its own part of each batch."""
    return Stream(lookup, tables, rows, process=distributed.number(), processes=jax.process_count())


def check_positive(options: Mapping[str, float]) -> None:
    """Raises `UserError` for an option below 1."""
    for option, value in options.items():
        if value < 1:
            raise jdp.UserError(f"{option} is {value}: it must be at least 1")


def check_task(data: Any) -> None:
    """Raises `UserError` unless the dataset names a task that has its observations and actions."""
    if data.spec.env_id is None:
        raise jdp.UserError(f"{data.origin.name} names no task to evaluate in: give --env-id, e.g. Hopper-v5")
    env = jdp.evaluation.make_env(data.spec.env_id)
    shapes = env.observation_space.shape, env.action_space.shape
    env.close()
    wanted = (data.spec.observation_dim,), (data.spec.action_dim,)
    if shapes != wanted:
        raise jdp.UserError(
            f"{data.spec.env_id} has observations and actions of shapes {shapes}, the dataset {wanted}: "
            "give the task it was collected in with --env-id"
        )


def open_run(
    experiment: str,
    config: Any,
    data: Any,
    not_in_hash: tuple[str, ...] = NOT_IN_HASH,
    facts: Mapping[str, Any] | None = None,
) -> training.Run:
    """A new run directory, or with `--resume` the unfinished one of the same configuration.

    With `--resume auto`, ends the script where a finished one is there.
    """
    settings = {k: v for k, v in dataclasses.asdict(config).items() if k not in not_in_hash}
    facts = {
        "dataset": data.origin.name,
        "sha256": data.origin.sha256,
        "spec": dataclasses.asdict(data.spec),
        **(facts or {}),
    }
    where = {"out": config.out, "experiment": experiment, "dataset": config.env, "config": settings}
    resume = config.resume
    if resume == "auto":
        done = distributed.from_main(lambda: str(training.finished_run(**where, facts=facts) or ""))
        if done:
            print(f"finished   {done}")
            sys.exit(0)
        if not distributed.from_main(lambda: str(training.unfinished_run(**where) or "")):
            resume = None
    opened = []

    def start_or_resume() -> str:
        run = training.start_run(**where, facts=facts) if resume is None else resumed(where, resume, facts)
        opened.append(run)
        return str(run.path)

    path = Path(distributed.from_main(start_or_resume))
    run = opened[0] if opened else training.follow_run(path)
    print(f"run        {path}")
    if not distributed.is_main():
        return run
    sinks = tuple(training.make_sink(name, run.path, settings) for name in config.log)
    return dataclasses.replace(run, sinks=sinks)


def resumed(where: Mapping[str, Any], which: str, facts: Mapping[str, Any]) -> training.Run:
    """The unfinished run `which`; "auto" is the newest one."""
    run = training.resume_run(**where, which="latest" if which == "auto" else which, facts=facts)
    if run.read("scores.json") is not None:
        raise jdp.UserError(f"{run.path} is finished: its table is in {run.path / 'report.txt'}")
    return run


def _same(state: Any) -> Any:
    return state


def saver(job: Job, phase: str, last: int, wrap: Callable[[Any], Any] = _same) -> Callable[..., None]:
    """After a chunk: log, with the seconds it took, and save every few minutes and at the end.

    After a SIGTERM it saves and ends the script.
    """
    saved = last_chunk = time.monotonic()

    def after(step: int, state: Any, metrics: dict[str, Any], bar: Bar) -> None:
        nonlocal saved, last_chunk
        loss = np.asarray(next(metrics[k] for k in ("loss", "critic_loss", "bc_loss") if k in metrics))
        if not np.isfinite(loss).all():
            raise jdp.UserError(
                f"{phase}: the loss is not finite at step {step}; lower the learning rate and start again"
            )
        now = time.monotonic()
        job.run.log(phase, step, {**metrics, "seconds": now - last_chunk})
        last_chunk = now
        bar.at(step, loss=float(loss.mean()))
        # Of many processes all save, or none.
        due, stop = distributed.agree(now - saved > 60 * job.config.checkpoint_minutes, preemption.asked())
        if step == last or due or stop:
            checkpoints.save(job.run.folder(phase), step, wrap(state))
            saved = now
        if stop:
            raise preemption.Preempted

    return after


def begin(job: Job, phase: str, init: Callable[..., Any], *args: Any, saved: Any = None) -> tuple[Any, int]:
    """`(state, updates made)` of a phase: from its last checkpoint that can be read, else `init(*args)`.

    `saved` is what the checkpoint holds besides the state, if it does: a dictionary.
    """
    folder = job.run.folder(phase)
    if checkpoints.latest(folder) is None:
        job.run.cut(phase, 0)
        return jax.jit(init)(*args), 0
    like = jax.eval_shape(init, *args)
    found, start, damaged = checkpoints.restore_newest(
        folder, like if saved is None else {"state": like, **saved}
    )
    if distributed.is_main():
        for reason in damaged:
            print(f"{reason}: set aside; going on from step {start:,}", file=sys.stderr)
    job.run.cut(phase, start)
    return found if saved is None else found["state"], start


def train(
    job: Job,
    phase: str,
    update: Any,
    draw: Any,
    state: Any,
    data: Any,
    *,
    key: jax.Array,
    start: int,
    stop: int,
    chunk: int = 100,
    batch_axis: int = 0,
    saved: Any = None,
) -> Any:
    """The whole training of one model, with a bar and checkpoints.

    Batches are `draw(key, data)`, or those of `data` where it is a `Stream`.
    """
    after = saver(job, phase, stop, _same if saved is None else lambda state: {"state": state, **saved})
    with preemption.held(), Bar(f"train {phase}", stop, "step", start) as bar:
        options: dict[str, Any] = {
            "key": key,
            "stop": stop,
            "chunk": chunk,
            "mesh": job.mesh,
            "batch_axis": batch_axis,
        }
        then: Any = lambda *chunk: after(*chunk, bar)  # noqa: E731
        if isinstance(data, Stream):
            with blocks(data, start=start, **options) as made:
                state = training.fit_blocks(update, made, state, **options, after=then)
        else:
            state = training.fit(update, draw, state, data, start=start, **options, after=then)
    return local(state)


def local(state: Any) -> Any:
    """What this process holds of a state that training has replicated over many processes.

    What follows training is then the work of each alone, or is replicated anew.
    """
    return training.on_one(state) if distributed.is_many() else state


def train_agents(
    job: Job,
    phase: str,
    agent: Any,
    pool_for: Callable[[int, Any], Any],
    *,
    sample: Any,
    real_share: float = 1.0,
    updates: int,
    every: int,
    evaluate_every: int | None = None,
) -> Any:
    """All seeds of an agent, stacked `[S, ...]`, in rounds of `every` updates.

    Before a round, `pool_for(begin, states)` gives what its batches are drawn from, of which `real_share`
    are rows of the dataset and the rest synthetic; after it the agents
    are saved, and evaluated after each `evaluate_every` updates (default: every round) and at the end.
    """
    seeds, folder, spec = job.config.seeds, job.run.folder(phase), job.data.spec
    draw = jdp.synthesis.draw_batches(
        agents=seeds,
        batches=agent.batches,
        batch_size=job.config.batch_size,
        real_share=real_share,
        dims=(spec.observation_dim, spec.action_dim),
    )
    keys = jax.random.split(jax.random.fold_in(job.keys["agents"], INIT), seeds)
    states, start = begin(job, phase, jax.vmap(agent.init, in_axes=(0, None)), keys, sample)
    job.run.cut(f"{phase}/evaluation", start)
    after = saver(job, phase, updates)
    step = start
    for first in range(0, updates, every):
        end = min(first + every, updates)
        if end < start:
            continue
        if step < end:
            data = pool_for(first, states)
            with preemption.held(), Bar(f"{phase}: train agents", updates, "update", step) as bar:
                states = training.fit(
                    vmapped(agent.update, seeds),
                    draw,
                    states,
                    data,
                    key=job.keys["agents"],
                    start=step,
                    stop=end,
                    chunk=200,
                    mesh=job.mesh,
                    batch_axis=1,
                    after=lambda *chunk, bar=bar: after(*chunk, bar),
                )
                checkpoints.save(folder, end, states)
            states, step = local(states), end
        due = end == updates or end // (evaluate_every or every) > first // (evaluate_every or every)
        if due and not any(r["step"] == end for r in job.run.records(f"{phase}/evaluation")):
            evaluate(job, phase, agent, end, states)
    return states


def _update_all(key: jax.Array, states: Any, batch: Any, *, update: Any, seeds: int) -> Any:
    return jax.vmap(update)(jax.random.split(key, seeds), states, batch)


def vmapped(update: Any, seeds: int) -> Any:
    """One update of all seeds; equal arguments make equal functions, which compile once."""
    return jdp.types.Bound(_update_all, (("update", update), ("seeds", seeds)))


def evaluate(job: Job, phase: str, agent: Any, step: int, states: Any) -> None:
    """Plays episodes with every seed and logs all returns; the reset seeds depend on nothing else."""
    episodes, began = job.config.evaluation.episodes, time.monotonic()
    with Bar(f"{phase}: evaluate", job.config.seeds * episodes, "episode") as bar:
        played = jdp.evaluation.evaluate(
            jdp.evaluation.make_policy_step(agent, job.mesh),
            states,
            job.data.spec.env_id,
            episodes=episodes,
            seed=job.config.seed + 1_000_000,
            progress=lambda _, finished: bar.at(finished),
            mesh=job.mesh,
        )
    scores = scores_of(played.returns, job.data.spec)
    seconds = time.monotonic() - began
    record = {"returns": played.returns, "lengths": played.lengths, "seconds": seconds}
    job.run.log(f"{phase}/evaluation", step, record)
    print(f"{phase}: {score_name(job.data.spec)} after {step:,} updates: "
          f"{', '.join(f'{s:.1f}' for s in scores.mean(axis=1))} (one a seed)")  # fmt: skip


def kept(job: Job, name: str, begin: int, make: Callable[[], dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """The arrays that serve the round from `begin` on, kept on disk until those of the next round but one.

    A run that was cut goes on with the same arrays, also from its last checkpoint but one.
    """
    path: Path = job.run.path / "synthetic" / f"{name}-{begin}.npz"
    if path.exists():
        with np.load(path, allow_pickle=False) as file:
            arrays = dict(file)
    else:
        arrays = make()
        path.parent.mkdir(exist_ok=True)
        part = path.with_suffix(".part")
        with writing(path), part.open("wb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]
            file.flush()
            os.fsync(file.fileno())
        part.rename(path)
    rounds = {int(p.stem.removeprefix(f"{name}-")): p for p in path.parent.glob(f"{name}-*.npz")}
    for old in sorted(number for number in rounds if number < begin)[:-1]:
        rounds[old].unlink()
    return arrays


def training_seconds(job: Job, phase: str) -> float:
    """Wall time of a phase's training as logged, without its evaluations."""
    logged = sum(r["seconds"] for r in job.run.records(phase))
    # An evaluation between two chunks is in the time of the second one; the last comes after all of them.
    return logged - sum(r["seconds"] for r in job.run.records(f"{phase}/evaluation")[:-1])


def score_name(spec: Any) -> str:
    return "return" if spec.score_range is None else "normalised score"


def scores_of(returns: Any, spec: Any) -> np.ndarray:
    """Normalised scores of returns; the returns themselves where the task has no reference scores."""
    returns = np.asarray(returns, np.float64)
    return returns if spec.score_range is None else normalised_score(returns, spec.score_range)


def behaviour(data: Any) -> float:
    """The mean score of the dataset's own episodes."""
    return float(scores_of(data.returns, data.spec).mean())


def with_interval(values: Any, digits: int = 1) -> str:
    """`mean [low, high]`, without bounds where there are none."""
    mean, low, high = (float("nan") if v is None else v for v in values)
    if not np.isfinite([low, high]).all():
        return f"{mean:.{digits}f}"
    return f"{mean:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def last_scores(job: Job, phase: str, updates: int) -> dict[str, Any]:
    """Every return of every seed's last checkpoint, the scores and their interval over seeds."""
    record = [r for r in job.run.records(f"{phase}/evaluation") if r["step"] == updates][-1]
    scores = scores_of(record["returns"], job.data.spec).mean(axis=1)
    return {
        "returns": record["returns"],
        "seeds": list(scores),
        "interval": list(jdp.evaluation.interval(scores)),
    }
