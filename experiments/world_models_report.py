"""What `world_models.py` measures, prints and draws."""

import dataclasses
from typing import NamedTuple

import jax
import numpy as np
import pandas as pd
from opening import finish, minutes, save_figure
from world_models_options import Config

import jdp
from jdp import devices, evaluation, loops, plotting, synthesis
from jdp.data import Experience
from jdp.evaluation.synthetic_sets import Judges, geometric_interval, judge_ranges, real_stretches
from jdp.learning.diffuser import TrainedDiffuser
from jdp.loops.journal import Record
from jdp.runs import Job
from jdp.synthesis import TrainedModel, target_of
from jdp.types import Method, PyTree

STEPS = ("ensemble", "ensemble without noise", "diffusion step")  # models of single steps


class Models(NamedTuple):
    """What one seed has trained."""

    method: Method
    states: PyTree  # [1, ...]: one target policy, stacked
    ensemble: TrainedModel
    diffusion_step: TrainedModel
    diffuser: TrainedDiffuser


def spans(config: Config) -> list[tuple[int, int]]:
    """Transitions of a rollout, counted from 1: its beginning, the rest of a window, what is chained."""
    window = min(config.horizon - 1, config.length)
    parts = [(1, min(10, window)), (11, window), (window + 1, config.length)]
    return [(low, high) for low, high in parts if low <= high]


def measure(job: Job[Config], seed: int, models: Models, simulator: evaluation.Simulator) -> None:
    """Makes every kind of experience with the models of one seed, and judges it in the simulator."""
    name = f"measured-{seed}.json"
    if job.run.read(name) is not None:
        return
    config = job.config
    judges = Judges(target_of(models.method), models.states, models.diffuser.normaliser, simulator)
    made = {}
    kinds = ["data", *(f"{name} {std:g}" for name in STEPS for std in config.action_stds)]
    kinds += ["unguided", *(f"guided {c:g}" for c in config.coefficients)]
    keys = jdp.types.named_keys(jax.random.fold_in(job.keys["measure"], seed), *kinds)
    with job.journal.progress(f"measure {seed}", len(kinds), "kind") as bar:
        for i, kind in enumerate(kinds):
            found = experience(job, keys[kind], kind, models)
            made[kind] = judge_ranges(found, judges, spans(config))
            bar.at(i + 1)
    job.run.write(name, made)


def experience(job: Job[Config], key: jax.Array, kind: str, models: Models) -> Experience:
    """`[N, length + 1, ...]` experience of one kind."""
    config, data = job.config, job.data
    word, _, number = kind.rpartition(" ")
    if kind == "data":
        return real_stretches(key, data, config.trajectories, config.length)
    if word not in STEPS:
        guided, guidance = word == "guided", config.guidance
        if guided:
            guidance = dataclasses.replace(guidance, coefficient=float(number))
        return synthesis.chained_experience(
            key,
            models.diffuser,
            models.method,
            models.states if guided else None,
            count=config.trajectories,
            length=config.length,
            window=config.horizon,
            sampler=config.sampler,
            guidance=guidance,
            mesh=job.mesh,
        )
    trained = models.diffusion_step if word == "diffusion step" else models.ensemble
    if word == "ensemble without noise":
        quiet = dataclasses.replace(config.ensemble, noise=False)
        trained = TrainedModel(
            loops.make_world_model(quiet, data, termination=quiet.termination), models.ensemble.state
        )
    made = synthesis.rollouts_from_data(
        key,
        trained,
        data,
        models.method,
        models.states,
        count=config.trajectories,
        length=config.length + 1,
        action_std=float(number),
        mesh=job.mesh,
    )
    return jax.tree.map(lambda x: x[0], made)


def over_seeds(measured: list[Record], kind: str, span: str, name: str) -> list[float]:
    """One number of one kind in one range, of every seed that has it."""
    return [m[kind]["ranges"][span][name] for m in measured if span in m[kind]["ranges"]]


