"""What `world_models.py` measures, prints and draws."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from common import Bar, table
from job import Job, last_scores, score_name, training_seconds, with_interval
from models import termination_rule

import jdp
from jdp import plotting
from jdp.evaluation import action_log_likelihood, dynamics_error, interval
from jdp.synthesis import Experience
from jdp.world_models import ensemble, noisy_actor

STEPS = ("ensemble", "ensemble mean", "diffusion step")  # models of single steps
RANGES = ((1, 10), (11, 31), (32, 100))  # transitions of a rollout, the first is 1


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
                found.valid[:, :-1],
                normaliser.std[: normaliser.observation_dim],
                float(normaliser.std[-2]),
                terminals=found.terminal,
            )
            made[kind] = summary(error, found, models)
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
        if word == "ensemble mean":
            quiet = dataclasses.replace(config.ensemble, noise=False)
            model = ensemble(quiet, data.spec, termination_rule(quiet.termination, data))
        rng = np.random.default_rng(np.asarray(jax.random.key_data(key)))
        histories = jdp.synthesis.branches(rng, data, model.history, (1, config.trajectories))
        actor = noisy_actor(models.agent.act, models.agent_state, jnp.array([float(number)]))
        made = jdp.synthesis.imagine(
            key, model, state, actor, histories, length=config.length + 1, batch=config.trajectories
        )
        return jax.tree.map(lambda x: x[0], made)
    return chained(job, key, float(number) if word == "guided" else 0.0, models)


def recorded(job: Job, key: jax.Array) -> Experience:
    """Stretches of the dataset: what an exact model would make of the behaviour policy."""
    config, data = job.config, job.data
    rng = np.random.default_rng(np.asarray(jax.random.key_data(key)))
    rows = rng.integers(len(data), size=config.trajectories)
    stop = data.stops[np.searchsorted(data.stops, rows, side="right")]
    index = rows[:, None] + np.arange(config.length + 1)
    inside = index < stop[:, None]
    index = np.minimum(index, len(data) - 1)
    valid = inside & (np.roll(inside, -1, axis=1) | data.terminals[index])
    valid[:, -1] &= data.terminals[index[:, -1]]
    terminal = (data.terminals[index] & valid).astype(np.float32)
    return Experience(data.observations[index], data.actions[index], data.rewards[index], terminal, valid)


def chained(job: Job, key: jax.Array, coefficient: float, models: Any) -> Experience:
    """Diffused windows, each but the first beginning at the last state of the one before."""
    config = job.config
    diffuser, state, normaliser = models.diffuser
    denoiser = diffuser.denoiser(state)
    sampler = dataclasses.replace(config.sampler, batch=config.trajectories)
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
            mesh=job.mesh,
        )[0]
        initial = x[:, -1, : normaliser.observation_dim]
        parts.append(x if i == count - 1 else x[:, :-1])
    return jdp.synthesis.experience(np.concatenate(parts, axis=1)[:, : config.length + 1], normaliser)


def summary(error: Any, found: Experience, models: Any) -> dict[str, Any]:
    """What is kept of one kind of experience of one seed."""
    errors = error.per_transition  # [N, length]
    state = jax.tree.map(lambda x: x[0], models.agent_state)
    likelihood = action_log_likelihood(
        models.agent.act, state, found.observation, found.action, valid=found.valid
    )
    with np.errstate(all="ignore"):
        ranges = {
            f"{low}-{high}": float(np.nanmedian(part)) if np.isfinite(part).any() else None
            for low, high in RANGES
            if (part := errors[:, low - 1 : high]).size
        }
    return {
        "likelihood": float(np.nanmean(likelihood.per_transition)),
        "median_by_position": error.median_by_position,
        "mean_by_position": error.mean_by_position,
        "ranges": ranges,
        "mean": error.mean,
        "alive": found.valid[:, :-1].mean(axis=0),
        "reward_median": error.reward_median,
        "terminal_mismatch": error.terminal_mismatch_rate,
        "transitions": error.transitions,
    }


def over_seeds(measured: list[dict[str, Any]], kind: str, *path: str) -> list[float]:
    """One number of one kind, of every seed that has it."""
    values: list[Any] = [m[kind] for m in measured]
    for name in path:
        values = [v.get(name) for v in values]
    return [float(v) for v in values if v is not None]


def geometric(values: list[float]) -> list[float]:
    """(geometric mean, low, high): Student's t interval of the logarithms."""
    return [float(np.exp(v)) for v in interval(np.log(values))]


def shown(values: list[float]) -> str:
    """A geometric mean and its interval."""
    if not values:
        return "-"
    if max(values) < 1e-9:
        return "0 (float32)"
    middle, low, high = geometric(values)
    return f"{middle:.1e}" + (f" [{low:.1e}, {high:.1e}]" if np.isfinite(low) else "")


def closing(job: Job, compilations: Any) -> None:
    """The table, the figure and `scores.json`."""
    config, data = job.config, job.data
    measured = [job.run.read(f"measured-{seed}.json") or {} for seed in range(config.seeds)]
    spans = [f"{low}-{high}" for low, high in RANGES if low <= config.length]
    head = ["experience", "log-likelihood (95 %)", *(f"error, steps {s}" for s in spans), "alive at the end"]
    rows = [head]
    for kind in measured[0]:
        alive = [m[kind]["alive"][-1] for m in measured]
        rows.append(
            [
                label(kind),
                with_interval(interval(over_seeds(measured, kind, "likelihood")), digits=2),
                *(shown(over_seeds(measured, kind, "ranges", span)) for span in spans),
                f"{np.mean(alive):.0%}",
            ]
        )
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
            "simulator stepped from the generated state; geometric mean over seeds and Student's t interval",
            "likelihood: of the actions under N(pi(s), 1), pi the seed's target policy",
            f"diffusion: windows of {config.horizon} steps, chained on their last state from then on",
            f"target policies: TD3+BC, {config.updates:,} updates, {score_name(data.spec)} "
            f"{with_interval(target['interval'])}",
            "training: " + ", ".join(f"{phase} {m:.1f} min" for phase, m in minutes.items())
            + f" (the policies of all {config.seeds} seeds at once, models a seed)",
        ]
    )  # fmt: skip
    draw(job, measured)
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


def draw(job: Job, measured: list[dict[str, Any]]) -> None:
    """Error by position, and error against likelihood."""
    config = job.config
    curves, points = {}, {}
    shown_curves = {name: f"{name} {config.action_stds[0]:g}" for name in STEPS}
    shown_curves |= {"unguided": "unguided", "guided": f"guided {config.coefficients[0]:g}"}
    for name, kind in shown_curves.items():
        curves[name] = np.array(
            [[np.nan if v is None else v for v in m[kind]["median_by_position"]] for m in measured]
        )
    window = (
        f"{RANGES[0][0]}-{RANGES[0][1]}"
        if config.horizon <= RANGES[0][1]
        else f"{RANGES[1][0]}-{RANGES[1][1]}"
    )
    for kind in measured[0]:
        word, _, number = kind.rpartition(" ")
        if kind == "data":
            continue
        errors, likelihoods = (
            over_seeds(measured, kind, "ranges", window),
            over_seeds(measured, kind, "likelihood"),
        )
        if errors:
            points.setdefault(word or kind, []).append((number if word else "", likelihoods, errors))
    folder = job.run.path / "figures"
    folder.mkdir(exist_ok=True)
    plotting.claim(
        curves, points, window=config.horizon - 1, steps=window, title=job.data.origin.name
    ).savefig(folder / "claim.png")
