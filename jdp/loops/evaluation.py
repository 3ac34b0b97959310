"""Scores of a training run: seeds of an agent played together, those of a planner one after another."""

import time
from collections.abc import Callable, Mapping

import jax
from jax import Array
from jax.sharding import Mesh

from jdp.loops.journal import Journal, Memory, Record
from jdp.loops.latency import latency
from jdp.loops.play import Make, Played, play
from jdp.loops.recorder import Recorder
from jdp.types import Json, Policy, PyTree

AfterSeed = Callable[[int, Record, Played, Recorder], None]


def play_together(
    policy: Policy,
    states: PyTree,
    make: Make,
    *,
    key: Array,
    seeds: int,
    episodes: int,
    seed: int = 0,
    mesh: Mesh | None = None,
    journal: Journal | None = None,
    label: str = "evaluate",
) -> Json:
    """The record of one evaluation of S seeds: `returns`, `success`, `lengths` `[S, n]`, `seconds`.

    For `train_in_rounds`; the reset seeds depend on `seed` alone, so all evaluations begin alike.
    """
    journal, began = Memory() if journal is None else journal, time.monotonic()
    with journal.progress(label, seeds * episodes, "episode") as bar:
        played = play(
            policy,
            key,
            states,
            make,
            episodes=episodes,
            seeds=seeds,
            seed=seed,
            progress=lambda _, finished: bar.at(finished),
            mesh=mesh,
        )
    return {
        "returns": played.returns,
        "success": played.success.astype(int),
        "lengths": played.lengths,
        "seconds": time.monotonic() - began,
    }


def play_in_turn(
    policy: Policy,
    states: PyTree,
    make: Make,
    *,
    keys: Mapping[str, Array],
    seeds: int,
    episodes: int,
    decisions: int = 0,
    seed: int = 0,
    place: Mapping[str, tuple[float, float]] | None = None,
    pictures: int = 0,
    mesh: Mesh | None = None,
    journal: Journal | None = None,
    after: AfterSeed | None = None,
    phase: str = "evaluation",
) -> list[Record]:
    """Plays every seed of `states` `[S, ...]`, and times its decisions; what the journal has is not repeated.

    Records of `phase`, one a seed: `returns`, `success`, `lengths` `[n]`, `latency`, `seconds`, and of a
    filtered policy `filter` (`Recorder.told`).

    Args:
        keys: "play" and "latency"; seed `s` uses `fold_in(key, s)`.
        seed: of initial states and goals; seed `s` of the training begins episodes from `seed + 1_000 s`.
        decisions: that are timed; with 0 there is no `latency`.
        pictures: of so many first episodes plans are kept for `after`.
        after: called after each seed that was played now, before its record is logged.
    """
    journal = Memory() if journal is None else journal
    journal.cut(phase, seeds)
    done = {r["step"] for r in journal.records(phase)}
    for s in (s for s in range(seeds) if s + 1 not in done):
        state, recorder = jax.tree.map(lambda x, s=s: x[s], states), Recorder(min(pictures, episodes))
        began = time.monotonic()
        with journal.progress(f"play seed {s}", episodes, "episode") as bar:
            played = play(
                policy,
                jax.random.fold_in(keys["play"], s),
                state,
                make,
                episodes=episodes,
                seed=seed + 1_000 * s,  # every seed has starts and goals of its own
                place=place,
                progress=lambda step, finished, bar=bar: bar.at(finished, step=step),
                watch=recorder,
                observations=True,
                mesh=mesh,
            )
        seconds = time.monotonic() - began
        record: Record = {"returns": played.returns, "success": played.success.astype(int)}
        record |= {"lengths": played.lengths, "seconds": seconds, **recorder.told()}
        if decisions:
            key = jax.random.fold_in(keys["latency"], s)
            record["latency"] = latency(policy, key, state, make, decisions=decisions)._asdict()
        if after is not None:
            after(s, record, played, recorder)
        journal.log(phase, s + 1, record)
    return [r for r in journal.records(phase) if r["step"] <= seeds]
