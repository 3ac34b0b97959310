"""What the training scripts share: a run and its phases, each trained, saved, resumed and evaluated alike."""

import dataclasses
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
from common import Bar

import jdp
from jdp import training
from jdp.data.sources import Source
from jdp.evaluation import normalised_score
from jdp.training import checkpoints

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
    """Go on with the newest unfinished run of this configuration, or with the run directory given."""
    out: Path = Path("results")
    """Where results are written."""


NOT_IN_HASH = ("out", "resume", "checkpoint_minutes", "log")  # what changes no number


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
    """A new run directory, or with `--resume` the unfinished one of the same configuration."""
    settings = {k: v for k, v in dataclasses.asdict(config).items() if k not in not_in_hash}
    facts = {
        "dataset": data.origin.name,
        "sha256": data.origin.sha256,
        "spec": dataclasses.asdict(data.spec),
        **(facts or {}),
    }
    where = (config.out, experiment, config.env)
    if config.resume is None:
        run = training.start_run(*where, settings, facts)
    else:
        run = training.resume_run(*where, settings, config.resume, facts)
        if run.read("scores.json") is not None:
            raise jdp.UserError(f"{run.path} is finished: its table is in {run.path / 'report.txt'}")
    print(f"run        {run.path}")
    sinks = tuple(training.make_sink(name, run.path, settings) for name in config.log)
    return dataclasses.replace(run, sinks=sinks)


def _same(state: Any) -> Any:
    return state


def saver(job: Job, phase: str, last: int, wrap: Callable[[Any], Any] = _same) -> Callable[..., None]:
    """After a chunk: log, with the seconds it took, and save every few minutes and at the end."""
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
        if step == last or now - saved > 60 * job.config.checkpoint_minutes:
            checkpoints.save(job.run.folder(phase), step, wrap(state))
            saved = now

    return after


def begin(job: Job, phase: str, init: Callable[..., Any], *args: Any, saved: Any = None) -> tuple[Any, int]:
    """`(state, updates made)` of a phase: from its last checkpoint, else `init(*args)`.

    `saved` is what the checkpoint holds besides the state, if it does: a dictionary.
    """
    folder = job.run.folder(phase)
    start = checkpoints.latest(folder) or 0
    job.run.cut(phase, start)
    if not start:
        return jax.jit(init)(*args), 0
    like = jax.eval_shape(init, *args)
    if saved is None:
        return checkpoints.restore(folder, like), start
    return checkpoints.restore(folder, {"state": like, **saved})["state"], start


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
    """The whole training of one model, with a bar and checkpoints."""
    after = saver(job, phase, stop, _same if saved is None else lambda state: {"state": state, **saved})
    with Bar(f"train {phase}", stop, "step", start) as bar:
        return training.fit(
            update,
            draw,
            state,
            data,
            key=key,
            start=start,
            stop=stop,
            chunk=chunk,
            mesh=job.mesh,
            batch_axis=batch_axis,
            after=lambda *chunk: after(*chunk, bar),
        )


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
            with Bar(f"{phase}: train agents", updates, "update", step) as bar:
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
            step = end
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
            jdp.evaluation.make_policy_step(agent),
            states,
            job.data.spec.env_id,
            episodes=episodes,
            seed=job.config.seed + 1_000_000,
            progress=lambda _, finished: bar.at(finished),
        )
    scores = scores_of(played.returns, job.data.spec)
    seconds = time.monotonic() - began
    record = {"returns": played.returns, "lengths": played.lengths, "seconds": seconds}
    job.run.log(f"{phase}/evaluation", step, record)
    print(f"{phase}: {score_name(job.data.spec)} after {step:,} updates: "
          f"{', '.join(f'{s:.1f}' for s in scores.mean(axis=1))} (one a seed)")  # fmt: skip


def kept(job: Job, name: str, begin: int, make: Callable[[], dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """The arrays that serve the round from `begin` on, kept on disk until those of the next round.

    A run that was cut goes on with the same arrays.
    """
    path: Path = job.run.path / "synthetic" / f"{name}-{begin}.npz"
    if path.exists():
        with np.load(path, allow_pickle=False) as file:
            arrays = dict(file)
    else:
        arrays = make()
        path.parent.mkdir(exist_ok=True)
        part = path.with_suffix(".part")
        with part.open("wb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]
            file.flush()
            os.fsync(file.fileno())
        part.rename(path)
    for other in path.parent.glob(f"{name}-*.npz"):
        if other != path:
            other.unlink()
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
