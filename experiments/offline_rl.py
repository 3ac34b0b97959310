"""Offline RL: one agent, model-free or model-based, trained on a dataset and scored in the simulator.

    python experiments/offline_rl.py --agent td3_bc --env hopper-medium
    python experiments/offline_rl.py --agent mopo --env hopper-medium --settings.penalty 5

Model-free: bc, td3_bc, rebrac, iql, awac, cql, sac_n, edac. Model-based: mopo, morel, combo; these first
train a world model (an ensemble, or for combo also a diffusion model), and then learn from its rollouts
beside the data. The agent's own
settings are --settings.*, which --agent X --help lists. Everything goes to
results/offline_rl/<dataset>/<run>/; a run that was cut goes on with --resume; experiments/table.py makes
one table of all runs. Presets: smoke (a minute, for the plumbing), cpu (minutes on two cores), paper (a
million updates, for an accelerator); any flag beats the preset.
"""

import dataclasses
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from common import choose, option, parse, run_main, use_compilation_cache
from job import Job, check_task, load, open_run, opening
from models import check_world_model, train_world_model
from options import RunConfig, check_positive, refuse_stream, with_options
from phases import kept, last_scores, train_agents, training_seconds
from scoring import behaviour, score_name, scores_of, with_interval

import jdp
from jdp import devices, plotting, runs
from jdp.agents import (
    AGENTS,
    COMBO_SETTINGS,
    EDAC_SETTINGS,
    MODEL_BASED,
    MOPO_SETTINGS,
    REBRAC_BETAS,
    SAC_N_CRITICS,
    iql_reward_scale,
)
from jdp.data.names import full_d4rl_name, locomotion_reference
from jdp.world_models import DiffusionStepConfig, EnsembleConfig, Kind, Ring, UnifiedConfig

T = TypeVar("T")


@dataclass(frozen=True)
class EvaluationConfig:
    """Scores in the simulator."""

    episodes: int = 10
    """Episodes of every seed."""
    every: int = 2_000
    """Updates between two evaluations for the learning curve; the last checkpoint is always evaluated."""


@dataclass(frozen=True, kw_only=True)
class Config(RunConfig, Generic[T]):
    """Train an offline-RL agent and score its last checkpoint."""

    settings: T
    """Of the agent's algorithm."""
    agent: str = "td3_bc"
    """The algorithm."""
    seeds: int = 3
    """Agent seeds, trained at once; those of a model-based agent share one world model."""
    updates: int = 10_000
    """Agent updates (of td3_bc and rebrac: 2 critic steps and 1 actor step each)."""
    batch_size: int = 256
    """Transitions in a minibatch."""
    world_model: Kind = "ensemble"
    """Of the model-based agents; mopo and morel need an ensemble."""
    ensemble: EnsembleConfig = field(default_factory=EnsembleConfig)
    diffusion_step: DiffusionStepConfig = field(default_factory=DiffusionStepConfig)
    unified: UnifiedConfig = field(default_factory=UnifiedConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)


# What two cores can do in minutes: the papers' algorithms with two hidden layers, fewer samples of the
# conservative term, and as many critics as fit. The table in the README is made with these.
SMALLER: dict[str, dict[str, Any]] = {
    "cql": {"hidden": (256, 256), "actions": 4},
    "combo": {"hidden": (256, 256), "actions": 4},
    "edac": {"hidden": (256, 256), "critics": 10},
    "sac_n": {"hidden": (256, 256), "critics": 10},
    "rebrac": {"hidden": (256, 256)},
    "awac": {"hidden": (256, 256)},
}


def tuned(agent: str, env: str) -> Any:
    """The agent's settings, with those that its authors (or re-implementations) tuned for the dataset."""
    settings, name = AGENTS[agent](), full_d4rl_name(env) or ""
    if agent == "rebrac" and name in REBRAC_BETAS:
        actor, critic = REBRAC_BETAS[name]
        return dataclasses.replace(settings, beta_actor=actor, beta_critic=critic)
    if agent == "sac_n" and name in SAC_N_CRITICS:
        return dataclasses.replace(settings, critics=SAC_N_CRITICS[name])
    if agent == "edac" and name in EDAC_SETTINGS:
        critics, diversity = EDAC_SETTINGS[name]
        return dataclasses.replace(settings, critics=critics, diversity=diversity)
    if agent == "mopo" and name in MOPO_SETTINGS:
        length, penalty = MOPO_SETTINGS[name]
        rollouts = dataclasses.replace(settings.rollouts, length=length)
        return dataclasses.replace(settings, penalty=penalty, rollouts=rollouts)
    if agent == "combo" and name in COMBO_SETTINGS:
        length, weight = COMBO_SETTINGS[name]
        rollouts = dataclasses.replace(settings.rollouts, length=length)
        return dataclasses.replace(settings, conservative_weight=weight, rollouts=rollouts)
    return settings


