"""What `world_models.py` measures, prints and draws."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from common import Bar, table
from job import Job
from models import termination_rule
from phases import last_scores, training_seconds
from scoring import score_name, with_interval

import jdp
from jdp import plotting
from jdp.evaluation import action_log_likelihood, dynamics_error, interval
from jdp.synthesis import Experience
from jdp.world_models import ensemble, noisy_actor

STEPS = ("ensemble", "ensemble without noise", "diffusion step")  # models of single steps
INFINITE = 1e30  # stands for an infinite error, which JSON does not know


def spans(config: Any) -> list[tuple[int, int]]:
    """Transitions of a rollout, counted from 1: its beginning, the rest of a window, what is chained."""
    window = min(config.horizon - 1, config.length)
    parts = [(1, min(10, window)), (11, window), (window + 1, config.length)]
    return [(low, high) for low, high in parts if low <= high]


def measure(job: Job, seed: int, models: Any, simulator: Any) -> None:
    """Makes every kind of experience with the models of one seed, and judges it in the simulator."""
    name = f"measured-{seed}.json"
    if job.run.read(name) is not None:
        return
    config, normaliser = job.config, models.diffuser[2]
    made = {}
    kinds = ["data", *(f"{name} {std:g}" for name in STEPS for std in config.action_stds)]
    kinds += ["unguided", *(f"guided {c:g}" for c in config.coefficients)]
    keys = jdp.types.named_keys(jax.random.fold_in(job.keys["measure"], seed), *kinds)
    with Bar(f"measure {seed}", len(kinds), "kind") as bar:
        for i, kind in enumerate(kinds):
            found = experience(job, keys[kind], kind, models)
            error = dynamics_error(
                simulator,
                found.observation,
                found.action,
                found.reward,
                # From a state whose velocities are clipped the simulator cannot tell what follows.
                found.valid[:, :-1] & simulator.determined(found.observation[:, :-1]),
                normaliser.std[: normaliser.observation_dim],
                float(normaliser.std[-2]),
                terminals=found.terminal,
            )
            made[kind] = summary(config, error, found, models)
            bar.at(i + 1)
    job.run.write(name, made)


def experience(job: Job, key: jax.Array, kind: str, models: Any) -> Experience:
    """`[N, length + 1, ...]` experience of one kind."""
    config, data = job.config, job.data
    word, _, number = kind.rpartition(" ")
    if kind == "data":
        return recorded(job, key)
    if word in STEPS:
        model, state = models.diffusion_step if word == "diffusion step" else models.ensemble
        if word == "ensemble without noise":
            quiet = dataclasses.replace(config.ensemble, noise=False)
            model = ensemble(quiet, data.spec, termination_rule(quiet.termination, data))
        rng = np.random.default_rng(np.asarray(jax.random.key_data(key)))
        histories = jdp.synthesis.branches(rng, data, model.history, (1, config.trajectories))
        actor = noisy_actor(models.agent.act, models.agent_state, jnp.array([float(number)]))
        made = jdp.synthesis.imagine(
            key,
            model,
            state,
            actor,
            histories,
            length=config.length + 1,
            batch=config.trajectories,
            mesh=job.mesh,
        )
        return jax.tree.map(lambda x: x[0], made)
    return chained(job, key, float(number) if word == "guided" else 0.0, models)


def recorded(job: Job, key: jax.Array) -> Experience:
    """Stretches of the dataset that end with their episode: what an exact model of behaviour would make."""
    config, data = job.config, job.data
    rng = np.random.default_rng(np.asarray(jax.random.key_data(key)))
    rows = rng.integers(len(data), size=config.trajectories)
    last = data.stops[np.searchsorted(data.stops, rows, side="right")] - 1
    wanted = rows[:, None] + np.arange(config.length + 1)
    index, inside = np.minimum(wanted, last[:, None]), wanted <= last[:, None]
    # After the last row stands what it led to: a step that ended the task has a successor too.
    after = wanted == last[:, None] + 1
    observations = np.where(after[..., None], data.next_observations[index], data.observations[index])
    terminal = (data.terminals[index] & inside).astype(np.float32)
    return Experience(
        observations, data.actions[index], data.rewards[index], terminal, inside & data.next_valid[index]
    )


def chained(job: Job, key: jax.Array, coefficient: float, models: Any) -> Experience:
    """Diffused windows, each but the first beginning at the last state of the one before."""
    config = job.config
    diffuser, state, normaliser = models.diffuser
    denoiser = unguided = diffuser.denoiser(state)
    sampler = dataclasses.replace(config.sampler, batch=min(config.sampler.batch, config.trajectories))
    if coefficient:
        guidance = dataclasses.replace(config.guidance, coefficient=coefficient)
        denoiser = jdp.synthesis.guide(
            denoiser, models.agent.act, models.agent_state, normaliser, guidance, sampler.sigmas()
        )
    parts, initial, count = [], None, -(-config.length // (config.horizon - 1))
    for i in range(count):
        x = jdp.synthesis.generate(
            jax.random.fold_in(key, i),
            denoiser,
            sampler,
            count=config.trajectories,
            length=config.horizon,
            channels=len(normaliser.mean),
            initial=initial,
            unguided=unguided if coefficient else None,
            mesh=job.mesh,
        )[0]
        initial = x[:, -1, : normaliser.observation_dim]
        parts.append(x if i == count - 1 else x[:, :-1])
    return jdp.synthesis.experience(np.concatenate(parts, axis=1)[:, : config.length + 1], normaliser)


def summary(config: Any, error: Any, found: Experience, models: Any) -> dict[str, Any]:
    """What is kept of one kind of experience of one seed.

    By range: the median error, the mean likelihood of the actions, both of steps that count, and the share
    of rollouts that are still alive at its end.
    """
    state = jax.tree.map(lambda x: x[0], models.agent_state)
    likelihood = action_log_likelihood(
        models.agent.act, state, found.observation, found.action, valid=found.valid
    ).per_transition[:, :-1]
    ranges = {}
    for low, high in spans(config):
        part = slice(low - 1, high)
        errors = error.per_transition[:, part]
        if not np.isnan(errors).all():
            ranges[f"{low}-{high}"] = {
                "error": min(float(np.nanmedian(errors)), INFINITE),
                "likelihood": float(np.nanmean(likelihood[:, part])),
                "alive": float(found.valid[:, high - 1].mean()),
            }
    return {
        "ranges": ranges,
        "counted": error.transitions / max(int(found.valid[:, :-1].sum()), 1),
        "median_by_position": np.minimum(error.median_by_position, INFINITE),
        "mean": error.mean,
        "reward_median": error.reward_median,
        "terminal_mismatch": error.terminal_mismatch_rate,
        "transitions": error.transitions,
    }


def over_seeds(measured: list[dict[str, Any]], kind: str, span: str, name: str) -> list[float]:
    """One number of one kind in one range, of every seed that has it."""
    return [m[kind]["ranges"][span][name] for m in measured if span in m[kind]["ranges"]]


def geometric(values: list[float]) -> list[float]:
    """(geometric mean, low, high): Student's t interval of the logarithms."""
    return [float(np.exp(v)) for v in interval(np.log(values))]


