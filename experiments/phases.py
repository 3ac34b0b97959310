"""The phases of a run, each trained, saved, resumed and evaluated alike."""

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import preemption
from common import Bar
from job import Job
from scoring import score_name, scores_of

import jdp
from jdp import training
from jdp.data.stream import Stream, blocks
from jdp.training import checkpoints, distributed
from jdp.training.runs import writing

INIT = 2**31 - 1  # folded into a phase's key for its initial weights; update i uses i


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


def last_scores(job: Job, phase: str, updates: int) -> dict[str, Any]:
    """Every return of every seed's last checkpoint, the scores and their interval over seeds."""
    record = [r for r in job.run.records(f"{phase}/evaluation") if r["step"] == updates][-1]
    scores = scores_of(record["returns"], job.data.spec).mean(axis=1)
    return {
        "returns": record["returns"],
        "seeds": list(scores),
        "interval": list(jdp.evaluation.interval(scores)),
    }