def presets(agent: str, env: str) -> dict[str, Config]:
    """The presets for one agent on one dataset."""
    settings = tuned(agent, env)
    small = dataclasses.replace(settings, **SMALLER.get(agent, {}))
    tiny = dataclasses.replace(small, hidden=(64, 64))
    if agent in MODEL_BASED:
        rollouts = dataclasses.replace(tiny.rollouts, batch=500, every=200, capacity=5_000)
        tiny = dataclasses.replace(tiny, rollouts=rollouts)
    return {
        "smoke": Config(
            agent=agent,
            preset="smoke",
            seeds=2,
            updates=400,
            settings=tiny,
            ensemble=EnsembleConfig(members=3, elites=2, hidden=(32, 32), decay=(0.0,), epochs=2),
            diffusion_step=DiffusionStepConfig(hidden=32, blocks=1, steps=300),
            unified=UnifiedConfig(hidden=32, blocks=1, steps=300),
            evaluation=EvaluationConfig(episodes=2, every=200),
        ),
        "cpu": Config(agent=agent, settings=small, ensemble=EnsembleConfig(epochs=20)),
        "paper": Config(
            agent=agent,
            preset="paper",
            seeds=5,
            updates=1_000_000,
            batch_size=1024 if agent == "rebrac" else 256,
            settings=settings,
            evaluation=EvaluationConfig(every=50_000),
        ),
    }


def main() -> None:
    agent_name = choose("--agent", AGENTS, "td3_bc")
    kind: Any = Config[AGENTS[agent_name]]  # type: ignore[misc]
    device = "cpu" if jax.default_backend() == "cpu" else "paper"
    defaults = presets(agent_name, option("--env") or Config.env)
    config = parse(defaults, lambda: device, __doc__ or "", kind)
    use_compilation_cache()
    compilations = devices.count_compilations()
    check(config)
    refuse_stream(config, "agents draw transitions on the devices, where a million rows take about 100 MB")
    parts = (config.world_model,) if config.agent in MODEL_BASED and config.world_model != "ensemble" else ()
    config = with_options(config, f"agent {config.agent} without a diffusion model", *parts)
    data = load(config)
    config = fit_to_data(config, data)
    mesh = devices.data_mesh()
    devices.check_divisible(config.batch_size, mesh, "--batch-size")
    opening(config, data, f"agent {config.agent}, {config.seeds} seeds at once")
    run = open_run("offline_rl", config, data)
    names = ("agents", "world_model", "rollouts")
    job = Job(config, data, run, mesh, jdp.types.named_keys(jax.random.key(config.seed), *names))
    if config.agent in MODEL_BASED:
        train_model_based(job)
    else:
        train_model_free(job)
    closing(job, compilations)


def check(config: Config) -> None:
    """Raises `UserError` for settings that cannot work, before anything is written."""
    for sink in config.log:
        runs.check_sink(sink)
    check_positive(
        {
            "--seeds": config.seeds,
            "--updates": config.updates,
            "--batch-size": config.batch_size,
            "--evaluation.episodes": config.evaluation.episodes,
            "--evaluation.every": config.evaluation.every,
        }
    )


def fit_to_data(config: Config, data: Any) -> Config:
    """Fills in what depends on the dataset, and checks what the task must offer."""
    check_task(data)
    changes: dict[str, Any] = {}
    if config.agent in MODEL_BASED:  # what these refuse, before anything is trained
        model = check_world_model(config, config.world_model, data)
        jdp.agents.make_model_based(config.settings, data.spec, model)
    if config.agent == "iql" and option("--settings.steps") is None:
        changes["steps"] = config.updates
    locomotion = locomotion_reference(data.spec.env_id) is not None
    if config.agent in ("iql", "awac") and locomotion and option("--settings.reward-scale") is None:
        changes["reward_scale"] = iql_reward_scale(data.returns)
    return dataclasses.replace(config, settings=dataclasses.replace(config.settings, **changes))


def train_model_free(job: Job) -> None:
    """All seeds on the dataset alone."""
    config = job.config
    agent = jdp.agents.make(config.settings, job.data.spec)
    real = jdp.data.transitions(job.data, next_actions=agent.next_actions)
    pool = jdp.synthesis.pool(real)
    train_agents(
        job,
        "agent",
        agent,
        lambda begin, states: pool,
        sample=jax.tree.map(jnp.asarray, real),
        updates=config.updates,
        every=config.evaluation.every,
    )