def shown(values: list[float], seeds: int) -> str:
    """A geometric mean and its interval, over the seeds that have a value."""
    if not values:
        return "-"
    if max(values) < 1e-9:
        return "0 (float32)"
    middle, low, high = geometric(values)
    text = f"{middle:.1e}" + (f" [{low:.1e}, {high:.1e}]" if np.isfinite(low) else "")
    return text if len(values) == seeds else f"{text} ({len(values)} of {seeds} seeds)"


def closing(job: Job, compilations: Any) -> None:
    """The table, the figure and `scores.json`."""
    config, data = job.config, job.data
    measured = [job.run.read(f"measured-{seed}.json") or {} for seed in range(config.seeds)]
    names = [f"{low}-{high}" for low, high in spans(config)]
    window = names[-2] if len(names) > 2 else names[0]  # the longest range within a window
    head = ["experience", "log-likelihood (95 %)", *(f"error, steps {name}" for name in names)]
    rows = [[*head, "alive after " + ", ".join(name.partition("-")[2] for name in names)]]
    for kind in measured[0]:
        alive = [over_seeds(measured, kind, name, "alive") for name in names]
        rows.append(
            [
                label(kind),
                with_interval(interval(over_seeds(measured, kind, window, "likelihood")), digits=2),
                *(shown(over_seeds(measured, kind, name, "error"), config.seeds) for name in names),
                " ".join(f"{np.sum(a) / config.seeds:.0%}" for a in alive),
            ]
        )
    counted = np.mean([m[kind]["counted"] for m in measured for kind in m])
    phases = ("target policies", "ensemble", "diffusion step", "diffuser")
    minutes = {
        phase: float(
            np.mean(
                [
                    training_seconds(job, p) / 60
                    for p in (
                        [phase]
                        if phase == "target policies"
                        else [f"{phase} {s}" for s in range(config.seeds)]
                    )
                ]
            )
        )
        for phase in phases
    }
    target = last_scores(job, "target policies", config.updates)
    text = "\n".join(
        [
            f"{data.origin.name}, {data.spec.env_id}: dynamics error of {config.trajectories} rollouts of "
            f"{config.length} steps a seed, {config.seeds} seeds of all models",
            "",
            table(rows),
            "",
            "error: median squared error of the next state, in units of the data's variance, against the",
            "simulator stepped from the generated state; geometric mean over seeds and Student's t interval;",
            "of rollouts still alive (one ends where its model ends it; data: with its episode), from states",
            f"whose velocities the observation does not clip: {counted:.0%} of all",
            f"likelihood: of the actions of steps {window} under N(pi(s), 1), pi the seed's target policy",
            f"diffusion: windows of {config.horizon} steps; each next one begins at the last state before it",
            f"target policies: TD3+BC, {config.updates:,} updates, {score_name(data.spec)} "
            f"{with_interval(target['interval'])}",
            "training: " + ", ".join(f"{phase} {m:.1f} min" for phase, m in minutes.items())
            + f" (the policies of all {config.seeds} seeds at once, models a seed)",
        ]
    )  # fmt: skip
    draw(job, measured, window)
    (job.run.path / "report.txt").write_text(text + "\n")
    job.run.write(
        "scores.json",
        {
            "dataset": data.origin.name,
            "task": data.spec.env_id,
            "preset": config.preset,
            "measured": measured,
            "target": target,
            "minutes": minutes,
            "compilations": compilations.summary(),
        },
    )
    print(f"\n{text}\nwritten to {job.run.path}")


