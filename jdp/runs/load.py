"""A run directory gives a notebook its method, its weights and its models back."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import jax

from jdp import registry
from jdp.data import Normaliser
from jdp.errors import UserError
from jdp.finetune import base as bases
from jdp.learning.diffuser import TrainedDiffuser
from jdp.runs import models
from jdp.runs.records import without_place
from jdp.runs.settings import from_dict, task_of
from jdp.runs.stores import Store, checkpoints_of, find, read_weights
from jdp.synthesis.imagined import TrainedModel
from jdp.tasks import simulators
from jdp.types import Denoiser, Json, Method, PyTree, Spec

KINDS: tuple[registry.Kind, ...] = ("agent", "policy", "planner", "fine_tuner")
T = TypeVar("T")
TARGETS = "target policies"  # the phase of the agents that world models are compared under


@dataclass(frozen=True)
class LoadedRun:
    """What a run has trained, at its last checkpoints; None for what it has not."""

    path: Path  # the run directory, or the file of weights
    written: Json  # config.json: configuration, dataset, command, versions
    spec: Spec
    kind: registry.Kind
    name: str  # of the method, e.g. "td3_bc"
    method: Method
    settings: object  # what it was made of: the dataclass that `jdp.planners.make` and its like take
    states: Mapping[str, PyTree]  # by phase ("agent", "policy", "planner", or an arm), of all seeds [S, ...]
    diffusers: Mapping[str, TrainedDiffuser]  # by phase: "diffuser", or of a seed each "diffuser 0", ...
    world_models: Mapping[str, TrainedModel]  # by phase: "ensemble", or of a seed each "ensemble 0", ...
    scores: Json | None  # scores.json; None while the run is unfinished
    ignored: tuple[str, ...] = ()  # settings of the method that this version of jdp does not know

    @property
    def config(self) -> Json:
        """Every setting, as config.json has it."""
        return self.written["config"]

    @property
    def command(self) -> str:
        """The command that it was trained by, as it can be given again."""
        return without_place(str(self.written.get("command") or ""))

    @property
    def task(self) -> Spec:
        """What it is scored on: `spec`, but for agents whose observations end with the goal."""
        return task_of(self.written)

    def finished_scores(self) -> Json:
        """`scores`; raises `UserError` while the run is unfinished."""
        if self.scores is None:
            again = f"let it run on with --resume {self.path}"
            raise UserError(f"{self.path} is unfinished (it has no scores.json): {again}")
        return self.scores

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
    def diffuser(self) -> TrainedDiffuser | None:
        """The diffuser of a run that has one; None without.

        Raises:
            UserError: if it has several.
        """
        return self._only(self.diffusers, "diffusers")

    @property
    def world_model(self) -> TrainedModel | None:
        """The world model of a run that has one; None without.

        Raises:
            UserError: if it has several.
        """
        return self._only(self.world_models, "world_models")

    def _only(self, found: Mapping[str, T], field: str) -> T | None:
        if len(found) > 1:
            raise UserError(f"{self.path} has several {field}: choose one of {', '.join(found)} of .{field}")
        return next(iter(found.values()), None)

    @property
    def normaliser(self) -> Normaliser | None:
        """Of the diffuser's trajectories."""
        return None if self.diffuser is None else self.diffuser.normaliser

    @property
    def denoiser(self) -> Denoiser | None:
        """Of normalised trajectories `[B, T, D]`."""
        return None if self.diffuser is None else self.diffuser.denoiser


def load_trained(where: str | Path) -> LoadedRun:
    """`load_run` of a folder, `load_pretrained` of a file or of the name of a model that comes with jdp."""
    return load_run(where) if Path(where).is_dir() else load_pretrained(where)


def load_run(path: str | Path) -> LoadedRun:
    """The trained method and models of the run directory `path`.

    A run of `experiments/world_models.py` has models of every seed, `world_models["ensemble 0"]`, and as its
    method the agent under whose policies they are compared. A plugin that the run was made with is imported
    again.

    Raises:
        UserError: if `path` is no run directory of a method or of models, or holds no checkpoint yet.
    """
    path = Path(path)
    written, scores = read_config(path), path / "scores.json"
    store = checkpoints_of(path)
    return _opened(path, written, store, json.loads(scores.read_text()) if scores.exists() else None)


def load_pretrained(name: str | Path) -> LoadedRun:
    """A trained model that comes with jdp, or that of a file: as `load_run` gives it, with one seed.

    `.written` says what it was trained on and by which command, `.scores` what all seeds of that run scored.

    Args:
        name: one of `jdp.runs.stores.names()`, or a path of a file of `save_pretrained`.

    Raises:
        UserError: for an unknown name, and a file that cannot be read.
    """
    path = find(name)
    card, store = read_weights(path)
    return _opened(path, card["run"], store, card["scores"])


