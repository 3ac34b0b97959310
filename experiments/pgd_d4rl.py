"""Policy-guided diffusion (arXiv 2404.06356): synthetic experience for offline RL, three arms beside
each other.

    python experiments/pgd_d4rl.py --env hopper-medium

One trajectory diffuser is trained on the dataset. Then agents are trained on the dataset only, on
unguided synthetic experience, and on experience guided to the policy being trained, all with the same
number of updates. Everything goes to results/pgd_d4rl/<dataset>/<run>/; a run that was cut goes on with
--resume. Presets: smoke (a minute, for the plumbing), cpu (minutes to half an hour on two cores), paper
(the reference's sizes, for an accelerator); any flag beats the preset.
"""

import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
import report
from common import Bar, parse, run_main, show_download, use_compilation_cache

import jdp
from jdp import training
from jdp.agents import IQLConfig, TD3BCConfig, iql_reward_scale
from jdp.data.sources import Source
from jdp.diffusion import DiffuserConfig, trajectory_diffuser
from jdp.networks import NetworkConfig, Precision, parameter_count
from jdp.synthesis import GuidanceConfig, SamplerConfig
from jdp.synthesis import load as loading
from jdp.training import checkpoints

Arm = Literal["dataset", "unguided", "guided"]


@dataclass(frozen=True)
class SyntheticConfig:
    """The synthetic sets of the unguided and the guided arm."""

    trajectories: int = 2_000
    """Trajectories in a set, for each agent seed; a set has at most this times horizon transitions."""
    every: int = 5_000
    """Agent updates between two regenerations; the first set is unguided in both arms."""
    share: float = 0.9375
    """Share of synthetic transitions in a batch; the rest are real."""
    from_data: bool = False
    """Begin trajectories at states of the dataset instead of wholly from noise."""


@dataclass(frozen=True)
class EvaluationConfig:
    """Scores in the simulator, and checks of the synthetic sets."""

    episodes: int = 10
    """Episodes of every seed, at each regeneration for the learning curve and of the last checkpoint."""
    trajectories: int = 150
    """Generated trajectories of every kind that the simulator judges."""


