"""What `pgd_d4rl.py` prints, checks and draws: the report of a run."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from common import Bar, table
from phases import last_scores, training_seconds
from scoring import behaviour, score_name, scores_of, with_interval

import jdp
from jdp import plotting
from jdp.diffusion import exact
from jdp.evaluation import Simulator, action_log_likelihood, dynamics_error, interval, supports

NAMES = {"dataset": "dataset only", "guided": "policy-guided", "world_model": "world model"}


def check_sets(job: Any, agents: dict[str, Any], models: Any, made_by: Callable[..., Any]) -> dict[str, Any]:
    """Dynamics error and action likelihood of the data and every synthetic set, under one target policy.

    The target policies are those of the last arm that was trained (guided, where it is there): every
    seed judges its own share of the trajectories. `made_by` is that of `pgd_d4rl.py`.
    """
    config, data, normaliser = job.config, job.data, models.normaliser
    found = job.run.read("checks.json")
    if found is not None:
        return found
    target = list(agents)[-1]
    states, count, horizon = agents[target], config.evaluation.trajectories, config.horizon
    per_seed = -(-count // config.seeds)
    windows = real_windows(data, normaliser, per_seed * config.seeds, horizon)
    experiences = {"data": jdp.synthesis.experience(windows, normaliser)}
    for arm in (a for a in config.arms if a != "dataset"):
        with Bar(f"check: {arm}", per_seed * config.seeds, "trajectory") as bar:
            made = made_by(arm, job, job.keys["check"], states, models, per_seed, bar)
        # Seed by seed; of the world model's more where episodes ended early.
        experiences[arm] = jax.tree.map(lambda x: x[:, :per_seed].reshape(-1, *x.shape[2:]), made)

    simulator = Simulator(data.spec.env_id) if supports(data.spec.env_id, data.spec) else None
    if simulator is None:
        print(
            f"           the simulator cannot be set to observations of {data.spec.env_id}: no dynamics error"
        )
    result: dict[str, Any] = {
        "target": target,
        "likelihood_std": 1.0,
        "sampler_std_error": exact.std_errors(config.sampler.sampler(), config.sampler.sigmas()),
        "terminals": terminal_shares(data, experiences, horizon),
        "sets": {},
    }
    curves, columns = {}, {}
    for kind, made in experiences.items():
        entry: dict[str, Any] = {"trajectories": len(made.valid), "steps": int(made.valid.sum())}
        entry["likelihood"] = likelihood(models.agent, states, made, config.seeds)
        if simulator is not None:
            error = dynamics_error(
                simulator,
                made.observation,
                made.action,
                made.reward,
                made.valid[:, :-1],
                normaliser.std[: normaliser.observation_dim],
                float(normaliser.std[-2]),
                terminals=made.terminal,
            )
            entry |= {
                "dynamics_median": error.median,
                "dynamics_mean": error.mean,
                "dynamics_interval": median_interval(error.per_transition),
                "reward_median": error.reward_median,
                "terminal_mismatch": error.terminal_mismatch_rate,
                "by_position": error.median_by_position,
            }
            curves[kind] = error.per_transition
        result["sets"][kind] = entry
        rows = np.concatenate([made.observation, made.action, made.reward[..., None]], axis=-1)
        columns[kind] = rows[made.valid]
    draw_sets(job, curves, columns, experiences)
    job.run.write("checks.json", result)
    return job.run.read("checks.json") or {}


def likelihood(agent: Any, states: Any, made: Any, seeds: int) -> list[float]:
    """(mean, low, high) of log N(a; mu(s), 1) over trajectories, each under its own seed's policy."""
    means = []
    for s, rows in enumerate(np.split(np.arange(len(made.valid)), seeds)):
        state = jax.tree.map(lambda leaf, s=s: leaf[s], states)
        values = action_log_likelihood(agent.act, state, made.observation[rows], made.action[rows],
                                       valid=made.valid[rows]).per_transition  # fmt: skip
        means.append(np.nanmean(values, axis=1)[made.valid[rows].any(axis=1)])
    return list(interval(np.concatenate(means)))