def _opened(path: Path, written: Json, store: Store, scores: Json | None) -> LoadedRun:
    """The run of the configuration `written`, with the weights of `store`; raises as `load_run` does."""
    config, ignored = written["config"], []
    aligned = written.get("aligned")  # of align.py, whose runs are methods of the kind that they align
    kind, name = (aligned["kind"], aligned["method"]) if aligned else _method_of(path, config)
    if (plugin := config.get("plugin")) and name not in registry.entries(kind):
        for source in [plugin] if isinstance(plugin, str) else plugin:
            registry.load_plugin(source)
    found = registry.entry(kind, name)
    spec = from_dict(Spec, written["spec"])
    own = aligned["settings"] if aligned else config.get("settings") or config[name]
    settings = from_dict(found.config, own, ignored)
    world_models, parts = models.world_models(store, written, spec), {}
    base = _base_of(path, written) if kind == "fine_tuner" else None
    parts |= {} if base is None else {"base": base}
    if found.options.get("model_based"):
        if not world_models:
            raise UserError(f"{path} holds no checkpoint of a world model yet: let it run on with --resume")
        parts["model"] = next(iter(world_models.values())).model
    if registry.takes(found, "task"):  # it plans in the simulator that it was scored in
        parts["task"] = simulators.observed_goal(simulators.simulator(config["env"]))
    method = registry.make(kind, settings, spec, **parts)
    return LoadedRun(
        path=path,
        written=written,
        spec=spec,
        kind=kind,
        name=name,
        method=method,
        settings=settings,
        states=_states(path, config, kind, method, spec, store, base),
        diffusers=models.diffusers(store, written, spec),
        world_models=world_models,
        scores=scores,
        ignored=tuple(ignored),
    )


def _method_of(path: Path, config: Json) -> tuple[registry.Kind, str]:
    """The kind and name of a run's method; of a comparison of models that of its target policies."""
    if "simulator" in config:  # a run of online_rl.py or finetune.py, whose `policy` is what it began with
        return ("online", config["agent"]) if config.get("agent") else ("fine_tuner", config["method"])
    for kind in KINDS:
        if config.get(kind):
            return kind, config[kind]
    compared = [name for name in registry.entries("world_model") if isinstance(config.get(name), dict)]
    targets = [name for name in registry.entries("agent") if isinstance(config.get(name), dict)]
    if not compared or len(targets) != 1:
        raise UserError(
            f"{path} is no run of one method, as offline_rl.py, pgd_d4rl.py, policies.py and plan.py make "
            "them, online_rl.py and finetune.py too, nor of models, as world_models.py does"
        )
    return "agent", targets[0]


def _base_of(path: Path, written: Json) -> object:
    """The settings of the policy that a fine-tuner improves; older runs name it, and do not say them."""
    if "settings" in (told := written.get("base") or {}):
        return from_dict(registry.entry(told["kind"], told["method"]).config, told["settings"])
    try:
        return load_trained(written["config"]["policy"]).settings
    except UserError as error:
        raise UserError(f"{path} improves a policy that is not there any more ({error})") from error


def read_config(path: Path) -> Json:
    """The config.json of a run directory.

    Raises:
        UserError: if `path` has none.
    """
    if not (path / "config.json").is_file():
        raise UserError(f"{path} is no run directory: it has no config.json")
    return json.loads((path / "config.json").read_text())


def _states(
    path: Path,
    config: Json,
    kind: registry.Kind,
    method: Method,
    spec: Spec,
    store: Store,
    base: object | None,
) -> dict[str, PyTree]:
    """The newest states of each phase that has weights; `base` are the settings of what is improved."""
    rounds = [f"round_{i + 1}" for i in range((config.get("settings") or {}).get("rounds", 0))]
    agents = config.get("arms", ["agent"] if config.get("agent") else [TARGETS])
    phases = {name: [name] for name in agents} if kind in ("agent", "online") else {}
    phases = phases or {kind: [*reversed(rounds), kind]}
    trained = {name: [phase for phase in found if phase in store.phases] for name, found in phases.items()}
    newest = {name: found[0] for name, found in trained.items() if found}
    if not newest and "arms" not in config:
        raise UserError(f"{path} holds no checkpoint yet: let it run on with --resume")
    # A fine-tuner begins with the state of its base policy, and with no rows.
    begun = None if base is None else models.state_like(bases.method_of(base, spec).learner, spec)
    like = models.state_like(method.learner, spec, config["seeds"], begun)
    return {name: store.restore(phase, like) for name, phase in newest.items()}
