"""align.py --benchmark: every method on the mixture, by one table and two figures.

    python experiments/align.py --benchmark --seeds 5

Samples are compared with the exact tilt by the linear reward; those of methods that learn from teachers with
each teacher. Everything goes to results/align_benchmark/toy/<run>/; --resume goes on with the next method.
"""

import time
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from aligning import KEYS, AlignOptions, Subject, calls_of, score_of, seed_of, subject
from command_line import parse_preset
from online_rl import NOT_IN_HASH
from opening import open_job, save_figure
from options import EvaluationConfig, TrainingOptions, check_positive

from jdp import devices, evaluation, loops, plotting, registry
from jdp.alignment import toy
from jdp.alignment.presets import TOY
from jdp.alignment.support import guard
from jdp.errors import check_seed
from jdp.registry import Entry
from jdp.runs import Job, RunJournal
from jdp.runs.directories import replace_text
from jdp.runs.models import stand_in
from jdp.types import Json, Logged, PyTree, Spec

POINTS = 8  # of a curve
FINAL = 5_000  # samples of every seed that the table is of
EQUAL = 1e6  # network calls at which rewards are compared
COLUMNS = {
    "energy_distance": "energy distance",
    "mode_error": "mode error",
    "reward": "mean reward",
    "off_support": "off support",
    "divergence": "divergence (nats)",
    "variation_distance": "variation distance (tokens)",
}


@dataclass(frozen=True, kw_only=True)
class Config(TrainingOptions):
    """Compare all methods of alignment on the mixture."""

    benchmark: bool = True
    """What is asked for here."""
    env: str = TOY
    """What results are filed under."""
    methods: tuple[str, ...] = ()
    """Those that are compared; without any, all."""
    seeds: int = 1
    """Training seeds of each, trained at once."""
    samples: int = 2000
    """Samples that are scored."""
    given: int = 4096
    """Pairs, or experts' samples, that are drawn."""
    updates: int = 0
    """Of every method; 0: as its preset says."""
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)


PRESETS = {
    "smoke": Config(preset="smoke", samples=64, given=64),
    "cpu": Config(preset="cpu"),
    "paper": Config(preset="paper", seeds=5),
}


def main() -> None:
    config = parse_preset(PRESETS, __doc__ or "")
    check_seed(config.seed, "--seed")
    check_positive({f"--{name}": getattr(config, name) for name in ("seeds", "samples", "given")})
    for plugin in config.plugin:
        registry.load_plugin(plugin)
    known = registry.entries("alignment")
    entries = {name: registry.entry("alignment", name) for name in config.methods or known}
    data = stand_in(Spec(observation_dim=2, action_dim=0, env_id="the toy"), name=TOY, kind="none")
    notes = f"{len(entries)} methods, {config.seeds} seeds at once"
    job = open_job("align_benchmark", config, data, notes, KEYS, not_in_hash=NOT_IN_HASH)
    compilations = devices.count_compilations()
    found: dict[str, Json] = {}
    panels: dict[str, np.ndarray] = {}
    for name, entry in entries.items():
        found[name], panels = compared(job, entry, panels)
        print(f"{name:<16}" + ", ".join(f"{k} {np.mean(v):.3g}" for k, v in found[name]["final"].items()))
    report(job, entries, found, panels, compilations)