def shown(measured: list[Record], kind: str, span: str) -> str:
    """The geometric mean of the errors and its interval, over the seeds that have one."""
    values = over_seeds(measured, kind, span, "error")
    if not values:
        return "-"
    if max(values) < 1e-9:
        return "0 (float32)"
    middle, low, high = geometric_interval(values)
    text = f"{middle:.1e}" + (f" [{low:.1e}, {high:.1e}]" if np.isfinite(low) else "")
    return text if len(values) == len(measured) else f"{text} ({len(values)} of {len(measured)} seeds)"


def closing(job: Job[Config], compilations: devices.Compilations) -> None:
    """The table, the figure and `scores.json`."""
    config, data = job.config, job.data
    measured = [job.run.read(f"measured-{seed}.json") or {} for seed in range(config.seeds)]
    names = [f"{low}-{high}" for low, high in spans(config)]
    window = names[-2] if len(names) > 2 else names[0]  # the longest range within a window
    ends = ", ".join(name.partition("-")[2] for name in names)
    rows = []
    for kind in measured[0]:
        likelihood = evaluation.interval(over_seeds(measured, kind, window, "likelihood"))
        alive = [np.sum(over_seeds(measured, kind, name, "alive")) / config.seeds for name in names]
        rows.append(
            {
                "experience": label(kind),
                "log-likelihood (95 %)": evaluation.with_interval(*likelihood, digits=2),
                **{f"error, steps {name}": shown(measured, kind, name) for name in names},
                f"alive after {ends}": " ".join(f"{share:.0%}" for share in alive),
            }
        )
    counted = np.mean([m[kind]["counted"] for m in measured for kind in m])
    target = evaluation.last_scores(
        job.journal.records("target policies/evaluation"), data.spec, config.updates
    )
    lines = [
        f"{data.origin.name}, {data.spec.env_id}: dynamics error of {config.trajectories} rollouts of "
        f"{config.length} steps a seed, {config.seeds} seeds of all models",
        "",
        pd.DataFrame(rows).to_markdown(index=False, tablefmt="simple", disable_numparse=True),
        "",
        "error: median squared error of the next state, in units of the data's variance, against the",
        "simulator stepped from the generated state; geometric mean over seeds and Student's t interval;",
        "of rollouts still alive (one ends where its model ends it; data: with its episode), from states",
        f"whose velocities the observation does not clip: {counted:.0%} of all",
        f"likelihood: of the actions of steps {window} under N(pi(s), 1), pi the seed's target policy",
        f"diffusion: windows of {config.horizon} steps; each next one begins at the last state before it",
        f"target policies: TD3+BC, {config.updates:,} updates, {evaluation.score_name(data.spec)} "
        f"{evaluation.with_interval(*target['interval'])}",
    ]
    spent = minutes(job, "target policies")
    for phase in ("ensemble", "diffusion step", "diffuser"):
        each = minutes(job, *(f"{phase} {seed}" for seed in range(config.seeds)))
        spent[phase] = sum(each.values()) / config.seeds
    draw(job, measured, window)
    together = f"the policies of all {config.seeds} seeds at once, models a seed"
    finish(job, lines, {"measured": measured, "target": target}, spent, compilations, together)


def label(kind: str) -> str:
    word, _, number = kind.rpartition(" ")
    if word in STEPS:
        return f"{word}, policy" + (f" + N(0, {number}^2)" if float(number) else "")
    return f"policy-guided, coefficient {number}" if word == "guided" else kind


def draw(job: Job[Config], measured: list[Record], window: str) -> None:
    """Error by position, and error against likelihood in the range `window`."""
    config = job.config
    shown_curves = {name: f"{name} {config.action_stds[0]:g}" for name in STEPS}
    shown_curves |= {"unguided": "unguided", "guided": f"guided {config.coefficients[0]:g}"}
    curves = {  # what is None is not finite
        name: np.array([m[kind]["median_by_position"] for m in measured], np.float64)
        for name, kind in shown_curves.items()
    }
    points = {}
    for kind in measured[0]:
        word, _, number = kind.rpartition(" ")
        errors, likelihoods = (over_seeds(measured, kind, window, name) for name in ("error", "likelihood"))
        if kind != "data" and errors:
            points.setdefault(word or kind, []).append((number if word else "", likelihoods, errors))
    title = job.data.origin.name
    figure = plotting.claim(curves, points, window=config.horizon - 1, steps=window, title=title)
    save_figure(job, "claim", figure)
