"""Policy-guided diffusion (arXiv 2404.06356): synthetic experience for offline RL, four arms beside each
other.

    python experiments/pgd_d4rl.py --env hopper-medium

One trajectory diffuser is trained on the dataset, and one world model of single steps. Then agents are
trained on the dataset only, on unguided synthetic experience, on experience guided to the policy being
trained, and on rollouts of that policy in the world model, all with the same number of updates and of
synthetic transitions. Everything goes to results/pgd_d4rl/<dataset>/<run>/; a run that was cut goes on with
--resume. Presets: smoke (a minute, for the plumbing), cpu (minutes to half an hour on two cores), paper
(the reference's sizes, for an accelerator); any flag beats the preset.
"""

import dataclasses
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
import pgd_report as report
from common import Bar, option, parse, run_main, use_compilation_cache
from job import Job, check_task, load, open_run, opening
from models import check_world_model, diffuser_like, train_diffuser, train_world_model
from options import NOT_IN_HASH, RunConfig, check_positive, with_options
from phases import INIT, kept, train_agents

import jdp
from jdp import devices, runs
from jdp.agents import IQLConfig, TD3BCConfig, iql_reward_scale
from jdp.learning.diffuser import DiffuserConfig
from jdp.networks import NetworkConfig
from jdp.runs import checkpoints
from jdp.synthesis import GuidanceConfig, SamplerConfig
from jdp.world_models import (
    DiffusionStepConfig,
    EnsembleConfig,
    Kind,
    UnifiedConfig,
    noisy_actor,
    replay_actor,
)

Arm = Literal["dataset", "unguided", "guided", "world_model"]


@dataclass(frozen=True)
class SyntheticConfig:
    """The synthetic sets of all arms but the first."""

    trajectories: int = 2_000
    """Trajectories in a set, for each agent seed; a set has at most this times horizon transitions."""
    every: int = 5_000
    """Agent updates between two regenerations; the first set is of the dataset's own behaviour."""
    share: float = 0.9375
    """Share of synthetic transitions in a batch; the rest are real."""
    from_data: bool = False
    """Begin diffused trajectories at states of the dataset instead of wholly from noise."""
    action_std: float = 0.1
    """Noise on the policy's actions in the world model; 0.1 is the exploration of TD3."""


@dataclass(frozen=True)
class EvaluationConfig:
    """Scores in the simulator, and checks of the synthetic sets."""

    episodes: int = 10
    """Episodes of every seed, at each regeneration for the learning curve and of the last checkpoint."""
    trajectories: int = 150
    """Generated trajectories of every kind that the simulator judges."""


