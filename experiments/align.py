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
from aligning import (
    KEYS,
    AlignOptions,
    AlignPlayConfig,
    Config,
    Scored,
    Subject,
    calls_of,
    score_of,
    seed_of,
    subject,
)
from closed_loop import evaluate
from command_line import arguments, first_words, run_main
from methods import Options, method_command
from online_rl import NOT_IN_HASH
from opening import finish, minutes, open_job, save_figure, score_line
from options import check_positive

from jdp import devices, evaluation, loops, planners, plotting
from jdp.alignment.bases import stacked
from jdp.alignment.playing import executed, reward_guide
from jdp.alignment.presets import TOY
from jdp.alignment.students import told
from jdp.alignment.support import guard
from jdp.errors import check_seed, check_settings
from jdp.registry import Entry, Preset
from jdp.runs import Job
from jdp.runs.models import stand_in
from jdp.tasks import maze_of
from jdp.types import Json, Method, PyTree, Spec

PICTURED = 24  # plans that are drawn
BEFORE, GUIDED, AFTER = "before", "guided, strength {:g}", "after {}"  # what is played


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
    students = config.seeds
    config = dataclasses.replace(config, env=found.env, seeds=found.told or config.seeds)
    learner = entry.make(config.settings, found.base.model)
    job = opened(config, entry, found)
    calls = calls_of(entry, config, found)
    before = scored(job, found, jax.tree.map(lambda x: x[None], found.base.params))
    acted = played_before(job, found)
    states = loops.train(
        learner,
        found.given,
        key=job.keys["train"],
        updates=config.updates,
        batch_size=config.batch_size,
        seeds=students,
        chunk=max(config.updates // 20, 1),
        mesh=job.mesh,
        journal=job.journal,
        phase="alignment",
        stop_when=guard(job.keys["support"], found.given, config.settings, found.base.model),
    )
    params = states.trained.params
    after = scored(job, found, params)
    if found.run is not None:
        if found.told:
            each = [told(seed_of(params, 0), found.told, k) for k in range(found.told)]
            params = jax.tree.map(lambda *x: jnp.stack(x), *each)
        method = stacked(found.base, params)
        job.journal.save(found.run.kind, config.updates, method)  # what load_run finds
        acted |= {AFTER.format(entry.name): played(job, found, found.run.method, method, "evaluation")}
    draw(job, entry, found, before, after)
    report(job, entry, found, (before, after), acted, calls * config.updates, compilations)


def presets(where: str, entry: Entry, found: Mapping[str, Preset]) -> dict[str, Options]:
    """What presets say beside the method."""
    small = {"smoke": (64, 64), "cpu": (4096, 2000), "paper": (16384, 10_000)}
    of_runs = {"smoke": (32, 32), "cpu": (1024, 512), "paper": (16384, 4096)}
    sizes, made = small if where == TOY else of_runs, {}
    for name, preset in found.items():
        given, samples = sizes[name]
        play = AlignPlayConfig(decisions=5, pictures=2) if name == "smoke" else AlignPlayConfig()
        play = dataclasses.replace(play, episodes=preset.episodes or play.episodes)
        made[name] = {"given": given, "samples": samples, "evaluation": play}
    return made


def check(config: Config) -> None:
    """Raises `UserError` for counts below 1, and a seed out of range."""
    check_seed(config.seed, "--seed")
    names = ("seeds", "updates", "batch_size", "samples", "given", "best_of")
    check_positive({f"--{name.replace('_', '-')}": getattr(config, name) for name in names})
    check_positive({"--evaluation.episodes": config.evaluation.episodes})
    play = config.evaluation
    for strength in play.guided:
        check_settings("--evaluation", guided=(strength, 1e-9, 1e9))
    check_settings("--evaluation", guidance_steps=(play.guidance_steps, 0, 1000))
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


def played_before(job: Job[Config], found: Subject) -> dict[str, Json]:
    """How the model as it was acts, alone and with the guides that are asked for; {} of the toy."""
    config, run = job.config, found.run
    if run is None:
        return {}
    same = jax.tree.map(lambda x: jnp.stack([x] * config.seeds), run.state(config.model_seed))
    acted = {BEFORE: played(job, found, run.method, same, "base/evaluation")}
    for strength in config.evaluation.guided:
        assert found.reward is not None
        guide = reward_guide(found.reward, strength, steps=config.evaluation.guidance_steps)
        method = planners.make(run.settings, run.spec, guide=guide)
        phase = f"guided_{strength:g}/evaluation"
        acted[GUIDED.format(strength)] = played(job, found, method, same, phase)
    return acted


def played(job: Job[Config], found: Subject, method: Method, states: PyTree, phase: str) -> Json:
    """How all seeds act, and what the reward is of what a planner does."""
    assert found.run is not None
    many = job.config.evaluation.many_goals
    judged = partial(judge, job, found, phase) if judges_states(found) else None
    return evaluate(job, found.run.name, method, states, phase, many_goals=many, judged=judged)


def judges_states(found: Subject) -> bool:
    """Whether the reward is one of plans, and can be told of states alone."""
    if found.base.kind != "plans" or found.reward is None or found.run is None:
        return False
    spec = found.run.spec
    one = (np.zeros((3, 1, spec.observation_dim), np.float32), np.array([2]), np.zeros((1, len(spec.goal))))
    try:
        return bool(np.isfinite(executed(found.reward, *one, spec)).all())
    except Exception:  # whatever a user's reward of actions does without any
        return False


def judge(job: Job[Config], found: Subject, phase: str, seed: int, done: loops.Played) -> np.ndarray:
    """`[n]`, the reward of what was done; what the first seed saw is kept for the picture."""
    assert found.run is not None and found.reward is not None and done.observation is not None
    if seed == 0:
        path = job.run.path / "executed" / f"{phase.partition('/')[0]}.npz"
        path.parent.mkdir(exist_ok=True)
        np.savez(path, observation=done.observation, lengths=done.lengths, goal=done.goal)
    return executed(found.reward, done.observation, done.lengths, done.goal, found.run.spec)


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
    paths, goals = executed_paths(job, entry, entries)
    if paths:
        title = f"what was done: {title}"
        save_figure(job, "executed", plotting.aligned_plans(maze, paths, goals, title=title, disc=disc))


def executed_paths(
    job: Job[Config], entry: Entry, entries: list[int]
) -> tuple[dict[str, list[np.ndarray]], np.ndarray]:
    """Where the first seed's episodes went in each way of acting, `[L, 2]` each, and their goals `[N, 2]`."""
    phases = {BEFORE: "base"}
    phases |= {GUIDED.format(g): f"guided_{g:g}" for g in job.config.evaluation.guided}
    phases |= {AFTER.format(entry.name): "evaluation"}
    paths, goals = {}, np.zeros((0, 2))
    for name, phase in phases.items():
        file = job.run.path / "executed" / f"{phase}.npz"
        if not file.exists():
            continue
        with np.load(file) as kept:
            lengths, goals = kept["lengths"][:PICTURED], kept["goal"][:PICTURED]
            seen = kept["observation"][..., entries]
            paths[name] = [seen[: length + 1, i] for i, length in enumerate(lengths)]
    return paths, goals


def report(
    job: Job[Config],
    entry: Entry,
    found: Subject,
    scored: tuple[list[Scored], list[Scored]],
    acted: dict[str, Json],
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
    if acted:
        measure = evaluation.score_name(job.data.spec)
        lines += ["", *(line_of(name, measure, one) for name, one in acted.items())]
        last = next(reversed(acted.values()))
        made |= {"score_name": measure, **last, "base": acted[BEFORE], "played": acted}
    finish(job, lines, made, minutes(job, "alignment"), compilations)


def line_of(name: str, measure: str, one: Json) -> str:
    """What one way to act comes to: score, reward of what was done, and the time of a decision."""
    done = one.get("executed")
    if done is None:
        wish = ""
    else:
        each = " ".join(f"{x:.3f}" for x in np.mean(done, axis=1))
        wish = f", reward of what was done {np.mean(done):.3f} (seeds {each})"
    took = f", a decision takes {1e3 * one['latency']['median']:.1f} ms"
    return f"{name + ':':<24} {score_line(measure, one)}{wish}{took}"


if __name__ == "__main__":
    run_main(main, spans_processes=True)