def label(kind: str) -> str:
    word, _, number = kind.rpartition(" ")
    if word in STEPS:
        return f"{word}, policy" + (f" + N(0, {number}^2)" if float(number) else "")
    return f"policy-guided, coefficient {number}" if word == "guided" else kind


def draw(job: Job, measured: list[dict[str, Any]], window: str) -> None:
    """Error by position, and error against likelihood in the range `window`."""
    config = job.config
    shown_curves = {name: f"{name} {config.action_stds[0]:g}" for name in STEPS}
    shown_curves |= {"unguided": "unguided", "guided": f"guided {config.coefficients[0]:g}"}
    curves, points = {}, {}
    for name, kind in shown_curves.items():
        medians = [m[kind]["median_by_position"] for m in measured]
        curves[name] = np.array([[np.nan if v is None else v for v in row] for row in medians])
    for kind in measured[0]:
        word, _, number = kind.rpartition(" ")
        errors, likelihoods = (over_seeds(measured, kind, window, name) for name in ("error", "likelihood"))
        if kind != "data" and errors:
            points.setdefault(word or kind, []).append((number if word else "", likelihoods, errors))
    folder = job.run.path / "figures"
    folder.mkdir(exist_ok=True)
    plotting.claim(
        curves, points, window=config.horizon - 1, steps=window, title=job.data.origin.name
    ).savefig(folder / "claim.png")
