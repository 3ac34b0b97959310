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

import time
from dataclasses import dataclass
from functools import partial

import jax
import numpy as np
import pgd_report as report
from command_line import parse_preset, run_main
from models import train_diffuser, train_world_model
from opening import agent_options, load, open_job
from options import NOT_IN_HASH, with_options
from pgd_options import PRESETS, Arm, Config, check, fit_to_data

import jdp
from jdp import devices, loops, synthesis
from jdp.data import Experience
from jdp.learning.diffuser import TrainedDiffuser
from jdp.runs import Job, restore_diffuser
from jdp.runs.pretrained import names
from jdp.synthesis import TrainedModel
from jdp.types import Array, Method, PyTree


@dataclass(frozen=True)
class Models:
    """What synthetic experience is made with; a model that no arm needs is None."""

    diffuser: TrainedDiffuser | None
    world_model: TrainedModel | None


def main() -> None:
    config, began = parse_preset(PRESETS, __doc__ or ""), time.monotonic()
    compilations = devices.count_compilations()
    check(config)
    config = with_options(config, "the experiment", "diffusion", "diffusion_step", "unified")
    data = load(config)
    config = fit_to_data(config, data)
    diffuser = None
    if config.diffuser is not None:
        networks = (config.network, config.diffusion, config.horizon)
        diffuser = restore_diffuser(config.diffuser, data, *networks, config.precision)
        print(f"diffuser   of {config.diffuser}, step {int(diffuser.state.step):,}")
    job = open_job(
        "pgd_d4rl",
        config,
        data,
        f"agent {config.agent}, {config.seeds} agent seeds on shared models",
        ("diffuser", "agents", "generate", "check"),
        not_in_hash=(*NOT_IN_HASH, "diffuser", "save_synthetic"),
        windows=config.horizon,
        facts={"diffuser_from": borrowed(config)},
    )
    method = jdp.agents.make(getattr(config, config.agent), data.spec)
    if diffuser is None and {"unguided", "guided"} & set(config.arms):
        diffuser = train_diffuser(job, job.keys["diffuser"])
    first = jax.random.fold_in(jax.random.key(config.seed), loops.INIT)
    world_model = train_world_model(job, first) if "world_model" in config.arms else None
    models = Models(diffuser, world_model)
    states = {arm: train_arm(job, arm, method, models) for arm in config.arms}

    # The target policies of the checks are those of the last arm: every seed judges its share of the sets.
    target, count = states[config.arms[-1]], -(-config.evaluation.trajectories // config.seeds)
    for_checks = {
        arm: partial(experience, job, arm, job.keys["check"], method, target, models, count)
        for arm in config.arms
        if arm != "dataset"
    }
    checks = report.check_sets(job, method, target, for_checks, count)
    report.closing(job, checks, compilations, time.monotonic() - began)


def borrowed(config: Config) -> str | None:
    """Where the diffuser lies that is used again: the name of a model of jdp's, or a whole path."""
    source = config.diffuser
    return None if source is None else str(source) if str(source) in names() else str(source.resolve())


def train_arm(job: Job[Config], arm: Arm, method: Method, models: Models) -> PyTree:
    """All seeds of one arm, stacked `[S, ...]`: rounds of generating, training and evaluating."""
    config, made = job.config, job.config.synthetic
    real = jdp.data.prepared(method.learner.draws, job.data)

    def pool_for(begin: int, states: PyTree) -> jdp.data.Pool:
        key = jax.random.fold_in(job.keys["generate"], begin)
        policies = states if begin > 0 else None  # a policy that has learned nothing guides nothing

        def generate() -> dict[str, np.ndarray]:
            return experience(job, arm, key, method, policies, models, made.trajectories)._asdict()

        found = Experience(**job.journal.kept(arm, begin, generate))
        return jdp.data.pool(real, found, capacity=made.trajectories * (config.horizon - 1))

    return loops.train_in_rounds(
        method,
        real,
        None if arm == "dataset" else pool_for,
        every=made.every,
        real_share=1.0 if arm == "dataset" else 1 - made.share,
        **agent_options(job, arm, method),
    )


def experience(
    job: Job[Config], arm: Arm, key: Array, method: Method, states: PyTree, models: Models, count: int
) -> Experience:
    """`[S, count, T, ...]` experience of the policies in `states`, or of the dataset's behaviour for None."""
    config, total = job.config, job.config.seeds * count
    common = {"count": count, "length": config.horizon, "agents": config.seeds, "mesh": job.mesh}
    with job.journal.progress(f"{arm}: generate", total, "trajectory") as bar:
        common["progress"] = lambda done, _: bar.at(done)
        if arm == "world_model":
            assert models.world_model is not None  # trained for this arm
            std = config.synthetic.action_std
            return synthesis.rolled_out_experience(
                key, models.world_model, job.data, method=method, states=states, action_std=std, **common
            )
        assert models.diffuser is not None  # trained for these arms
        return synthesis.synthetic_experience(
            key,
            models.diffuser,
            sampler=config.sampler,
            method=method,
            states=states if arm == "guided" else None,
            guidance=config.guidance,
            begin_in=job.data if config.synthetic.from_data else None,
            **common,
        )


if __name__ == "__main__":
    run_main(main, spans_processes=True)
