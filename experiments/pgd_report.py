"""What `pgd_d4rl.py` prints, checks and draws: the report of a run."""

from collections.abc import Callable, Mapping

import jax
import numpy as np
import pandas as pd
from opening import finish, heading, minutes, save_figure
from pgd_options import Config

import jdp
from jdp import devices, evaluation, plotting
from jdp.data import Experience
from jdp.diffusion import exact
from jdp.evaluation.synthetic_sets import (
    Judges,
    judge_sets,
    real_windows,
    terminal_counts,
    typical_windows,
)
from jdp.loops.journal import Record
from jdp.runs import Job
from jdp.types import Method, PyTree

NAMES = {"dataset": "dataset only", "guided": "policy-guided", "world_model": "world model"}


def check_sets(
    job: Job[Config],
    method: Method,
    states: PyTree,
    makers: Mapping[str, Callable[[], Experience]],
    per_seed: int,
) -> Record:
    """What is known of the data and of every synthetic set: dynamics error, likelihood of actions under one
    target policy, spread, terminals, and how well a density of the data tells them from the data.

    Every seed of the target policies `states` judges its own share, `per_seed` trajectories, of the sets that
    `makers` make.
    """
    config, data, normaliser = job.config, job.data, jdp.data.fit_normaliser(job.data)
    found = job.run.read("checks.json")
    if found is not None:
        return found
    sets = {"data": real_windows(data, normaliser, per_seed * config.seeds, config.horizon)}
    for arm, make in makers.items():
        # Seed by seed; of the world model's more where episodes ended early.
        sets[arm] = jax.tree.map(lambda x: x[:, :per_seed].reshape(-1, *x.shape[2:]), make())
    simulator = evaluation.Simulator(data.spec) if evaluation.supports(data.spec, data.spec) else None
    if simulator is None:
        task = data.spec.env_id
        print(f"           the simulator cannot be set to observations of {task}: no dynamics error")
    judges = Judges(jdp.synthesis.target_of(method), states, normaliser, simulator)
    judged, errors = judge_sets(sets, judges)
    typical = typical_windows(data, normaliser, config.horizon)
    widest, sampler = jdp.synthesis.widest_direction(data, normaliser, config.horizon), config.sampler
    result = {
        "target": config.arms[-1],
        "likelihood_std": 1.0,
        "sampler_std_error": exact.std_errors(sampler.function(), sampler.sigmas(), widest=widest.std),
        "terminals": terminal_counts(data, sets, config.horizon),
        "kept_spread": {kind: jdp.synthesis.kept_spread(x, widest, normaliser) for kind, x in sets.items()},
        "out_of_distribution": {kind: typical.judge(x) for kind, x in sets.items()} if typical else {},
        "sets": judged,
    }
    draw_sets(job, sets, errors)
    job.run.write("checks.json", result)
    return job.run.read("checks.json") or {}


def squared_distance(likelihood: float, dims: int) -> float:
    """E|a - pi(s)|^2 of actions `[dims]` whose mean log density under N(pi(s), 1) is `likelihood`."""
    return -2 * likelihood - dims * float(np.log(2 * np.pi))


def terminal_line(counts: Mapping[str, list[int]]) -> str:
    """Shares in percent with their exact intervals: a generated set holds a handful of terminals."""
    parts = []
    for kind, (terminal, steps) in counts.items():
        share, low, high = evaluation.share_interval(terminal, steps)
        parts.append(f"{kind} {share:.3f} % [{low:.3f}, {high:.3f}] ({terminal:,} of {steps:,})")
    return ", ".join(parts)


def draw_sets(job: Job[Config], sets: Mapping[str, Experience], errors: Mapping[str, np.ndarray]) -> None:
    """Figures of the generated sets."""
    name = job.data.origin.name
    if synthetic := {kind: error for kind, error in errors.items() if kind != "data"}:
        save_figure(job, "dynamics_error", plotting.dynamics_by_position(synthetic, title=name))
    save_figure(job, "marginals", plotting.experience_marginals(sets, title=name))
    if frames := plotting.trajectories(job.data.spec, sets, title=f"trajectories, {name}"):
        save_figure(job, "frames", frames)