def median_interval(errors: np.ndarray) -> list[float]:
    """95 % bootstrap interval of the median over trajectories (steps of one are not independent)."""
    rng = np.random.default_rng(0)
    rows = errors[~np.isnan(errors).all(axis=1)]
    draws = [np.nanmedian(rows[rng.integers(len(rows), size=len(rows))]) for _ in range(400)]
    return [float(q) for q in np.quantile(draws, (0.025, 0.975))]


def real_windows(data: Any, normaliser: Any, count: int, horizon: int) -> np.ndarray:
    """`[count, T, D]` windows of the dataset, normalised."""
    rows, _ = jdp.data.training_rows(data, normaliser)
    windows = jdp.data.windows(data, horizon)
    chosen = np.random.default_rng(0).integers(len(windows.starts), size=count)
    index = np.minimum(windows.starts[chosen][:, None] + np.arange(horizon), windows.last[chosen][:, None])
    return rows[index]


def terminal_shares(data: Any, experiences: dict[str, Any], horizon: int) -> dict[str, float]:
    """Share of terminal transitions in the data, the training windows and every generated set."""
    rows = jdp.data.padded_rows(data)
    windows = jdp.data.windows(data, horizon)
    flags = np.concatenate([[0], np.cumsum(rows.terminal * ~rows.pad)])
    stop = np.minimum(windows.starts + horizon, windows.last + 1)
    steps = np.concatenate([[0], np.cumsum(~rows.pad)])
    terminal = (flags[stop] - flags[windows.starts]).sum()
    shares = {
        "data": float(data.terminals.mean()),
        "windows": float(terminal / (steps[stop] - steps[windows.starts]).sum()),
    }
    for kind, made in experiences.items():
        if kind != "data":
            shares[kind] = float(made.terminal[made.valid].mean())
    return shares


def draw_sets(job: Any, errors: dict, columns: dict, experiences: dict[str, Any]) -> None:
    """Figures of the generated sets."""
    folder, name = job.run.path / "figures", job.data.origin.name
    folder.mkdir(exist_ok=True)
    synthetic = {k: v for k, v in errors.items() if k != "data"}
    if synthetic:
        plotting.dynamics_by_position(synthetic, title=name).savefig(folder / "dynamics_error.png")
    o, a = job.data.spec.observation_dim, job.data.spec.action_dim
    names = [*(f"state {i}" for i in range(o)), *(f"action {i}" for i in range(a)), "reward"]
    shown = [*range(min(o, 11)), *range(o, o + min(a, 8)), o + a]
    plotting.marginals(
        {k: v[:, shown] for k, v in columns.items()}, [names[i] for i in shown], title=name
    ).savefig(folder / "marginals.png")
    times = [int(t) for t in np.linspace(0, job.config.horizon - 1, 8)]
    frames = {}
    for kind, made in experiences.items():
        whole = np.flatnonzero(made.terminal.sum(axis=1) == 0)
        if (
            len(whole)
            and (f := plotting.render(job.data.spec.env_id, made.observation[whole[0]][times])) is not None
        ):
            frames[kind] = f
    if frames:
        plotting.strip(frames, times, title=f"trajectories, {name}").savefig(folder / "frames.png")