def compared(
    job: Job[Config], entry: Entry, panels: dict[str, np.ndarray]
) -> tuple[Json, dict[str, np.ndarray]]:
    """Trains one method with its toy preset; what it reached along the way, and its samples."""
    config, preset = job.config, entry.presets(registry.Task(TOY))[job.config.preset]  # type: ignore[misc]
    own = AlignOptions[Any](
        **{name: getattr(config, name) for name in ("seed", "seeds", "samples", "given", "preset")},
        method=entry.name,
        settings=preset.settings,
        batch_size=preset.batch_size,
        updates=config.updates or preset.updates,
    )
    found = subject(own, entry)
    calls = calls_of(entry, own, found)

    def measured(params: PyTree, found: Subject = found) -> Json:
        """Every seed by draws of its own, so that an interval has the noise of its samples in it."""
        each = [
            score_of(found, seed_of(params, s), {"score": jax.random.fold_in(job.keys["score"], s)})[1]
            for s in range(config.seeds)
        ]
        return {name: [said[name] for said in each] for name in each[0]}

    many = found if config.preset == "smoke" else found._replace(each=max(FINAL // len(found.conditions), 1))
    own_samples = samples_of(found, found.base.params, job.keys)
    if not panels and found.targets is not None and own_samples is not None:
        exact = np.asarray(found.targets[0].sample(job.keys["target"], config.samples))
        panels = {"before": own_samples, "exact optimum": exact}
    start = measured(jax.tree.map(lambda x: jnp.stack([x] * config.seeds), found.base.params))
    states = loops.train(
        entry.make(own.settings, found.base.model),
        found.given,
        key=jax.random.fold_in(job.keys["train"], zlib.crc32(entry.name.encode())),
        updates=own.updates,
        batch_size=own.batch_size,
        seeds=config.seeds,
        chunk=max(-(-own.updates // POINTS), 1),
        mesh=job.mesh,
        journal=Watching(job.journal, lambda state: measured(state.trained.params)),  # type: ignore[arg-type]
        phase=entry.name,
        stop_when=guard(job.keys["support"], found.given, own.settings, found.base.model),
    )
    records = job.journal.records(f"{entry.name}/scores")
    own_samples = samples_of(found, seed_of(states.trained.params, 0), job.keys)
    panels = panels if own_samples is None else {**panels, entry.title: own_samples}
    curve = {name: [start[name], *(r[name] for r in records)] for name in start}
    steps = [0, *(r["step"] for r in records)]
    seconds = loops.training_seconds(job.journal, entry.name) - sum(r["seconds"] for r in records[:-1])
    final = measured(states.trained.params, many)
    return {"calls": [calls * s for s in steps], "curve": curve, "final": final, "seconds": seconds}, panels


@dataclass
class Watching:
    """A journal that also scores what is learned after each chunk."""

    journal: RunJournal
    measured: Callable[[PyTree], Json]

    def __getattr__(self, name: str) -> Any:
        return getattr(self.journal, name)

    def begin(self, phase: str, *args: Any, **options: Any) -> tuple[PyTree, int]:
        state, start = self.journal.begin(phase, *args, **options)
        self.journal.cut(f"{phase}/scores", start)
        return state, start

    def after(self, phase: str, step: int, last: int, state: PyTree, metrics: Logged) -> None:
        began = time.monotonic()
        scored = self.measured(state)
        self.journal.log(f"{phase}/scores", step, {**scored, "seconds": time.monotonic() - began})
        self.journal.after(phase, step, last, state, metrics)


def samples_of(found: Subject, params: PyTree, keys: Mapping[str, jax.Array]) -> np.ndarray | None:
    """What is scored; None of tokens, which are scored without."""
    score = score_of(found, params, keys)[0]
    return None if score is None else np.asarray(score.samples)


def report(
    job: Job[Config],
    entries: Mapping[str, Entry],
    found: Mapping[str, Json],
    panels: Mapping[str, np.ndarray],
    compilations: devices.Compilations,
) -> None:
    """The table, `scores.json`, and the figures."""
    config = job.config
    header = ["method", *COLUMNS.values(), f"reward at {EQUAL / 1e6:g} M calls", "network calls", "seconds"]
    lines = ["| " + " | ".join(header) + " |", "|---" * len(header) + "|"]
    for name, one in found.items():
        cells = [said(one["final"].get(column), config.seeds) for column in COLUMNS]
        cells += [at_equal_calls(one), f"{one['calls'][-1] / 1e6:.2f} M", f"{one['seconds']:.0f}"]
        lines.append("| " + " | ".join([entries[name].title, *cells]) + " |")
    text = "\n".join(lines)
    replace_text(job.run.path / "report.txt", text + "\n")
    title = "samples of every method on the mixture"
    save_figure(job, "samples", plotting.samples(panels, title=title))
    by_reward = {
        name: one
        for name, one in found.items()
        if {"reward", "mode_error"} <= set(one["curve"]) and len(one["calls"]) > 1
    }
    curves = {
        entries[name].title: (one["calls"][1:], np.array(one["curve"]["reward"][1:]))
        for name, one in by_reward.items()
    }
    if curves:
        best = float(np.mean(panels["exact optimum"] @ np.array(toy.SLOPE)))
        figure = plotting.efficiency(
            curves, optimum=best, score="mean reward", title="dotted: the exact optimum"
        )
        save_figure(job, "efficiency", figure)
    job.run.write("scores.json", {"methods": found, "compilations": compilations.summary()})
    print(f"\n{text}\nwritten to {job.run.path}")


def at_equal_calls(one: Json) -> str:
    """The mean reward after `EQUAL` network calls, between the points of the curve; "" beyond its end."""
    if "reward" not in one["curve"] or one["calls"][-1] < EQUAL:
        return ""
    return f"{np.interp(EQUAL, one['calls'], np.mean(one['curve']['reward'], axis=1)):.3f}"


def said(values: Any, seeds: int) -> str:
    """Of every seed, with the interval over them."""
    if values is None:
        return ""
    if seeds == 1:
        return f"{values[0]:.3f}"
    mean, low, high = evaluation.interval(values)
    return f"{mean:.3f} [{low:.3f}, {high:.3f}]"
