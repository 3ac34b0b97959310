"""What `pgd_d4rl.py` prints, checks and draws: the report of a run."""

from collections.abc import Callable, Mapping

import jax
import numpy as np
from command_line import table
from opening import compiled, figures, finish
from pgd_options import Config

import jdp
from jdp import devices, loops, plotting
from jdp.data import Experience
from jdp.diffusion import exact
from jdp.evaluation import (
    Simulator,
    behaviour_score,
    last_scores,
    score_name,
    scores_of,
    share_interval,
    supports,
    with_interval,
)
from jdp.evaluation.synthetic_sets import Judges, judge, real_windows, terminal_counts
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
    """Dynamics error and action likelihood of the data and every synthetic set, under one target policy.

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
    simulator = Simulator(data.spec) if supports(data.spec, data.spec) else None
    if simulator is None:
        task = data.spec.env_id
        print(f"           the simulator cannot be set to observations of {task}: no dynamics error")
    assert method.target is not None  # agents have one
    judges = Judges(method.target, states, normaliser, simulator)
    judged = {kind: judge(made, judges) for kind, made in sets.items()}
    widest = jdp.synthesis.window_spread(data, normaliser, config.horizon)
    result: Record = {
        "target": config.arms[-1],
        "likelihood_std": 1.0,
        "sampler_std_error": exact.std_errors(
            config.sampler.function(), config.sampler.sigmas(), widest=widest
        ),
        "terminals": terminal_counts(data, sets, config.horizon),
        "sets": {kind: found for kind, (found, _) in judged.items()},
    }
    draw_sets(job, sets, {kind: e.per_transition for kind, (_, e) in judged.items() if e is not None})
    job.run.write("checks.json", result)
    return job.run.read("checks.json") or {}


def terminal_line(counts: Mapping[str, list[int]]) -> str:
    """Shares in percent with their exact intervals: a generated set holds a handful of terminals."""
    parts = []
    for kind, (terminal, steps) in counts.items():
        share, low, high = share_interval(terminal, steps)
        parts.append(f"{kind} {share:.3f} % [{low:.3f}, {high:.3f}] ({terminal:,} of {steps:,})")
    return ", ".join(parts)


def draw_sets(job: Job[Config], sets: Mapping[str, Experience], errors: Mapping[str, np.ndarray]) -> None:
    """Figures of the generated sets."""
    folder, name = figures(job), job.data.origin.name
    synthetic = {k: v for k, v in errors.items() if k != "data"}
    if synthetic:
        plotting.dynamics_by_position(synthetic, title=name).savefig(folder / "dynamics_error.png")
    o, a = job.data.spec.observation_dim, job.data.spec.action_dim
    names = [*(f"state {i}" for i in range(o)), *(f"action {i}" for i in range(a)), "reward"]
    shown = [*range(min(o, 11)), *range(o, o + min(a, 8)), o + a]
    columns = {
        kind: np.concatenate([made.observation, made.action, made.reward[..., None]], axis=-1)[made.valid]
        for kind, made in sets.items()
    }
    plotting.marginals(
        {k: v[:, shown] for k, v in columns.items()}, [names[i] for i in shown], title=name
    ).savefig(folder / "marginals.png")
    times = [int(t) for t in np.linspace(0, job.config.horizon - 1, 8)]
    frames = {}
    for kind, made in sets.items():
        whole = np.flatnonzero(made.terminal.sum(axis=1) == 0)
        if (
            len(whole)
            and (f := plotting.render(job.data.spec, made.observation[whole[0]][times])) is not None
        ):
            frames[kind] = f
    if frames:
        plotting.strip(frames, times, title=f"trajectories, {name}").savefig(folder / "frames.png")


def closing(job: Job[Config], checks: Record, compilations: devices.Compilations, seconds: float) -> None:
    """The table, `scores.json`, `report.txt` and the figures."""
    config, data = job.config, job.data
    records = {arm: job.journal.records(f"{arm}/evaluation") for arm in config.arms}
    arms = {arm: last_scores(r, data.spec, config.updates) for arm, r in records.items()}
    head = ["arm", f"{score_name(data.spec)} (95 %)", "seeds", "dynamics error", "log-likelihood (95 %)"]
    rows = [head]
    for arm, score in arms.items():
        entry = checks["sets"].get("data" if arm == "dataset" else arm, {})
        rows.append(
            [
                NAMES.get(arm, arm),
                with_interval(*score["interval"]),
                " ".join(f"{s:.1f}" for s in score["seeds"]),
                f"{entry['dynamics_median']:.1e}" if "dynamics_median" in entry else "-",
                with_interval(*entry["likelihood"], digits=2),
            ]
        )
    error, sampler = max(checks["sampler_std_error"].values(), key=abs), config.sampler
    text = "\n".join(
        [
            f"{data.origin.name}, {data.spec.env_id}: {config.agent}, {config.updates:,} updates, "
            f"{config.evaluation.episodes} episodes a seed, last checkpoint",
            "",
            table(rows),
            "",
            f"behaviour policy (mean of the dataset's episodes): {behaviour_score(data):.1f}",
            f"intervals: Student's t over {config.seeds} agent seeds that share one diffuser and world model",
            "dynamics error: median squared error of the next state, standardised, against the simulator",
            f"log-likelihood: of actions under N(pi(s), 1), pi of the {checks['target']} arm's agents",
            "terminal transitions (Clopper-Pearson): " + terminal_line(checks["terminals"]),
            f"sampler {sampler.sampler}, {sampler.steps} steps from {sampler.sigma_max:g}: "
            "std error on exact Gaussians (single channels, and the windows' widest direction) at most "
            f"{error:+.1%}",
            f"time {seconds / 60:.1f} min; {compiled(compilations)}",
        ]
    )
    phases = ("diffuser", config.world_model, *config.arms)
    minutes = {p: loops.training_seconds(job.journal, p) / 60 for p in phases if job.journal.records(p)}
    draw_scores(job, arms)
    if config.save_synthetic:
        save_synthetic(job)
    scores = {
        "dataset": data.origin.name,
        "task": data.spec.env_id,
        "arms": arms,
        "checks": checks,
        "behaviour": behaviour_score(data),
        "minutes": minutes,
        "seconds_of_last_process": seconds,
        "compilations": compilations.summary(),
    }
    finish(job, text, scores)


def draw_scores(job: Job[Config], arms: Mapping[str, Record]) -> None:
    """Learning curves and final scores."""
    data, folder = job.data, figures(job)
    losses = job.journal.records("diffuser")
    curves = {}
    for arm in arms:
        records = job.journal.records(f"{arm}/evaluation")
        values = np.stack([scores_of(r["returns"], data.spec).mean(axis=1) for r in records])
        curves[arm] = ([r["step"] for r in records], values)
    plotting.curves(
        ([r["step"] for r in losses], [r["loss"] for r in losses]) if losses else None,
        curves,
        behaviour=behaviour_score(data),
        title=f"{data.origin.name}, {job.config.agent}",
        score=score_name(data.spec),
    ).savefig(folder / "learning_curves.png")
    plotting.bars(arms, behaviour=behaviour_score(data), title=data.origin.name).savefig(
        folder / "scores.png"
    )


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