def closing(job: Any, checks: dict[str, Any], compilations: Any, seconds: float) -> None:
    """The table, `scores.json`, `report.txt` and the figures."""
    config, data = job.config, job.data
    arms = {arm: last_scores(job, arm, config.updates) for arm in config.arms}
    head = ["arm", f"{score_name(data.spec)} (95 %)", "seeds", "dynamics error", "log-likelihood (95 %)"]
    rows = [head]
    for arm, score in arms.items():
        entry = checks["sets"].get("data" if arm == "dataset" else arm, {})
        rows.append(
            [
                NAMES.get(arm, arm),
                with_interval(score["interval"]),
                " ".join(f"{s:.1f}" for s in score["seeds"]),
                f"{entry['dynamics_median']:.1e}" if "dynamics_median" in entry else "-",
                with_interval(entry["likelihood"], digits=2),
            ]
        )
    share = checks["terminals"]
    error = max(checks["sampler_std_error"].values(), key=abs)
    text = "\n".join(
        [
            f"{data.origin.name}, {data.spec.env_id}: {config.agent}, {config.updates:,} updates, "
            f"{config.evaluation.episodes} episodes a seed, last checkpoint",
            "",
            table(rows),
            "",
            f"behaviour policy (mean of the dataset's episodes): {behaviour(data):.1f}",
            f"intervals: Student's t over {config.seeds} agent seeds that share one diffuser and world model",
            "dynamics error: median squared error of the next state, standardised, against the simulator",
            f"log-likelihood: of actions under N(pi(s), 1), pi of the {checks['target']} arm's agents",
            "terminal transitions: " + ", ".join(f"{k} {v:.3%}" for k, v in share.items()),
            f"sampler {config.sampler.name}, {config.sampler.steps} steps: std error on exact Gaussians "
            f"at most {error:+.1%}",
            f"time {seconds / 60:.1f} min; {compilations.count} programs compiled in "
            f"{compilations.seconds:.0f} s ({compilations.cache_hits} from the cache)",
        ]
    )
    phases = ("diffuser", config.world_model, *config.arms)
    minutes = {phase: training_seconds(job, phase) / 60 for phase in phases if job.run.records(phase)}
    draw_scores(job, arms)
    Path(job.run.path / "report.txt").write_text(text + "\n")
    if config.save_synthetic:
        save_synthetic(job)
    scores = {
        "dataset": data.origin.name,
        "task": data.spec.env_id,
        "arms": arms,
        "checks": checks,
        "behaviour": behaviour(data),
        "minutes": minutes,
        "seconds_of_last_process": seconds,
        "compilations": compilations.summary(),
    }
    job.run.write("scores.json", scores)
    print(f"\n{text}\nwritten to {job.run.path}")


def draw_scores(job: Any, arms: dict[str, Any]) -> None:
    """Learning curves and final scores."""
    data, folder = job.data, job.run.path / "figures"
    folder.mkdir(exist_ok=True)
    losses = job.run.records("diffuser")
    curves = {}
    for arm in arms:
        records = job.run.records(f"{arm}/evaluation")
        values = np.stack([scores_of(r["returns"], data.spec).mean(axis=1) for r in records])
        curves[arm] = ([r["step"] for r in records], values)
    plotting.curves(
        ([r["step"] for r in losses], [r["loss"] for r in losses]) if losses else None,
        curves,
        behaviour=behaviour(data),
        title=f"{data.origin.name}, {job.config.agent}",
        score=score_name(data.spec),
    ).savefig(folder / "learning_curves.png")
    plotting.bars(arms, behaviour=behaviour(data), title=data.origin.name).savefig(folder / "scores.png")


def save_synthetic(job: Any) -> None:
    """The last synthetic set of every arm, as D4RL-layout HDF5 and as a local Minari dataset."""
    from jdp.data.export import save_d4rl, save_minari

    for arm in (a for a in job.config.arms if a != "dataset"):
        sets = (job.run.path / "synthetic").glob(f"{arm}-*.npz")
        path = max(sets, key=lambda p: int(p.stem.removeprefix(f"{arm}-")))
        with np.load(path, allow_pickle=False) as file:
            made = jdp.synthesis.Experience(**{k: v.reshape(-1, *v.shape[2:]) for k, v in file.items()})
        transitions, timeouts = jdp.synthesis.to_transitions(made)
        facts = {"made_by": "jdp", "from": job.data.origin.name, "arm": arm, "run": str(job.run.path)}
        target = job.run.path / "synthetic" / f"{arm}.hdf5"
        save_d4rl(target, transitions, timeouts, env_id=job.data.spec.env_id, metadata=facts)
        print(f"saved      {target} ({len(timeouts):,} transitions)")
        name = f"jdp/{job.run.path.name}/{arm}-v0".replace("_", "-")
        try:
            save_minari(name, transitions, timeouts, env_id=job.data.spec.env_id, description=str(facts))
            print(f"saved      Minari dataset {name}")
        except jdp.UserError as error:
            print(f"           not saved as Minari: {error}")
