"""The models that are trained on a dataset: trajectory diffuser, ensemble, and models trained by steps."""

import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh

from jdp import registry
from jdp.data import Episodes, fit_normaliser, prepared, transitions
from jdp.data.draws import batches, together
from jdp.data.episodes import require_successors
from jdp.data.row_files import RowFiles
from jdp.devices.mesh import check_divisible
from jdp.learning.diffuser import DiffuserConfig, TrainedDiffuser, trajectory_diffuser
from jdp.loops.fit import fit
from jdp.loops.journal import Journal, Memory
from jdp.loops.train import local, train
from jdp.networks import NetworkConfig, Precision
from jdp.synthesis.imagined import TrainedModel
from jdp.types import Draw, WorldModel, named_keys, pack
from jdp.world_models import termination
from jdp.world_models.bootstrap import Bootstrapped, bootstrap
from jdp.world_models.ensemble import EnsembleConfig, EnsembleState
from jdp.world_models.termination import Rule
from jdp.world_models.training import split_holdout
from jdp.world_models.training import train as train_epochs


def train_diffuser(
    data: Episodes,
    network: NetworkConfig,
    config: DiffuserConfig,
    horizon: int,
    *,
    key: Array,
    precision: Precision = "float32",
    mesh: Mesh | None = None,
    files: RowFiles | None = None,
    journal: Journal | None = None,
    phase: str = "diffuser",
    draws: Draw | None = None,
) -> TrainedDiffuser:
    """A diffuser of normalised windows of `horizon` steps, trained for `config.steps` updates.

    Args:
        files: where rows are kept and read from while training goes on; None: on the devices.
        journal: saves the normaliser with the state.
        draws: of other windows than all, as an expert's `jdp.learning.clusters.PartDraw`; the normaliser is
            that of all data.
    """
    diffuser = trajectory_diffuser(network, config, horizon, precision)
    normaliser = fit_normaliser(data)
    learner = diffuser.learner if draws is None else diffuser.learner._replace(draws=draws)
    state = train(
        learner,
        prepared(learner.draws, data, files),
        key=key,
        updates=config.steps,
        batch_size=config.batch_size,
        mesh=mesh,
        stream=files is not None,
        journal=journal,
        phase=phase,
        saved={"normaliser": normaliser},
    )
    return TrainedDiffuser(diffuser, state, normaliser)


def termination_rule(choice: str, data: Episodes) -> Rule | None:
    """The rule by which a model of the task of `data` ends episodes; None: it learns from the terminals.

    It can learn from those only of which the file says what state they led to.

    Raises:
        UserError: if there is no rule of the name `choice`, or nothing to learn one from.
    """
    seen = bool((data.terminals & data.next_valid).any())
    return termination.choose(choice, data.spec, has_terminals=seen, dataset=data.origin.name)


def make_world_model(
    config: Any, data: Episodes, *, termination: str = "auto", mesh: Mesh | None = None
) -> WorldModel:
    """The world model that the type of `config` names, for the task of `data`.

    Raises:
        UserError: where it could not be trained on `data` and `mesh`, before anything is.
    """
    require_successors(data, data.next_valid)
    rule = termination_rule(termination, data)
    name = registry.entry_of("world_model", config).name
    check_divisible(config.batch_size, mesh, f"--{name.replace('_', '-')}.batch-size")
    if isinstance(config, EnsembleConfig):
        split_holdout(jax.random.key(0), int(data.next_valid.sum()), config)
    return registry.make("world_model", config, data.spec, rule=rule)


def train_world_model(
    data: Episodes,
    config: Any,
    *,
    key: Array,
    termination: str = "auto",
    mesh: Mesh | None = None,
    files: RowFiles | None = None,
    journal: Journal | None = None,
    phase: str | None = None,
) -> TrainedModel:
    """The world model that the type of `config` names, trained on `data`.

    An ensemble is trained until no member improves on the holdout, or its epochs are over; the others for
    `config.steps` updates.

    Args:
        termination: see `termination_rule`.
        files: as of `train_diffuser`; an ensemble is trained on the devices.
        phase: the name in the journal; default: the registered name of the model ("ensemble", ...).
    """
    journal = Memory() if journal is None else journal
    phase = phase or registry.entry_of("world_model", config).name
    model = make_world_model(config, data, termination=termination, mesh=mesh)
    if isinstance(config, EnsembleConfig):
        rule = termination_rule(termination, data)
        return TrainedModel(model, _train_epochs(model, config, data, rule, key, mesh, journal, phase))
    state = train(
        model.learner,
        prepared(model.learner.draws, data, files),
        key=key,
        updates=config.steps,
        batch_size=config.batch_size,
        chunk=500,
        mesh=mesh,
        stream=files is not None,
        journal=journal,
        phase=phase,
    )
    return TrainedModel(model, state)


def _train_epochs(
    model: WorldModel,
    config: EnsembleConfig,
    data: Episodes,
    rule: Rule | None,
    key: Array,
    mesh: Mesh | None,
    journal: Journal,
    phase: str,
) -> EnsembleState:
    """The state of an ensemble after its epochs; the journal counts them."""
    keys = named_keys(key, "init", "split", "bootstrap", "train")
    real = transitions(data, known_successors=True)
    kept, held = split_holdout(keys["split"], len(real.reward), config)
    rows, holdout = (jax.tree.map(lambda x, i=i: jnp.asarray(x[i]), real) for i in (kept, held))
    state, _ = journal.begin(phase, model.learner.init, keys["init"], rows)
    dealt = Bootstrapped(pack(rows), bootstrap(keys["bootstrap"], len(kept), config.members))
    draw = batches(together(model.learner.draws), config.batch_size)
    clock = time.monotonic()

    def fit_epoch(state: EnsembleState, start: int, stop: int) -> EnsembleState:
        options: dict[str, Any] = {"key": keys["train"], "start": start, "stop": stop, "chunk": stop}
        return local(fit(model.learner.update, draw, state, dealt, mesh=mesh, batch_axis=1, **options))

    with journal.held(), journal.progress(f"train {phase}", config.epochs, "epoch", int(state.epoch)) as bar:

        def after(state: EnsembleState) -> None:
            nonlocal clock
            epoch, errors, now = int(state.epoch), np.asarray(state.best_error), time.monotonic()
            record = {"best_holdout_error": errors, "seconds": now - clock}
            bar.at(epoch, holdout=float(errors.min()))
            clock = now
            journal.after(phase, epoch, epoch, state, record)

        return train_epochs(
            state,
            fit_epoch,
            holdout,
            rows=len(kept),
            config=config,
            spec=data.spec,
            rule=rule,
            after=after,
        )
