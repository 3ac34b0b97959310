"""The phases of a run, each trained, saved, resumed and evaluated alike."""

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import numpy as np
import preemption
from common import Bar
from job import Job
from scoring import score_name, scores_of

import jdp
from jdp import devices, loops
from jdp.data.stream import Stream, blocks
from jdp.devices import distributed
from jdp.runs import checkpoints
from jdp.runs.directories import replacing

INIT = 2**31 - 1  # folded into a phase's key for its initial weights; update i uses i


def _same(state: Any) -> Any:
    return state


@dataclass
class Saver:
    """What is done after a chunk: it is logged, with its seconds; now and then, and at the end, saved.

    After a SIGTERM it is saved, and the script ends.
    """

    job: Job
    phase: str
    last: int
    wrap: Callable[[Any], Any] = _same
    saved: float = field(default_factory=time.monotonic)
    begun: float = field(default_factory=time.monotonic)

    def restart(self) -> None:
        """What was done since the last chunk is no training."""
        self.begun = time.monotonic()

    def __call__(self, step: int, state: Any, metrics: dict[str, Any], bar: Bar) -> None:
        loss = np.asarray(next(metrics[k] for k in ("loss", "critic_loss", "bc_loss") if k in metrics))
        if not np.isfinite(loss).all():
            raise jdp.UserError(
                f"{self.phase}: the loss is not finite at step {step}; lower the learning rate, start again"
            )
        now = time.monotonic()
        self.job.run.log(self.phase, step, {**metrics, "seconds": now - self.begun})
        self.begun = now
        bar.at(step, loss=float(loss.mean()))
        late = now - self.saved > 60 * self.job.config.checkpoint_minutes
        due, stop = distributed.agree(late, preemption.asked())  # of many processes all save, or none
        if step == self.last or due or stop:
            checkpoints.save(self.job.run.folder(self.phase), step, self.wrap(state))
            self.saved = now
        if stop:
            raise preemption.Preempted


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
    after = Saver(job, phase, stop, _same if saved is None else lambda state: {"state": state, **saved})
    with preemption.held(), Bar(f"train {phase}", stop, "step", start) as bar:
        options: dict[str, Any] = {
            "key": key,
            "stop": stop,
            "chunk": chunk,
            "mesh": job.mesh,
            "batch_axis": batch_axis,
        }

        def then(step: int, state: Any, metrics: dict[str, Any]) -> None:
            after(step, state, metrics, bar)

        if isinstance(data, Stream):
            with blocks(data, start=start, **options) as made:
                state = loops.fit_blocks(update, made, state, **options, after=then)
        else:
            state = loops.fit(update, draw, state, data, start=start, **options, after=then)
    return local(state)


def local(state: Any) -> Any:
    """What this process holds of a state that training has replicated over many processes.

    What follows training is then the work of each alone, or is replicated anew.
    """
    return devices.on_one(state) if distributed.is_many() else state


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
    after = Saver(job, phase, updates)
    step = start
    for first in range(0, updates, every):
        end = min(first + every, updates)
        if end < start:
            continue
        if step < end:
            data = pool_for(first, states)
            with preemption.held(), Bar(f"{phase}: train agents", updates, "update", step) as bar:
                states = loops.fit(
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
                    after=lambda step, state, metrics, bar=bar: after(step, state, metrics, bar),
                )
                checkpoints.save(folder, end, states)
            states, step = local(states), end
        due = end == updates or end // (evaluate_every or every) > first // (evaluate_every or every)
        if due and not any(r["step"] == end for r in job.run.records(f"{phase}/evaluation")):
            evaluate(job, phase, agent, end, states)
            after.restart()
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
        with replacing(path, "wb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]
    rounds = {int(p.stem.removeprefix(f"{name}-")): p for p in path.parent.glob(f"{name}-*.npz")}
    for old in sorted(number for number in rounds if number < begin)[:-1]:
        rounds[old].unlink()
    return arrays


def training_seconds(job: Job, phase: str) -> float:
    """Wall time of a phase's training as logged, in all its processes, without its evaluations."""
    return sum(r["seconds"] for r in job.run.records(phase))


def last_scores(job: Job, phase: str, updates: int) -> dict[str, Any]:
    """Every return of every seed's last checkpoint, the scores and their interval over seeds."""
    record = [r for r in job.run.records(f"{phase}/evaluation") if r["step"] == updates][-1]
    scores = scores_of(record["returns"], job.data.spec).mean(axis=1)
    return {
        "returns": record["returns"],
        "seeds": list(scores),
        "interval": list(jdp.evaluation.interval(scores)),
    }
