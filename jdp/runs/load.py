"""A run directory gives a notebook its method, its weights and its models back."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jdp import registry
from jdp.data import Episodes, Normaliser, fit_normaliser, prepared
from jdp.data.draws import together
from jdp.data.episodes import Origin
from jdp.errors import UserError
from jdp.learning.diffuser import DiffuserConfig, TrainedDiffuser, trajectory_diffuser
from jdp.networks import NetworkConfig, Precision
from jdp.runs import checkpoints
from jdp.runs.settings import from_dict
from jdp.synthesis.imagined import TrainedModel
from jdp.types import Denoiser, Diffuser, Learner, Method, PyTree, Spec
from jdp.world_models import termination

KINDS: tuple[registry.Kind, ...] = ("agent", "policy", "planner", "fine_tuner")
SHAPES_OF = 4096  # rows that stand for the dataset's where only shapes matter


@dataclass(frozen=True)
class LoadedRun:
    """What a run has trained, at its last checkpoints; None for what it has not."""

    path: Path
    config: Mapping[str, Any]  # as written in config.json
    spec: Spec
    kind: registry.Kind
    name: str  # of the method, e.g. "td3_bc"
    method: Method
    states: Mapping[str, PyTree]  # by phase ("agent", "policy", "planner", or an arm), of all seeds [S, ...]
    diffuser: TrainedDiffuser | None
    world_model: TrainedModel | None
    scores: Mapping[str, Any] | None  # scores.json; None while the run is unfinished
    ignored: tuple[str, ...] = ()  # settings of the method that this version of jdp does not know

    def state(self, seed: int = 0, phase: str | None = None) -> PyTree:
        """The state of one seed, for `method`; `phase` is needed where there are several.

        Raises:
            UserError: if there is no such phase or seed.
        """
        if phase is None and len(self.states) == 1:
            phase = next(iter(self.states))
        if phase is None or phase not in self.states:
            raise UserError(f"{self.path}: choose one of {', '.join(self.states)}, not {phase}")
        if not 0 <= seed < self.config["seeds"]:
            raise UserError(f"{self.path} has the training seeds 0 to {self.config['seeds'] - 1}, not {seed}")
        return jax.tree.map(lambda x: x[seed], self.states[phase])

    @property
    def normaliser(self) -> Normaliser | None:
        """Of the diffuser's trajectories."""
        return None if self.diffuser is None else self.diffuser.normaliser

    @property
    def denoiser(self) -> Denoiser | None:
        """Of normalised trajectories `[B, T, D]`."""
        return None if self.diffuser is None else self.diffuser.denoiser


def load_run(path: str | Path) -> LoadedRun:
    """The trained method and models of the run directory `path`.

    A plugin that the run was made with is imported again.

    Raises:
        UserError: if `path` is no run directory of a method, or holds no checkpoint yet.
    """
    path = Path(path)
    written = read_config(path)
    config, ignored = written["config"], []
    kind: registry.Kind | None = next((kind for kind in KINDS if config.get(kind)), None)
    if kind is None:
        raise UserError(f"{path} is no run of one method, as offline_rl.py, pgd_d4rl.py, policies.py and "
                        "plan.py make them")  # fmt: skip
    if (plugin := config.get("plugin")) and config[kind] not in registry.entries(kind):
        for source in [plugin] if isinstance(plugin, str) else plugin:
            registry.load_plugin(source)
    found = registry.entry(kind, config[kind])
    spec = from_dict(Spec, written["spec"])
    settings = from_dict(found.config, config.get("settings") or config[config[kind]], ignored)
    model = _world_model(path, written, spec)
    parts = {}
    if found.options.get("model_based"):
        if model is None:
            raise UserError(f"{path} holds no checkpoint of a world model yet: let it run on with --resume")
        parts["model"] = model.model
    method = registry.make(kind, settings, spec, **parts)
    scores = path / "scores.json"
    return LoadedRun(
        path=path,
        config=config,
        spec=spec,
        kind=kind,
        name=found.name,
        method=method,
        states=_states(path, config, kind, method, spec),
        diffuser=_diffuser(path, written, spec),
        world_model=model,
        scores=json.loads(scores.read_text()) if scores.exists() else None,
        ignored=tuple(ignored),
    )


