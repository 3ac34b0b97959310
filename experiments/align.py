"""Alignment: a diffusion model is tuned to a reward, to preferences or to teachers, scored before and after.

    python experiments/align.py --method ddpo --model toy
    python experiments/align.py --method ddpo --model maze2d-umaze-diffuser --reward avoid --avoid.centre 2 1
    python experiments/align.py --method diffusion_dpo --model RUN --reward mine.py:reward
    python experiments/align.py --benchmark --seeds 5

MODEL is a mixture in the plane whose optimum is known exactly (toy), a run of policies.py (diffusion_policy)
or plan.py (diffuser), a file of `export.py --weights`, or the name of a model that comes with jdp. A reward
is a function of plans `(observations [B, T, O], actions [B, T, A], goal [B, G]) -> [B]` or of chunks of
actions `(observation [B, O], actions [B, E, A], goal [B, G]) -> [B]`. The method's settings are --settings.*.
Everything goes to results/align/<dataset>/<run>/, which is then a run like that of the model:
evaluate.py RUN plays it. A run that was cut goes on with --resume. With --benchmark all methods are compared
on the toy. Presets: smoke (seconds), cpu (a minute on two cores), paper (the papers' sizes).
"""

import dataclasses
from collections.abc import Mapping
from functools import partial

import align_benchmark
import jax
import jax.numpy as jnp
import numpy as np
from aligning import KEYS, AlignOptions, Config, Scored, Subject, calls_of, score_of, seed_of, subject
from closed_loop import PlayConfig, evaluate
from command_line import arguments, first_words, run_main
from methods import Options, method_command
from online_rl import NOT_IN_HASH
from opening import finish, minutes, open_job, save_figure, score_line
from options import check_positive

from jdp import devices, evaluation, loops, plotting
from jdp.alignment.bases import stacked
from jdp.alignment.presets import TOY
from jdp.alignment.support import left
from jdp.errors import check_seed
from jdp.registry import Entry, Preset
from jdp.runs import Job
from jdp.runs.models import stand_in
from jdp.tasks import maze_of
from jdp.types import Json, PyTree, Spec

PICTURED = 24  # plans that are drawn