@dataclass(frozen=True)
class Config:
    """Train on data, unguided and policy-guided synthetic experience, and compare."""

    env: str = "hopper-medium"
    """D4RL name with or without version, Minari id, or path to a D4RL-layout HDF5 file."""
    preset: Literal["smoke", "cpu", "paper"] = "cpu"
    """Defaults of everything below; without it, cpu or paper by device."""
    source: Source = "auto"
    """auto: D4RL on disk, D4RL download, the bundled set; or one of them."""
    env_id: str | None = None
    """Gymnasium task for evaluation, where the dataset does not name one."""
    arms: tuple[Arm, ...] = ("dataset", "unguided", "guided")
    """Which arms to run."""
    agent: Literal["td3_bc", "iql"] = "td3_bc"
    """The offline-RL algorithm of all arms."""
    seed: int = 0
    """Of everything."""
    seeds: int = 3
    """Agent seeds, trained at once on one shared diffuser."""
    horizon: int = 32
    """Steps of a generated trajectory."""
    updates: int = 20_000
    """Agent updates (of TD3+BC: 2 critic steps and 1 actor step each)."""
    batch_size: int = 256
    """Transitions in an agent's minibatch."""
    precision: Precision = "float32"
    """Of the trajectory network's arithmetic."""
    network: NetworkConfig = field(default_factory=lambda: NetworkConfig("residual_unet", 48, 3))
    diffusion: DiffuserConfig = field(default_factory=DiffuserConfig)
    sampler: SamplerConfig = field(default_factory=SamplerConfig)
    guidance: GuidanceConfig = field(default_factory=GuidanceConfig)
    synthetic: SyntheticConfig = field(default_factory=SyntheticConfig)
    td3_bc: TD3BCConfig = field(default_factory=TD3BCConfig)
    iql: IQLConfig = field(default_factory=IQLConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    checkpoint_minutes: float = 3.0
    """Minutes between two checkpoints within a phase."""
    diffuser: str | None = None
    """A run directory whose trained diffuser is used again."""
    save_synthetic: bool = False
    """Write the last synthetic set of every arm as D4RL-layout HDF5 (and as Minari where it can be)."""
    log: tuple[training.SinkName, ...] = ()
    """Where metrics go besides metrics.jsonl (extras tensorboard and wandb)."""
    resume: str | None = None
    """Go on with the newest unfinished run of this configuration, or with the run directory given."""
    out: Path = Path("results")
    """Where results are written."""


PRESETS = {
    "smoke": Config(
        preset="smoke",
        seeds=2,
        horizon=16,
        updates=400,
        network=NetworkConfig("residual_unet", 16, 2),
        diffusion=DiffuserConfig(steps=600),
        sampler=SamplerConfig(steps=10, batch=128),
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
        synthetic=SyntheticConfig(trajectories=8_192, every=10_000),
        iql=IQLConfig(steps=500_000),
    ),
}
NOT_IN_HASH = ("out", "resume", "checkpoint_minutes", "diffuser", "log", "save_synthetic")


def main() -> None:
    config = parse(PRESETS, lambda: "cpu" if jax.default_backend() == "cpu" else "paper", __doc__ or "")
    use_compilation_cache()
    compilations = training.count_compilations()
    began = time.monotonic()
    check(config)
    data = jdp.data.load(config.env, source=config.source, env_id=config.env_id, progress=show_download)
    config = fit_to_data(config, data)
    mesh = training.data_mesh()
    training.check_divisible(config.diffusion.batch_size, mesh, "--diffusion.batch-size")
    training.check_divisible(config.batch_size, mesh, "--batch-size")
    report.opening(config, data, jax.devices())

    borrowed = borrow_diffuser(config, data)
    run = open_run(config, data)
    keys = jdp.types.named_keys(jax.random.key(config.seed), "diffuser", "agents", "generate", "check")
    job = Job(config, data, run, mesh, keys)
    diffuser_state, normaliser = borrowed or train_diffuser(job)
    real = jdp.data.transitions(data)
    agents = {arm: train_arm(job, arm, real, diffuser_state, normaliser) for arm in config.arms}

    checks = report.check_sets(job, agents, diffuser_state, normaliser, generate)
    report.closing(job, checks, compilations, time.monotonic() - began)


@dataclass(frozen=True)
class Job:
    """What every phase needs: settings, data, where to write, devices, keys by name."""

    config: Config
    data: Any
    run: training.Run
    mesh: Any
    keys: dict[str, jax.Array]

    @property
    def diffuser(self) -> Any:
        return trajectory_diffuser(self.config.network, self.config.diffusion, self.config.precision)

    @property
    def agent(self) -> Any:
        return jdp.agents.make(getattr(self.config, self.config.agent), self.data.spec)

    @property
    def channels(self) -> int:
        return self.data.spec.observation_dim + self.data.spec.action_dim + 2


def check(config: Config) -> None:
    """Raises `UserError` for settings that cannot work, before anything is written."""
    jdp.synthesis.check_guidance(config.guidance, config.sampler.name)
    for sink in config.log:
        training.check_sink(sink)
    positive = {
        "--seeds": config.seeds,
        "--updates": config.updates,
        "--batch-size": config.batch_size,
        "--diffusion.steps": config.diffusion.steps,
        "--diffusion.batch-size": config.diffusion.batch_size,
        "--synthetic.every": config.synthetic.every,
        "--synthetic.trajectories": config.synthetic.trajectories,
        "--sampler.batch": config.sampler.batch,
        "--evaluation.episodes": config.evaluation.episodes,
    }
    for option, value in positive.items():
        if value < 1:
            raise jdp.UserError(f"{option} is {value}: it must be at least 1")
    if config.horizon < 2 or config.sampler.steps < 3:
        raise jdp.UserError("--horizon must be at least 2, and --sampler.steps at least 3")
    if not 0 < config.sampler.sigma_min < config.sampler.sigma_max:
        raise jdp.UserError("--sampler.sigma-min must be above 0 and below --sampler.sigma-max")
    if not 0 <= config.synthetic.share <= 1:
        raise jdp.UserError(f"--synthetic.share is {config.synthetic.share}: it must lie between 0 and 1")
    if not config.arms or len(set(config.arms)) != len(config.arms):
        raise jdp.UserError("--arms needs at least one arm, and each at most once")


def fit_to_data(config: Config, data: Any) -> Config:
    """Fills in what depends on the dataset, and checks that the task can be simulated."""
    if data.spec.env_id is None:
        raise jdp.UserError(f"{data.origin.name} names no task to evaluate in: give --env-id, e.g. Hopper-v5")
    env = jdp.evaluation.make_env(data.spec.env_id)
    shapes = env.observation_space.shape, env.action_space.shape
    env.close()
    wanted = (data.spec.observation_dim,), (data.spec.action_dim,)
    if shapes != wanted:
        raise jdp.UserError(
            f"{data.spec.env_id} has observations and actions of shapes {shapes}, the dataset {wanted}: "
            "give the task it was collected in with --env-id"
        )
    jdp.data.windows(data, config.horizon)  # fails early where no window fits
    if config.agent == "iql" and config.iql.reward_scale == 1.0:
        scaled = dataclasses.replace(config.iql, reward_scale=iql_reward_scale(data.returns))
        config = dataclasses.replace(config, iql=scaled)
    return config


def open_run(config: Config, data: Any) -> training.Run:
    settings = {k: v for k, v in dataclasses.asdict(config).items() if k not in NOT_IN_HASH}
    facts = {
        "dataset": data.origin.name,
        "sha256": data.origin.sha256,
        "spec": dataclasses.asdict(data.spec),
        "diffuser_from": None if config.diffuser is None else str(Path(config.diffuser).resolve()),
    }
    where = (config.out, "pgd_d4rl", config.env)
    if config.resume is None:
        run = training.start_run(*where, settings, facts)
    else:
        run = training.resume_run(*where, settings, config.resume, facts)
        if run.read("scores.json") is not None:
            raise jdp.UserError(f"{run.path} is finished: its table is in {run.path / 'report.txt'}")
    print(f"run        {run.path}")
    return dataclasses.replace(
        run, sinks=tuple(training.make_sink(name, run.path, settings) for name in config.log)
    )


def saver(job: Job, phase: str, last: int, wrap: Callable[[Any], Any]) -> Callable[..., None]:
    """After a chunk: log, and save every few minutes and at the end."""
    clock = time.monotonic()

    def after(step: int, state: Any, metrics: dict[str, Any], bar: Bar) -> None:
        nonlocal clock
        loss = np.asarray(metrics["loss"] if "loss" in metrics else metrics["critic_loss"])
        if not np.isfinite(loss).all():
            raise jdp.UserError(
                f"{phase}: the loss is not finite at step {step}; lower the learning rate and start again"
            )
        job.run.log(phase, step, metrics)
        bar.at(step, loss=float(loss.mean()))
        if step == last or time.monotonic() - clock > 60 * job.config.checkpoint_minutes:
            checkpoints.save(job.run.folder(phase), step, wrap(state))
            clock = time.monotonic()

    return after


def diffuser_like(config: Config, spec: Any) -> dict[str, Any]:
    """The shapes of the diffuser's checkpoint."""
    diffuser = trajectory_diffuser(config.network, config.diffusion, config.precision)
    return loading.diffuser_like(
        diffuser, spec, batch_size=config.diffusion.batch_size, horizon=config.horizon
    )


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


def train_diffuser(job: Job) -> tuple[Any, Any]:
    """The trained state and its normaliser, from the last checkpoint on where there is one."""
    config, diffuser = job.config, job.diffuser
    normaliser = jdp.data.fit_normaliser(job.data)
    rows, _ = jdp.data.training_rows(job.data, normaliser)
    windows = jdp.data.windows(job.data, config.horizon)
    batch, length = config.diffusion.batch_size, config.horizon
    folder = job.run.folder("diffuser")
    start = checkpoints.latest(folder) or 0
    if start:
        state = checkpoints.restore(folder, diffuser_like(config, job.data.spec))["state"]
        job.run.cut("diffuser", start)
    else:
        zeros = np.zeros((batch, length, job.channels), np.float32)
        state = jax.jit(diffuser.init)(jax.random.fold_in(job.keys["diffuser"], 2**31 - 1), zeros)
    print(f"network    {config.network.kind}, {parameter_count(state.params):,} parameters")
    total = config.diffusion.steps
    after = saver(job, "diffuser", total, lambda state: {"state": state, "normaliser": normaliser})
    with Bar("train diffuser", total, "step", start) as bar:
        state = training.fit(
            diffuser.update,
            jdp.synthesis.draw_windows(batch, length),
            state,
            (rows, windows.starts, windows.last),
            key=job.keys["diffuser"],
            start=start,
            stop=total,
            chunk=100,
            mesh=job.mesh,
            after=lambda *chunk: after(*chunk, bar),
        )
    return state, normaliser


def train_arm(job: Job, arm: Arm, real: Any, diffuser_state: Any, normaliser: Any) -> Any:
    """All seeds of one arm, stacked `[S, ...]`: rounds of generating, training and evaluating."""
    config, agent = job.config, job.agent
    folder = job.run.folder(arm)
    sample = jax.tree.map(jax.numpy.asarray, real)
    keys = jax.random.split(jax.random.fold_in(job.keys["agents"], 2**31 - 1), config.seeds)
    start = checkpoints.latest(folder) or 0
    if start:
        states = checkpoints.restore(folder, loading.agent_like(agent, job.data.spec, config.seeds))
    else:
        states = jax.jit(jax.vmap(agent.init, in_axes=(0, None)))(keys, sample)
    job.run.cut(arm, start)
    job.run.cut(f"{arm}/evaluation", start)

    share = 1.0 if arm == "dataset" else 1 - config.synthetic.share
    draw = jdp.synthesis.draw_batches(
        agents=config.seeds,
        batches=agent.batches,
        batch_size=config.batch_size,
        real_share=share,
        dims=(job.data.spec.observation_dim, job.data.spec.action_dim),
    )
    after = saver(job, arm, config.updates, lambda states: states)
    step = start
    for begin in range(0, config.updates, config.synthetic.every):
        end = min(begin + config.synthetic.every, config.updates)
        if end < start:
            continue
        if step < end:
            made = None
            if arm != "dataset":
                x = synthetic_set(job, arm, begin, states, diffuser_state, normaliser)
                made = jdp.synthesis.experience(x, normaliser)
            with Bar(f"{arm}: train agents", config.updates, "update", step) as bar:
                states = training.fit(
                    _vmapped(agent.update, config.seeds),
                    draw,
                    states,
                    jdp.synthesis.pool(real, made),
                    key=job.keys["agents"],
                    start=step,
                    stop=end,
                    chunk=200,
                    mesh=job.mesh,
                    batch_axis=1,
                    after=lambda *chunk, bar=bar: after(*chunk, bar),
                )
            checkpoints.save(folder, end, states)
            step = end
        if not evaluated(job, arm, end):
            evaluate(job, arm, end, states)
    return states


def _update_all(key: jax.Array, states: Any, batch: Any, *, update: Any, seeds: int) -> Any:
    return jax.vmap(update)(jax.random.split(key, seeds), states, batch)


def _vmapped(update: Any, seeds: int) -> Any:
    """One update of all seeds; equal arguments make equal functions, which compile once."""
    return jdp.types.Bound(_update_all, (("update", update), ("seeds", seeds)))


def synthetic_set(
    job: Job, arm: Arm, begin: int, states: Any, diffuser_state: Any, normaliser: Any
) -> np.ndarray:
    """`[S, count, T, D]`: the set that serves updates from `begin` on, kept on disk until the next."""
    config = job.config
    path = job.run.path / "synthetic" / f"{arm}-{begin}.npy"
    if path.exists():
        return np.load(path, allow_pickle=False)
    guided = arm == "guided" and begin > 0
    with Bar(f"{arm}: generate", config.seeds * config.synthetic.trajectories, "trajectory") as bar:
        x = generate(
            job,
            jax.random.fold_in(job.keys["generate"], begin),
            states if guided else None,
            diffuser_state,
            normaliser,
            config.synthetic.trajectories,
            bar,
        )
    path.parent.mkdir(exist_ok=True)
    for old in path.parent.glob(f"{arm}-*.npy*"):
        old.unlink()
    part = path.with_suffix(".npy.part")
    with part.open("wb") as file:
        np.save(file, x)
    part.rename(path)
    return x


def generate(
    job: Job, key: jax.Array, states: Any, diffuser_state: Any, normaliser: Any, count: int, bar: Bar
) -> np.ndarray:
    """`[S, count, T, D]` normalised trajectories, guided to `states` unless they are None."""
    config = job.config
    denoiser = job.diffuser.denoiser(diffuser_state)
    if states is not None:
        denoiser = jdp.synthesis.guide(
            denoiser, job.agent.act, states, normaliser, config.guidance, config.sampler.sigmas()
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
        channels=job.channels,
        agents=config.seeds,
        initial=initial,
        mesh=job.mesh,
        progress=lambda done, _: bar.at(done),
    )


def evaluated(job: Job, arm: Arm, step: int) -> bool:
    return any(r["step"] == step for r in job.run.records(f"{arm}/evaluation"))


def evaluate(job: Job, arm: Arm, step: int, states: Any) -> None:
    """Plays episodes with every seed and logs all returns; the reset seeds depend on nothing else."""
    episodes = job.config.evaluation.episodes
    with Bar(f"{arm}: evaluate", job.config.seeds * episodes, "episode") as bar:
        played = jdp.evaluation.evaluate(
            jdp.evaluation.make_policy_step(job.agent),
            states,
            job.data.spec.env_id,
            episodes=episodes,
            seed=job.config.seed + 1_000_000,
            progress=lambda _, finished: bar.at(finished),
        )
    scores = report.scores_of(played.returns, job.data.spec)
    job.run.log(f"{arm}/evaluation", step, {"returns": played.returns, "lengths": played.lengths})
    print(f"{arm}: {report.score_name(job.data.spec)} after {step:,} updates: "
          f"{', '.join(f'{s:.1f}' for s in scores.mean(axis=1))} (one a seed)")  # fmt: skip


if __name__ == "__main__":
    run_main(main)