def read_config(path: Path) -> dict[str, Any]:
    """The config.json of a run directory.

    Raises:
        UserError: if `path` has none.
    """
    if not (path / "config.json").is_file():
        raise UserError(f"{path} is no run directory: it has no config.json")
    return json.loads((path / "config.json").read_text())


def stand_in(spec: Spec) -> Episodes:
    """A dataset of the shapes of `spec`, all zeros, for what depends on shapes alone."""
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
        origin=Origin("zeros", "file", "", "", 0, ""),
    )


def state_like(learner: Learner, spec: Spec, seeds: int | None = None) -> PyTree:
    """Shapes of the state of a learner, or of the stacked states of `seeds` of it, without computing them."""
    data = stand_in(spec)
    view = together(learner.draws).view(prepared(learner.draws, data))
    if seeds is None:
        return jax.eval_shape(learner.init, jax.random.key(0), view)
    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), seeds))
    return jax.eval_shape(jax.vmap(learner.init, in_axes=(0, None)), keys, view)


def _states(
    path: Path, config: Mapping[str, Any], kind: registry.Kind, method: Method, spec: Spec
) -> dict[str, PyTree]:
    """The newest states of each phase that has a checkpoint."""
    rounds = [f"round_{i + 1}" for i in range((config.get("settings") or {}).get("rounds", 0))]
    phases = {name: [name] for name in config.get("arms", [kind])} if kind == "agent" else {}
    phases = phases or {kind: [*reversed(rounds), kind]}
    homes: dict[str, Path] = {}
    for name, candidates in phases.items():
        for folder in (path / "checkpoints" / candidate for candidate in candidates):
            if checkpoints.latest(folder) is not None:
                homes.setdefault(name, folder)
    if not homes and "arms" not in config:
        raise UserError(f"{path} holds no checkpoint yet: let it run on with --resume")
    like = state_like(method.learner, spec, config["seeds"])
    return {name: checkpoints.restore(home, like) for name, home in homes.items()}


def _diffuser(path: Path, written: Mapping[str, Any], spec: Spec) -> TrainedDiffuser | None:
    config = written["config"]
    home = Path(written.get("diffuser_from") or path) / "checkpoints" / "diffuser"
    if "diffusion" not in config or checkpoints.latest(home) is None:
        return None
    network, diffusion = (
        from_dict(k, config[n]) for k, n in ((NetworkConfig, "network"), (DiffuserConfig, "diffusion"))
    )
    diffuser = trajectory_diffuser(network, diffusion, config["horizon"], config["precision"])
    return _restored(home, diffuser, spec)


def _restored(home: Path, diffuser: Diffuser, spec: Spec) -> TrainedDiffuser:
    zeros = np.zeros(spec.observation_dim + spec.action_dim + 2, np.float32)
    like = {
        "state": state_like(diffuser.learner, spec),
        "normaliser": Normaliser(zeros, zeros, spec.observation_dim, spec.action_dim),
    }
    saved = checkpoints.restore(home, like)
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
    """The diffuser of the run directory `path`, for another run on the same `data`.

    Raises:
        UserError: if it has none, of these settings, or it was trained on other data.
    """
    diffuser = trajectory_diffuser(network, config, horizon, precision)
    found = _restored(Path(path) / "checkpoints" / "diffuser", diffuser, data.spec)
    if not np.allclose(found.normaliser.mean, fit_normaliser(data).mean, rtol=1e-4, atol=1e-4):
        raise UserError(f"the diffuser of {path} was trained on other data than {data.origin.name}")
    return found


def _world_model(path: Path, written: Mapping[str, Any], spec: Spec) -> TrainedModel | None:
    config = written["config"]
    name = config.get("world_model", "ensemble")
    home = path / "checkpoints" / name
    if checkpoints.latest(home) is None:
        return None
    # That there were terminals where a head had to learn them was checked when the run began.
    rule = termination.choose(
        config["ensemble"]["termination"], spec, has_terminals=True, dataset=written["dataset"]
    )
    settings = from_dict(registry.entry("world_model", name).config, config[name])
    model = registry.make("world_model", settings, spec, rule=rule)
    return TrainedModel(model, checkpoints.restore(home, state_like(model.learner, spec)))
