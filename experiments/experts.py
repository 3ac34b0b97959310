"""Decentralized diffusion (arXiv 2501.05450): experts trained apart, each in processes of their own.

    python experiments/experts.py --env hopper-medium --expert 0/2
    python experiments/experts.py --env hopper-medium --expert 1/2
    python experiments/experts.py --env hopper-medium --join RUN RUN

The first two may run at once, on one machine or on two that never speak: whoever has the dataset finds the
same clusters of its windows. Each trains a trajectory diffuser of its own cluster and writes its run. The
third takes the two run directories, trains the router, a small classifier of noised windows, and says what
the joined denoiser is worth on windows of the data; `jdp.runs.experts.load_joined(RUN).denoiser()` is that
denoiser in a notebook. Everything goes to results/experts/<dataset>/<run>/; a run that was cut goes on with
--resume. Presets: smoke (seconds), cpu (minutes for each expert on two cores), paper; any flag beats the
preset.
"""

import dataclasses
import os
from dataclasses import dataclass, field
from pathlib import Path

import jax
import jax.numpy as jnp
from command_line import parse_preset, run_main
from models import TrajectoryConfig
from opening import finish, load, minutes, open_job
from options import NOT_IN_HASH, check_batches, check_positive, refuse_stream, with_options

import jdp
from jdp import devices, loops
from jdp.data.draws import WindowDraw, batches
from jdp.diffusion import losses
from jdp.learning.clusters import PartDraw
from jdp.learning.diffuser import DiffuserConfig
from jdp.learning.experts import RouterConfig, router_learner, routes
from jdp.networks import NetworkConfig
from jdp.runs import Job
from jdp.runs.experts import Experts, load_experts, part_of_run
from jdp.types import Json

WINDOWS = 512  # of the data, that denoisers are compared on


@dataclass(frozen=True, kw_only=True)
class Config(TrajectoryConfig):
    """Train one expert alone, or the router of all."""

    expert: str | None = None
    """The cluster that is trained on, from 0, and how many there are: 0/4."""
    join: tuple[Path, ...] = ()
    """The runs of all experts: their router is trained."""
    clusters_seed: int = 0
    """Of the clusters; the same for all experts of a dataset."""
    router: RouterConfig = field(default_factory=RouterConfig)


PRESETS = {
    "smoke": Config(
        preset="smoke",
        horizon=8,
        network=NetworkConfig("mixer", 16, 1),
        diffusion=DiffuserConfig(steps=60, batch_size=16),
        router=RouterConfig((32,), steps=60),
    ),
    "cpu": Config(diffusion=DiffuserConfig(steps=5_000)),
    "paper": Config(
        preset="paper",
        network=NetworkConfig("unet", 1024, 3),
        diffusion=DiffuserConfig(steps=100_000, batch_size=32, ema=0.9995),
        router=RouterConfig((512, 512), steps=50_000),
    ),
}


def main() -> None:
    config = parse_preset(PRESETS, __doc__ or "")
    compilations = devices.count_compilations()
    if (config.expert is None) == (not config.join):
        raise jdp.UserError("give --expert K/N, to train one, or --join with the runs of all")
    config.check_trajectories()
    check_positive({"--router.steps": config.router.steps})
    check_batches(config, "diffusion")
    refuse_stream(config, "experts keep their rows on the devices")
    config = with_options(config, "the experiment", "diffusion")
    part = None if config.expert is None else part_of_run(config.expert)
    experts = load_experts(config.join) if config.join else None
    if experts is not None:  # the windows that they have learned from
        own = experts.runs[0]["config"]
        settings = {name: own[name] for name in ("horizon", "clusters_seed")}
        config = dataclasses.replace(config, **settings, updates=config.router.steps)
    else:
        config = dataclasses.replace(config, updates=config.diffusion.steps)
    data = load(config)
    if experts is not None and (was := experts.runs[0]["sha256"]) != data.origin.sha256:
        raise jdp.UserError(
            f"--join: these experts learned from other data (SHA-256 {str(was)[:16]}) than --env"
        )
    facts: Json = {"experts": [os.fspath(path.resolve()) for path in config.join] or None}
    notes = f"expert {config.expert}, alone" if experts is None else f"router of {experts.count} experts"
    keys, unnamed = ("train", "windows", "noise"), (*NOT_IN_HASH, "join")
    options = {"not_in_hash": unnamed, "facts": facts, "windows": config.horizon}
    job = open_job("experts", config, data, notes, keys, **options)
    if experts is None:
        assert part is not None
        train_expert(job, *part, compilations)
    else:
        join(job, experts, compilations)


def train_expert(job: Job[Config], part: int, count: int, compilations: devices.Compilations) -> None:
    """The diffuser of one cluster."""
    config = job.config
    draw = PartDraw(WindowDraw(config.horizon), config.horizon, part, count, config.clusters_seed)
    loops.train_diffuser(
        job.data,
        config.network,
        config.diffusion,
        config.horizon,
        key=jax.random.fold_in(job.keys["train"], part),
        precision=config.precision,
        mesh=job.mesh,
        journal=job.journal,
        draws=draw,
    )
    loss = job.journal.records("diffuser")[-1]["loss"]
    lines = [
        f"expert {part} of {count}, {job.data.origin.name}: training loss {loss:.4f}, of its own windows"
    ]
    finish(job, lines, {"loss": loss}, minutes(job, "diffuser"), compilations, together="one expert")


def join(job: Job[Config], experts: Experts, compilations: devices.Compilations) -> None:
    """The router, and the denoising loss of what it joins."""
    config, draw = job.config, experts.draw()
    learner = router_learner(draw, experts.count, config.router)
    rows = jdp.data.prepared(draw, job.data)
    state = loops.train(
        learner,
        rows,
        key=job.keys["train"],
        updates=config.router.steps,
        batch_size=config.batch_size,
        mesh=job.mesh,
        journal=job.journal,
        phase="router",
    )
    router = routes(state, experts.count, config.router)
    own = batches(draw, WINDOWS)(job.keys["windows"], jax.tree.map(jnp.asarray, rows))[0]
    joined = {"all experts": experts.denoiser(router), "the most probable": experts.denoiser(router, 1)}
    noise, loss = job.keys["noise"], jax.jit(losses.of_denoiser)
    found = {name: float(loss(noise, denoiser, own).mean()) for name, denoiser in joined.items()}
    alone = [float(loss(noise, diffuser.denoiser, own).mean()) for diffuser in experts.diffusers]
    found["each alone, mean"] = sum(alone) / len(alone)
    lines = [f"{experts.count} experts of {job.data.origin.name}, joined by a router", ""]
    lines += [
        f"denoising loss of {WINDOWS} windows of the data, {name}: {v:.4f}" for name, v in found.items()
    ]
    finish(job, lines, {"losses": found, "alone": alone}, minutes(job, "router"), compilations, "the router")


if __name__ == "__main__":
    run_main(main, spans_processes=True)
