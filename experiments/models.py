"""The models that experiments train on a dataset: trajectory diffuser, ensemble, diffusion step."""

import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import preemption
from common import Bar
from job import Job, mapped, stream_of
from phases import INIT, begin, local, train

import jdp
from jdp import devices, loops
from jdp.data.mapped import write_windows
from jdp.devices import distributed
from jdp.learning.diffuser import trajectory_diffuser
from jdp.networks import parameter_count
from jdp.runs import checkpoints
from jdp.runs.load import diffuser_like as shapes_of_diffuser
from jdp.world_models import (
    EnsembleConfig,
    bootstrap,
    draw_bootstrap,
    draw_histories,
    ensemble,
    histories,
    split_holdout,
    termination,
    train_epochs,
)


def make_diffuser(config: Any) -> Any:
    return trajectory_diffuser(config.network, config.diffusion, config.precision)


def diffuser_like(config: Any, spec: Any) -> dict[str, Any]:
    """The shapes of a diffuser's checkpoint."""
    return shapes_of_diffuser(
        make_diffuser(config), spec, batch_size=config.diffusion.batch_size, horizon=config.horizon
    )


def train_diffuser(
    job: Job, phase: str, key: jax.Array, borrowed: tuple[Any, Any] | None = None
) -> tuple[Any, Any, Any]:
    """`(diffuser, its trained state, the normaliser)`; nothing is trained where they are `borrowed`."""
    config, diffuser = job.config, make_diffuser(job.config)
    if borrowed is not None:
        return diffuser, *borrowed
    normaliser = jdp.data.fit_normaliser(job.data)
    windows = jdp.data.windows(job.data, config.horizon)
    zeros = np.zeros((config.diffusion.batch_size, config.horizon, len(normaliser.mean)), np.float32)
    saved = {"normaliser": normaliser}
    state, start = begin(job, phase, diffuser.init, jax.random.fold_in(key, INIT), zeros, saved=saved)
    print(f"network    {config.network.kind}, {parameter_count(state.params):,} parameters")
    shape, data = (config.diffusion.batch_size, config.horizon), (windows.starts, windows.last)
    if config.stream:
        rows = mapped(job, "windows", ["windows"], lambda to: write_windows(job.data, normaliser, to))
        data = stream_of(jdp.synthesis.window_lookup(*shape), data, rows["windows"])
    else:
        data = (jdp.data.training_rows(job.data, normaliser)[0], *data)
    state = train(
        job,
        phase,
        diffuser.update,
        jdp.synthesis.draw_windows(*shape),
        state,
        data,
        key=key,
        start=start,
        stop=config.diffusion.steps,
        saved=saved,
    )
    return diffuser, state, normaliser


def termination_rule(choice: str, data: Any) -> Any:
    """The rule by which a model of the task of `data` ends episodes; None: it learns from the terminals.

    It can learn from those only of which the file says what state they led to.
    """
    seen = bool((data.terminals & data.next_valid).any())
    return termination.choose(choice, data.spec.env_id, has_terminals=seen, dataset=data.origin.name)


def check_world_model(config: Any, kind: str, data: Any) -> Any:
    """The world model to be trained; raises `UserError` where it could not be, before anything is."""
    rule = termination_rule(config.ensemble.termination, data)
    size, name = getattr(config, kind).batch_size, kind.replace("_", "-")
    devices.check_divisible(size, devices.data_mesh(), f"--{name}.batch-size")
    if kind == "ensemble":
        split_holdout(jax.random.key(0), int(data.next_valid.sum()), config.ensemble)
    return jdp.world_models.make(getattr(config, kind), data.spec, rule)


def train_ensemble(job: Job, phase: str, config: EnsembleConfig, key: jax.Array) -> tuple[Any, Any]:
    """`(world model, its state)`: trained until no member improves on the holdout, or the epochs are over."""
    spec, rule = job.data.spec, termination_rule(config.termination, job.data)
    keys = jdp.types.named_keys(key, "init", "split", "bootstrap", "train")
    real = jdp.data.transitions(job.data, known_successors=True)
    kept, held = split_holdout(keys["split"], len(real.reward), config)
    rows, holdout = (jax.tree.map(lambda x, i=i: jnp.asarray(x[i]), real) for i in (kept, held))
    model = ensemble(config, spec, rule)
    state, _ = begin(job, phase, model.init, keys["init"], rows)
    data = jdp.types.pack(rows), bootstrap(keys["bootstrap"], len(kept), config.members)
    draw = draw_bootstrap(config.batch_size, (spec.observation_dim, spec.action_dim))
    clock = time.monotonic()
    with preemption.held(), Bar(f"train {phase}", config.epochs, "epoch", int(state.epoch)) as bar:

        def fit_epoch(state: Any, start: int, stop: int) -> Any:
            return local(
                loops.fit(
                    model.update,
                    draw,
                    state,
                    data,
                    key=keys["train"],
                    start=start,
                    stop=stop,
                    chunk=stop,
                    mesh=job.mesh,
                    batch_axis=1,
                )
            )

        def after(state: Any) -> None:
            nonlocal clock
            epoch, errors, now = int(state.epoch), np.asarray(state.best_error), time.monotonic()
            job.run.log(phase, epoch, {"best_holdout_error": errors, "seconds": now - clock})
            bar.at(epoch, holdout=float(errors.min()))
            checkpoints.save(job.run.folder(phase), epoch, state)
            clock = now
            if any(distributed.agree(preemption.asked())):
                raise preemption.Preempted

        state = train_epochs(
            state, fit_epoch, holdout, rows=len(kept), config=config, spec=spec, rule=rule, after=after
        )
    return model, state


def train_by_steps(job: Job, phase: str, config: Any, key: jax.Array) -> tuple[Any, Any]:
    """`(world model, its state)` of the few-step diffusion model of single steps, or of the unified one."""
    spec, rule = job.data.spec, termination_rule(job.config.ensemble.termination, job.data)
    model = jdp.world_models.make(config, spec, rule)
    dims = (spec.observation_dim, spec.action_dim)
    sample = jax.tree.map(jnp.asarray, jdp.data.transitions(job.data, known_successors=True))
    state, start = begin(job, phase, model.init, jax.random.fold_in(key, INIT), sample)
    state = train(
        job,
        phase,
        model.update,
        draw_histories(config.batch_size, model.history, dims),
        state,
        histories(job.data),
        key=key,
        start=start,
        stop=config.steps,
        chunk=500,
    )
    return model, state


def train_world_model(job: Job, kind: str, key: jax.Array) -> tuple[Any, Any]:
    """`(world model, its state)` of the kind that the experiment chose; the phase has its name."""
    config = getattr(job.config, kind)
    return (train_ensemble if kind == "ensemble" else train_by_steps)(job, kind, config, key)