def arm_row(job: Job[Config], arm: str, score: Record, checks: Record) -> dict[str, str]:
    """The line of an arm in the table; what an older run did not check is "-"."""
    kind, spec = "data" if arm == "dataset" else arm, job.data.spec
    entry = checks["sets"].get(kind, {})
    apart = checks.get("out_of_distribution", {}).get(kind, {}).get("auroc")
    return {
        "arm": NAMES.get(arm, arm),
        f"{evaluation.score_name(spec)} (95 %)": evaluation.with_interval(*score["interval"]),
        "seeds": " ".join(f"{s:.1f}" for s in score["seeds"]),
        "dynamics error": f"{entry['dynamics_median']:.1e}" if "dynamics_median" in entry else "-",
        "|a - pi|^2": f"{squared_distance(entry['likelihood'][0], spec.action_dim):.3f}",
        "log-likelihood (95 %)": evaluation.with_interval(*entry["likelihood"], digits=2),
        "spread": f"{checks['kept_spread'].get(kind, np.nan):.2f}",
        "AUROC (95 %)": evaluation.with_interval(*apart, digits=2) if apart else "-",
    }


def closing(job: Job[Config], checks: Record, compilations: devices.Compilations, seconds: float) -> None:
    """The table, `scores.json`, `report.txt` and the figures."""
    config, data, behaviour = job.config, job.data, evaluation.behaviour_score(job.data)
    records = {arm: job.journal.records(f"{arm}/evaluation") for arm in config.arms}
    arms = {arm: evaluation.last_scores(r, data.spec, config.updates) for arm, r in records.items()}
    real, dims = checks["sets"]["data"]["likelihood"], data.spec.action_dim
    table = pd.DataFrame([arm_row(job, arm, score, checks) for arm, score in arms.items()])
    error = max(checks["sampler_std_error"].values(), key=abs)
    lines = [
        heading(job, config.agent),
        "",
        table.to_markdown(index=False, tablefmt="simple", disable_numparse=True),
        "",
        f"intervals: Student's t over {config.seeds} agent seeds that share one diffuser and world model",
        "dynamics error: median squared error of the next state, standardised, against the simulator",
        f"|a - pi|^2, log-likelihood of actions under N(pi(s), 1): pi of {checks['target']}'s agents; "
        f"of real windows {squared_distance(real[0], dims):.3f}, {evaluation.with_interval(*real, digits=2)}",
        "spread: std of windows along the data's widest direction, as a share of the data's",
        "AUROC: how well the likelihood under a Gaussian, of four episodes in five, tells windows from those "
        "of the others: .5 not at all, 1 where all are less probable, below .5 where they are more probable",
        "terminal transitions (Clopper-Pearson): " + terminal_line(checks["terminals"]),
        f"sampler {config.sampler.sampler}, {config.sampler.steps} steps from {config.sampler.sigma_max:g}: "
        "std error on exact Gaussians (single channels, and the windows' widest direction) at most "
        f"{error:+.1%}",
        f"time {seconds / 60:.1f} min",
    ]
    losses = job.journal.records("diffuser")
    curves = plotting.curves(
        ([r["step"] for r in losses], [r["loss"] for r in losses]) if losses else None,
        {arm: evaluation.learning_curve(r, data.spec) for arm, r in records.items()},
        behaviour=behaviour,
        title=f"{data.origin.name}, {config.agent}",
        score=evaluation.score_name(data.spec),
    )
    save_figure(job, "learning_curves", curves)
    save_figure(job, "scores", plotting.bars(arms, behaviour=behaviour, title=data.origin.name))
    if config.save_synthetic:
        save_synthetic(job)
    scores = {"arms": arms, "checks": checks, "behaviour": behaviour, "seconds_of_last_process": seconds}
    finish(job, lines, scores, minutes(job, "diffuser", config.world_model, *config.arms), compilations)


def save_synthetic(job: Job[Config]) -> None:
    """The last synthetic set of every arm, as D4RL-layout HDF5 and as a local Minari dataset."""
    from jdp.data.export import save_d4rl, save_minari

    for arm in (a for a in job.config.arms if a != "dataset"):
        sets = (job.run.path / "synthetic").glob(f"{arm}-*.npz")
        path = max(sets, key=lambda p: int(p.stem.removeprefix(f"{arm}-")))
        with np.load(path, allow_pickle=False) as file:
            made = Experience(**{k: v.reshape(-1, *v.shape[2:]) for k, v in file.items()})
        transitions, timeouts = jdp.data.to_transitions(made)
        facts = {"made_by": "jdp", "from": job.data.origin.name, "arm": arm, "run": str(job.run.path)}
        target = job.run.path / "synthetic" / f"{arm}.hdf5"
        save_d4rl(target, transitions, timeouts, spec=job.data.spec, metadata=facts)
        print(f"saved      {target} ({len(timeouts):,} transitions)")
        name = f"jdp/{job.run.path.name}/{arm}-v0".replace("_", "-")
        try:
            save_minari(name, transitions, timeouts, spec=job.data.spec, description=str(facts))
            print(f"saved      Minari dataset {name}")
        except jdp.UserError as error:
            print(f"           not saved as Minari: {error}")