@dataclass(frozen=True, kw_only=True)
class Config(RunConfig):
    """Train on data, on unguided, policy-guided and world-model experience, and compare."""

    arms: tuple[Arm, ...] = ("dataset", "unguided", "world_model", "guided")
    """Which arms to run."""
    agent: Literal["td3_bc", "iql"] = "td3_bc"
    """The offline-RL algorithm of all arms."""
    seeds: int = 3
    """Agent seeds, trained at once on one shared diffuser."""
    horizon: int = 32
    """Steps of a generated trajectory."""
    updates: int = 20_000
    """Agent updates (of TD3+BC: 2 critic steps and 1 actor step each)."""
    batch_size: int = 256
    """Transitions in an agent's minibatch."""
    network: NetworkConfig = field(default_factory=lambda: NetworkConfig("residual_unet", 48, 3))
    diffusion: DiffuserConfig = field(default_factory=DiffuserConfig)
    sampler: SamplerConfig = field(default_factory=SamplerConfig)
    guidance: GuidanceConfig = field(default_factory=GuidanceConfig)
    world_model: Kind = "ensemble"
    """The model of the arm world_model."""
    ensemble: EnsembleConfig = field(default_factory=lambda: EnsembleConfig(epochs=20))
    diffusion_step: DiffusionStepConfig = field(default_factory=DiffusionStepConfig)
    unified: UnifiedConfig = field(default_factory=UnifiedConfig)
    synthetic: SyntheticConfig = field(default_factory=SyntheticConfig)
    td3_bc: TD3BCConfig = field(default_factory=TD3BCConfig)
    iql: IQLConfig = field(default_factory=IQLConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    diffuser: str | None = None
    """A run directory whose trained diffuser is used again."""
    save_synthetic: bool = False
    """Write the last synthetic set of every arm as D4RL-layout HDF5 (and as Minari where it can be)."""


PRESETS = {
    "smoke": Config(
        preset="smoke",
        seeds=2,
        horizon=16,
        updates=400,
        network=NetworkConfig("residual_unet", 16, 2),
        diffusion=DiffuserConfig(steps=600),
        sampler=SamplerConfig(steps=10, batch=128),
        ensemble=EnsembleConfig(members=3, elites=2, hidden=(32, 32), decay=(0.0, 0.0, 0.0), epochs=2),
        synthetic=SyntheticConfig(trajectories=128, every=200),
        td3_bc=TD3BCConfig(hidden=(64, 64)),
        iql=IQLConfig(hidden=(64, 64), steps=400),
        evaluation=EvaluationConfig(episodes=2, trajectories=30),
    ),
    "cpu": Config(iql=IQLConfig(steps=20_000)),
    # The reference's network and agents, and a sampler that was measured against the reference's
    # (benchmarks/sampling.py). The diffuser's 100,000 steps are 45 PFLOP; 49 regenerations for three
    # seeds are 180 PFLOP unguided and 540 guided: hours on one accelerator (by count, not measured).
    "paper": Config(
        preset="paper",
        updates=500_000,
        network=NetworkConfig("unet", 1024, 3),
        diffusion=DiffuserConfig(steps=100_000, batch_size=32, ema=0.9995),
        sampler=SamplerConfig("dpmpp_2m_sde", steps=32, sigma_max=10.0, sigma_min=0.005, batch=1024),
        ensemble=EnsembleConfig(),
        synthetic=SyntheticConfig(trajectories=8_192, every=10_000),
        iql=IQLConfig(steps=500_000),
    ),
}
UNHASHED = (*NOT_IN_HASH, "diffuser", "save_synthetic")


def main() -> None:
    config = parse(PRESETS, lambda: "cpu" if jax.default_backend() == "cpu" else "paper", __doc__ or "")
    use_compilation_cache()
    compilations = devices.count_compilations()
    began = time.monotonic()
    check(config)
    config = with_options(config, "the experiment", "diffusion", "diffusion_step", "unified")
    data = load(config)
    config = fit_to_data(config, data)
    mesh = devices.data_mesh()
    size, parts = config.diffusion.batch_size, config.diffusion.accumulate
    devices.check_divisible(size, mesh, "--diffusion.batch-size", parts)
    devices.check_divisible(config.batch_size, mesh, "--batch-size")
    opening(config, data, f"agent {config.agent}, {config.seeds} agent seeds on shared models")

    borrowed = borrow_diffuser(config, data)
    facts = {"diffuser_from": None if config.diffuser is None else str(Path(config.diffuser).resolve())}
    run = open_run("pgd_d4rl", config, data, UNHASHED, facts)
    keys = jdp.types.named_keys(jax.random.key(config.seed), "diffuser", "agents", "generate", "check")
    # Apart from the others, so that runs from before there was a world model keep their numbers.
    keys["world_model"] = jax.random.fold_in(jax.random.key(config.seed), INIT)
    job = Job(config, data, run, mesh, keys)
    models = train_models(job, borrowed)
    real = jdp.data.transitions(data)
    agents = {arm: train_arm(job, arm, real, models) for arm in config.arms}

    checks = report.check_sets(job, agents, models, made_by)
    report.closing(job, checks, compilations, time.monotonic() - began)


@dataclass(frozen=True)
class Models:
    """What synthetic experience is made with; models that no arm needs are None."""

    agent: Any
    normaliser: Any
    diffuser: Any
    diffuser_state: Any
    world_model: Any
    world_model_state: Any


def check(config: Config) -> None:
    """Raises `UserError` for settings that cannot work, before anything is written."""
    jdp.synthesis.check_guidance(config.guidance, config.sampler.name)
    for sink in config.log:
        runs.check_sink(sink)
    check_positive(
        {
            "--seeds": config.seeds,
            "--updates": config.updates,
            "--batch-size": config.batch_size,
            "--diffusion.steps": config.diffusion.steps,
            "--diffusion.batch-size": config.diffusion.batch_size,
            "--synthetic.every": config.synthetic.every,
            "--synthetic.trajectories": config.synthetic.trajectories,
            "--evaluation.episodes": config.evaluation.episodes,
            "--evaluation.trajectories": config.evaluation.trajectories,
        }
    )
    if config.horizon < 2:
        raise jdp.UserError(f"--horizon is {config.horizon}: it must be at least 2")
    if not 0 <= config.synthetic.share <= 1:
        raise jdp.UserError(f"--synthetic.share is {config.synthetic.share}: it must lie between 0 and 1")
    if not config.arms or len(set(config.arms)) != len(config.arms):
        raise jdp.UserError("--arms needs at least one arm, and each at most once")


def fit_to_data(config: Config, data: Any) -> Config:
    """Fills in what depends on the dataset, and checks that the task can be simulated."""
    check_task(data)
    jdp.data.windows(data, config.horizon)  # fails early where no window fits
    if "world_model" in config.arms:
        check_world_model(config, config.world_model, data)
    if config.agent == "iql" and option("--iql.reward-scale") is None:
        scaled = dataclasses.replace(config.iql, reward_scale=iql_reward_scale(data.returns))
        config = dataclasses.replace(config, iql=scaled)
    return config


def borrow_diffuser(config: Config, data: Any) -> tuple[Any, Any] | None:
    """The diffuser of the run that `--diffuser` names, with its normaliser."""
    if config.diffuser is None:
        return None
    normaliser = jdp.data.fit_normaliser(data)
    folder = Path(config.diffuser) / "checkpoints" / "diffuser"
    saved = checkpoints.restore(folder, diffuser_like(config, data.spec))
    if not np.allclose(saved["normaliser"].mean, normaliser.mean, rtol=1e-4, atol=1e-4):
        raise jdp.UserError(f"the diffuser of {config.diffuser} was trained on other data than {config.env}")
    print(f"diffuser   of {config.diffuser}, step {int(saved['state'].step):,}")
    return saved["state"], saved["normaliser"]


def train_models(job: Job, borrowed: tuple[Any, Any] | None) -> Models:
    """Those of the diffuser and the world model that the arms need."""
    config = job.config
    agent = jdp.agents.make(getattr(config, config.agent), job.data.spec)
    normaliser = jdp.data.fit_normaliser(job.data)
    diffuser = diffuser_state = model = model_state = None
    if {"unguided", "guided"} & set(config.arms):
        diffuser, diffuser_state, normaliser = train_diffuser(job, "diffuser", job.keys["diffuser"], borrowed)
    if "world_model" in config.arms:
        model, model_state = train_world_model(job, config.world_model, job.keys["world_model"])
    return Models(agent, normaliser, diffuser, diffuser_state, model, model_state)


def train_arm(job: Job, arm: Arm, real: Any, models: Models) -> Any:
    """All seeds of one arm, stacked `[S, ...]`: rounds of generating, training and evaluating."""
    config = job.config

    def pool_for(begin: int, states: Any) -> Any:
        made = None if arm == "dataset" else synthetic_set(job, arm, begin, states, models)
        return jdp.synthesis.pool(real, made, capacity=config.synthetic.trajectories * (config.horizon - 1))

    return train_agents(
        job,
        arm,
        models.agent,
        pool_for,
        real_share=1.0 if arm == "dataset" else 1 - config.synthetic.share,
        sample=jax.tree.map(jax.numpy.asarray, real),
        updates=config.updates,
        every=config.synthetic.every,
    )


def synthetic_set(job: Job, arm: Arm, begin: int, states: Any, models: Models) -> jdp.synthesis.Experience:
    """`[S, M, T, ...]`: the set that serves updates from `begin` on."""
    count = job.config.synthetic.trajectories
    policy = states if begin > 0 else None  # a policy that has learned nothing guides nothing

    def make() -> dict[str, np.ndarray]:
        key = jax.random.fold_in(job.keys["generate"], begin)
        with Bar(f"{arm}: generate", job.config.seeds * count, "trajectory") as bar:
            return made_by(arm, job, key, policy, models, count, bar)._asdict()

    return jdp.synthesis.Experience(**kept(job, arm, begin, make))


def made_by(
    arm: Arm, job: Job, key: jax.Array, states: Any, models: Models, count: int, bar: Bar
) -> jdp.synthesis.Experience:
    """`[S, M, T, ...]` experience of the policies in `states`, or of the dataset's behaviour for None."""
    if arm == "world_model":
        return imagine(job, key, states, models, count, bar)
    x = generate(job, key, states if arm == "guided" else None, models, count, bar)
    return jdp.synthesis.experience(x, models.normaliser)


def imagine(
    job: Job, key: jax.Array, states: Any, models: Models, count: int, bar: Bar
) -> jdp.synthesis.Experience:
    """Rollouts of the world model from states of the dataset, as many as give `count` whole trajectories.

    Without policies the dataset's own actions are played, from the states in which they were taken.
    """
    config, data, model = job.config, job.data, models.world_model
    rng = np.random.default_rng(np.asarray(jax.random.key_data(key)))
    wanted, parts, found = count * (config.horizon - 1), [], 0
    batch = devices.multiple(count, job.mesh)
    while found < wanted:  # an episode that ends early leaves room for another
        shape = (config.seeds, batch)
        if states is None:
            histories, actions = jdp.synthesis.recorded(rng, data, model.history, config.horizon, shape)
            actors = replay_actor(jax.numpy.asarray(actions))
        else:
            histories = jdp.synthesis.branches(rng, data, model.history, shape)
            std = np.full(config.seeds, config.synthetic.action_std, np.float32)
            actors = noisy_actor(models.agent.act, states, jax.numpy.asarray(std))
        made = jdp.synthesis.imagine(
            jax.random.fold_in(key, len(parts)),
            model,
            models.world_model_state,
            actors,
            histories,
            length=config.horizon,
            batch=batch,
            mesh=job.mesh,
        )
        if not made.valid.any(axis=(1, 2)).all():
            raise jdp.UserError(
                f"the {config.world_model} made no finite step: lower its learning rate, and start again"
            )
        parts.append(made)
        found += int(made.valid.sum(axis=(1, 2)).min())
        bar.at(min(found, wanted) * count * config.seeds // wanted)
    return jax.tree.map(lambda *x: np.concatenate(x, axis=1), *parts)


def generate(job: Job, key: jax.Array, states: Any, models: Models, count: int, bar: Bar) -> np.ndarray:
    """`[S, count, T, D]` normalised trajectories, guided to `states` unless they are None."""
    config, normaliser = job.config, models.normaliser
    denoiser = unguided = models.diffuser.denoiser(models.diffuser_state)
    if states is not None:
        denoiser = jdp.synthesis.guide(
            denoiser, models.agent.act, states, normaliser, config.guidance, config.sampler.sigmas()
        )
    initial = None
    if config.synthetic.from_data:
        rng = np.random.default_rng(np.asarray(jax.random.key_data(key)))
        rows = rng.integers(len(job.data), size=count)
        initial = normaliser.normalise_observation(job.data.observations[rows])
    return jdp.synthesis.generate(
        key,
        denoiser,
        config.sampler,
        count=count,
        length=config.horizon,
        channels=len(normaliser.mean),
        agents=config.seeds,
        initial=initial,
        unguided=None if states is None else unguided,
        mesh=job.mesh,
        progress=lambda done, _: bar.at(done),
    )


if __name__ == "__main__":
    run_main(main, spans_processes=True)