def train_model_based(job: Job) -> None:
    """The world model, then all seeds on the dataset and rollouts of their own policies in it."""
    config = job.config
    model, state = train_world_model(job, config.world_model, job.keys["world_model"])
    based = jdp.agents.make_model_based(config.settings, job.data.spec, model)
    real = jdp.data.transitions(job.data)
    rollouts, sample = config.settings.rollouts, jax.tree.map(jnp.asarray, real)
    state = based.calibrate(state, sample)
    pool = jdp.synthesis.pool(real)
    pool = pool._replace(real=jnp.asarray(pool.real))  # once; the rings change every round
    held: dict[int, Ring] = {}  # the newest, by the update they serve from

    def rings_at(begin: int, states: Any) -> Ring:
        """The buffers that serve the updates from `begin` on."""
        if begin in held:
            return held[begin]

        def roll() -> dict[str, np.ndarray]:
            if begin:
                rings = rings_at(begin - rollouts.every, states)
            else:
                rings = jdp.synthesis.empty_rings(rollouts, config.seeds, pool.real.shape[-1])
            key = jax.random.fold_in(job.keys["rollouts"], begin)
            rng = np.random.default_rng(np.asarray(jax.random.key_data(key)))
            shape = (config.seeds, rollouts.batch)
            histories = jdp.synthesis.branches(rng, job.data, based.model.history, shape)
            rings = jdp.synthesis.refill(
                key, based.model, state, based.agent.act, states, rings, histories, rollouts, job.mesh
            )
            held.clear()
            held[begin] = rings
            return {name: np.asarray(x) for name, x in rings._asdict().items()}

        found = kept(job, "rollouts", begin, roll)
        return held.get(begin) or Ring(**jax.tree.map(jnp.asarray, found))

    def pool_for(begin: int, states: Any) -> Any:
        rings = rings_at(begin, states)
        return pool._replace(synthetic=rings.rows, sizes=rings.size)

    train_agents(
        job,
        "agent",
        based.agent,
        pool_for,
        real_share=rollouts.real_share,
        sample=sample,
        updates=config.updates,
        every=rollouts.every,
        evaluate_every=config.evaluation.every,
    )


def closing(job: Job, compilations: Any) -> None:
    """`scores.json`, `report.txt` and the learning curve."""
    config, data, spec = job.config, job.data, job.data.spec
    score = last_scores(job, "agent", config.updates)
    minutes = {
        phase: training_seconds(job, phase) / 60
        for phase in (config.world_model, "agent")
        if job.run.records(phase)
    }
    text = "\n".join(
        [
            f"{data.origin.name}, {spec.env_id}: {config.agent}, {config.updates:,} updates, "
            f"{config.evaluation.episodes} episodes a seed, last checkpoint",
            "",
            f"{score_name(spec)} {with_interval(score['interval'])}"
            f" (seeds {' '.join(f'{s:.1f}' for s in score['seeds'])})",
            f"behaviour policy (mean of the dataset's episodes): {behaviour(data):.1f}",
            f"interval: Student's t over {config.seeds} agent seeds"
            + (" that share one world model" if config.agent in MODEL_BASED else ""),
            "training: " + ", ".join(f"{phase} {m:.1f} min" for phase, m in minutes.items())
            + f" (all {config.seeds} seeds at once)",
            f"{compilations.count} programs compiled in {compilations.seconds:.0f} s "
            f"({compilations.cache_hits} from the cache)",
        ]
    )  # fmt: skip
    records = job.run.records("agent/evaluation")
    values = np.stack([scores_of(r["returns"], spec).mean(axis=1) for r in records])
    folder = job.run.path / "figures"
    folder.mkdir(exist_ok=True)
    plotting.curves(
        None,
        {config.agent: ([r["step"] for r in records], values)},
        behaviour=behaviour(data),
        title=data.origin.name,
        score=score_name(spec),
    ).savefig(folder / "learning_curve.png")
    (job.run.path / "report.txt").write_text(text + "\n")
    job.run.write(
        "scores.json",
        {
            "dataset": data.origin.name,
            "task": spec.env_id,
            "agent": config.agent,
            "score_name": score_name(spec),
            "preset": config.preset,
            "updates": config.updates,
            "episodes": config.evaluation.episodes,
            **score,
            "behaviour": behaviour(data),
            "minutes": minutes,
            "compilations": compilations.summary(),
        },
    )
    print(f"\n{text}\nwritten to {job.run.path}")


if __name__ == "__main__":
    run_main(main, spans_processes=True)