def main() -> None:
    if "--benchmark" in arguments():
        return align_benchmark.main()
    asked = first_words(model=TOY, plugin=()).model
    where = TOY if asked == TOY else "run"
    usual = partial(presets, where)
    entry, config = method_command(
        "alignment", "ddpo", AlignOptions, __doc__ or "", usual, "method", env=where
    )
    compilations = devices.count_compilations()
    check(config)
    found = subject(config, entry)
    config = dataclasses.replace(config, env=found.env)
    learner = entry.make(config.settings, found.base.model)
    job = opened(config, entry, found)
    calls = calls_of(entry, config, found)
    before, acted = scored(job, found, jax.tree.map(lambda x: x[None], found.base.params)), None
    if found.run is not None:
        same = jax.tree.map(lambda x: jnp.stack([x] * config.seeds), found.run.state(config.model_seed))
        acted = evaluate(job, found.run.name, found.run.method, same, "base/evaluation")
    states = loops.train(
        learner,
        found.given,
        key=job.keys["train"],
        updates=config.updates,
        batch_size=config.batch_size,
        seeds=config.seeds,
        chunk=max(config.updates // 20, 1),
        mesh=job.mesh,
        journal=job.journal,
        phase="alignment",
        stop_when=left(config.settings.off_support_bound, found.base.model, found.given.rows),
    )
    params = states.trained.params
    after, acts = scored(job, found, params), None
    if found.run is not None:
        method = stacked(found.base, params)
        job.journal.save(found.run.kind, config.updates, method)  # what load_run finds
        acts = evaluate(job, f"{found.run.name} after {entry.name}", found.run.method, method)
    draw(job, entry, found, before, after)
    report(job, entry, found, (before, after), (acted, acts), calls * config.updates, compilations)


def presets(where: str, entry: Entry, found: Mapping[str, Preset]) -> dict[str, Options]:
    """What presets say beside the method."""
    small = {"smoke": (64, 64), "cpu": (4096, 2000), "paper": (16384, 10_000)}
    of_runs = {"smoke": (32, 32), "cpu": (1024, 512), "paper": (16384, 4096)}
    sizes, made = small if where == TOY else of_runs, {}
    for name, preset in found.items():
        given, samples = sizes[name]
        play = PlayConfig(decisions=5, pictures=2) if name == "smoke" else PlayConfig()
        play = dataclasses.replace(play, episodes=preset.episodes or play.episodes)
        made[name] = {"given": given, "samples": samples, "evaluation": play}
    return made


def check(config: Config) -> None:
    """Raises `UserError` for counts below 1, and a seed out of range."""
    check_seed(config.seed, "--seed")
    names = ("seeds", "updates", "batch_size", "samples", "given", "best_of")
    check_positive({f"--{name.replace('_', '-')}": getattr(config, name) for name in names})
    check_positive({"--evaluation.episodes": config.evaluation.episodes})
    devices.check_divisible(config.batch_size, devices.data_mesh(), "--batch-size")


def opened(config: Config, entry: Entry, found: Subject) -> Job[Config]:
    """The run directory, which says what is aligned."""
    notes, run = f"{entry.name}, {config.seeds} seeds at once", found.run
    if run is None:
        spec = Spec(observation_dim=2, action_dim=0, env_id="the toy")
        return open_job(
            "align", config, stand_in(spec, name=TOY, kind="none"), notes, KEYS, not_in_hash=NOT_IN_HASH
        )
    data = stand_in(run.spec, name=str(run.written["dataset"]), kind="none")
    data = dataclasses.replace(data, origin=dataclasses.replace(data.origin, sha256=run.written["sha256"]))
    known = {"kind": run.kind, "method": run.name, "settings": dataclasses.asdict(run.settings)}  # type: ignore[call-overload]
    facts = {"aligned": {**known, "command": run.command}}
    print(f"model      {run.path}: {run.name}, trained on {run.written['dataset']}")
    return open_job("align", config, data, notes, KEYS, not_in_hash=NOT_IN_HASH, facts=facts)


def scored(job: Job[Config], found: Subject, params: PyTree) -> list[Scored]:
    """Of every seed's parameters `[S, ...]` the score, and the numbers of a report."""
    seeds = len(jax.tree.leaves(params)[0])
    return [score_of(found, seed_of(params, s), job.keys) for s in range(seeds)]


def draw(
    job: Job[Config],
    entry: Entry,
    found: Subject,
    before: list[Scored],
    after: list[Scored],
) -> None:
    """Samples of the first seed before and after: of the toy beside the exact optimum, plans in a maze."""
    was, now = before[0][0], after[0][0]
    if was is None or now is None:
        return
    panels = {"before": was.samples, f"after {entry.title}": now.samples}
    title = f"{entry.title}, {job.config.updates:,} updates"
    if found.run is None:
        if found.targets is not None:
            n = found.each
            exact = [
                mix.sample(jax.random.fold_in(job.keys["target"], i), n)
                for i, mix in enumerate(found.targets)
            ]
            panels["exact optimum"] = jnp.concatenate(exact)
        save_figure(
            job, "samples", plotting.samples({k: np.asarray(x) for k, x in panels.items()}, title=title)
        )
        return
    spec = found.run.spec
    maze = maze_of(spec) if spec.goal and found.base.kind == "plans" else None
    if maze is None:
        return
    seen, entries = jnp.repeat(found.conditions, found.each, axis=0), list(spec.goal)
    units = {name: found.base.units(x, seen) for name, x in panels.items()}
    at = np.linspace(0, len(seen) - 1, min(PICTURED, len(seen))).astype(int)
    plans = {name: np.asarray(x[0][..., jnp.array(entries)])[at] for name, x in units.items()}
    goals, avoid = np.asarray(units["before"][2])[at], job.config.avoid
    disc = (avoid.centre, avoid.radius) if job.config.reward == "avoid" else None
    save_figure(job, "aligned_plans", plotting.aligned_plans(maze, plans, goals, title=title, disc=disc))


def report(
    job: Job[Config],
    entry: Entry,
    found: Subject,
    scored: tuple[list[Scored], list[Scored]],
    acted: tuple[Json | None, Json | None],
    calls: int,
    compilations: devices.Compilations,
) -> None:
    """`scores.json` and `report.txt`."""
    before, after = ([said for _, said in each] for each in scored)
    config = job.config
    spent = f"{config.updates:,} updates, {calls:,} network calls a seed"
    lines = [f"{found.env}: {entry.name}, {spent}, {config.seeds} seeds", ""]
    for name, start in before[0].items():
        reached = [said[name] for said in after]
        each = " ".join(f"{x:.4g}" for x in reached)
        lines.append(f"{name.replace('_', ' '):<16} {start:.4g} -> {np.mean(reached):.4g} (seeds {each})")
    made: Json = {"method": entry.name, "network_calls": calls, "before": before[0], "after": after}
    was, acts = acted
    if was is not None and acts is not None:
        measure = evaluation.score_name(job.data.spec)
        lines += [f"before: {score_line(measure, was)}", score_line(measure, acts)]
        made |= {"score_name": measure, **acts, "base": was}
    finish(job, lines, made, minutes(job, "alignment"), compilations)


if __name__ == "__main__":
    run_main(main, spans_processes=True)
