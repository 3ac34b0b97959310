"""The models of a run directory: its diffusers and its world models, with their weights."""

import re
from pathlib import Path

import jax
import numpy as np

from jdp import registry
from jdp.data import Episodes, Normaliser, fit_normaliser, prepared
from jdp.data.draws import together
from jdp.data.episodes import Origin
from jdp.errors import UserError
from jdp.learning.diffuser import DiffuserConfig, TrainedDiffuser, trajectory_diffuser
from jdp.networks import NetworkConfig, Precision
from jdp.runs.settings import from_dict
from jdp.runs.stores import Store, store_of
from jdp.synthesis.imagined import TrainedModel
from jdp.types import Diffuser, Json, Learner, PyTree, Spec
from jdp.world_models import termination

SHAPES_OF = 4096  # rows that stand for the dataset's where only shapes matter


def stand_in(spec: Spec, *, name: str = "zeros", kind: str = "file") -> Episodes:
    """A dataset of the shapes of `spec`, all zeros, for what depends on shapes alone.

    With the `kind` "none" it stands for no dataset, in runs that learn online.
    """
    n, f = SHAPES_OF, np.float32
    observations, none = np.zeros((n, spec.observation_dim), f), np.zeros(n, bool)
    timeouts = none.copy()
    timeouts[-1] = True
    return Episodes(
        observations=observations,
        actions=np.zeros((n, spec.action_dim), f),
        rewards=np.zeros(n, f),
        next_observations=observations,
        terminals=none,
        timeouts=timeouts,
        next_valid=~none,
        starts=np.array([0]),
        stops=np.array([n]),
        spec=spec,
        origin=Origin(name, kind, "", "", 0, ""),
    )


def state_like(learner: Learner, spec: Spec, seeds: int | None = None, begun: PyTree | None = None) -> PyTree:
    """Shapes of the state of a learner, or of the stacked states of `seeds` of it, without computing them.

    `begun` is what its `init` sees, where that is no dataset.
    """
    view = begun
    if view is None:
        view = together(learner.draws).view(prepared(learner.draws, stand_in(spec)))
    if seeds is None:
        return jax.eval_shape(learner.init, jax.random.key(0), view)
    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), seeds))
    return jax.eval_shape(jax.vmap(learner.init, in_axes=(0, None)), keys, view)


def _restored(store: Store, phase: str, diffuser: Diffuser, spec: Spec) -> TrainedDiffuser:
    zeros = np.zeros(spec.observation_dim + spec.action_dim + 2, np.float32)
    like = {
        "state": state_like(diffuser.learner, spec),
        "normaliser": Normaliser(zeros, zeros, spec.observation_dim, spec.action_dim),
    }
    saved = store.restore(phase, like)
    # As it was fitted: in numpy, so that what it decodes on the host stays there.
    return TrainedDiffuser(diffuser, saved["state"], jax.tree.map(np.asarray, saved["normaliser"]))


def restore_diffuser(
    path: str | Path,
    data: Episodes,
    network: NetworkConfig,
    config: DiffuserConfig,
    horizon: int,
    precision: Precision = "float32",
) -> TrainedDiffuser:
    """The diffuser of a run directory, a file of weights or a model of jdp's, for a run on the same `data`.

    Raises:
        UserError: if it has none, of these settings, or it was trained on other data.
    """
    diffuser = trajectory_diffuser(network, config, horizon, precision)
    found = _restored(store_of(path), "diffuser", diffuser, data.spec)
    if not np.allclose(found.normaliser.mean, fit_normaliser(data).mean, rtol=1e-4, atol=1e-4):
        raise UserError(f"the diffuser of {path} was trained on other data than {data.origin.name}")
    return found


def _registered(phase: str) -> str:
    """What a phase trains: "ensemble" of "ensemble 0", which is of one of several seeds."""
    return re.sub(r" \d+$", "", phase).replace(" ", "_")


def diffusers(store: Store, written: Json, spec: Spec) -> dict[str, TrainedDiffuser]:
    """The diffusers of a run, or the one that it borrowed, by phase."""
    config = written["config"]
    if "diffusion" not in config:
        return {}
    if borrowed := written.get("diffuser_from"):
        store = store_of(borrowed)
    network, diffusion = (
        from_dict(k, config[n]) for k, n in ((NetworkConfig, "network"), (DiffuserConfig, "diffusion"))
    )
    diffuser = trajectory_diffuser(network, diffusion, config["horizon"], config["precision"])
    return {
        phase: _restored(store, phase, diffuser, spec)
        for phase in store.phases
        if _registered(phase) == "diffuser"
    }


def world_models(store: Store, written: Json, spec: Spec) -> dict[str, TrainedModel]:
    """The world models of a run, by phase."""
    config, found = written["config"], {}
    known = registry.entries("world_model")
    for phase in store.phases:
        name = _registered(phase)
        if name not in known or name not in config:
            continue
        # That there were terminals where a head had to learn them was checked when the run began.
        rule = termination.choose(
            config["ensemble"]["termination"], spec, has_terminals=True, dataset=written["dataset"]
        )
        model = registry.make("world_model", from_dict(known[name].config, config[name]), spec, rule=rule)
        found[phase] = TrainedModel(model, store.restore(phase, state_like(model.learner, spec)))
    return found
