"""A run directory gives a notebook its models back."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from jdp.agents import AGENTS, MODEL_BASED, make, make_model_based
from jdp.data import Normaliser
from jdp.errors import UserError
from jdp.learning.averaged import Averaged
from jdp.learning.diffuser import DiffuserConfig, trajectory_diffuser
from jdp.networks import NetworkConfig
from jdp.runs import checkpoints
from jdp.types import Agent, Denoiser, Diffuser, PyTree, Spec, Transition, WorldModel
from jdp.world_models import WORLD_MODELS, termination
from jdp.world_models import make as make_world_model

T = TypeVar("T")


@dataclass(frozen=True)
class LoadedRun:
    """What a run of `pgd_d4rl.py` or `offline_rl.py` made, without its script; None for what it did not."""

    path: Path
    config: Mapping[str, Any]  # as written in config.json
    spec: Spec
    normaliser: Normaliser | None
    diffuser: Diffuser | None
    diffuser_state: Averaged | None
    denoiser: Denoiser | None  # of normalised trajectories [B, T, D]
    world_model: WorldModel | None
    world_model_state: PyTree | None
    agent: Agent
    agent_states: Mapping[str, PyTree]  # arm (or "agent") -> states of all seeds, stacked [S, ...]
    scores: Mapping[str, Any] | None  # scores.json; None while the run is unfinished


def from_dict(kind: type[T], values: Mapping[str, Any]) -> T:
    """A frozen dataclass from its JSON form: lists become tuples, unknown names are left out."""
    known = {}
    for field in fields(kind):  # type: ignore[arg-type]
        if field.name in values:
            value = values[field.name]
            if isinstance(value, Mapping) and isinstance(field.type, type) and is_dataclass(field.type):
                value = from_dict(field.type, value)
            known[field.name] = tuple(value) if isinstance(value, list) else value
    return kind(**known)


def diffuser_like(diffuser: Diffuser, spec: Spec, *, batch_size: int, horizon: int) -> dict[str, PyTree]:
    """Shapes of a diffuser's checkpoint, its state and the normaliser, without computing them."""
    channels = spec.observation_dim + spec.action_dim + 2
    x0 = jax.ShapeDtypeStruct((batch_size, horizon, channels), jnp.float32)
    zeros = np.zeros(channels, np.float32)
    return {
        "state": jax.eval_shape(diffuser.init, jax.random.key(0), x0),
        "normaliser": Normaliser(zeros, zeros, spec.observation_dim, spec.action_dim),
    }


def _rows(spec: Spec) -> Any:
    """Shapes of two transitions."""
    o, a, f = spec.observation_dim, spec.action_dim, jnp.float32
    shapes = ((2, o), (2, a), (2,), (2, o), (2,))
    return Transition(*(jax.ShapeDtypeStruct(s, f) for s in shapes))  # type: ignore[arg-type]


def agent_like(agent: Agent, spec: Spec, seeds: int) -> PyTree:
    """Shapes of the stacked states of `seeds` agents."""
    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), seeds))
    return jax.eval_shape(jax.vmap(agent.init, in_axes=(0, None)), keys, _rows(spec))


def load_run(path: str | Path) -> LoadedRun:
    """The trained models and agents of the run directory `path`, at their last checkpoints.

    Raises:
        UserError: if `path` is no run directory, is of another experiment, or holds no checkpoint yet.
    """
    path = Path(path)
    if not (path / "config.json").exists():
        raise UserError(f"{path} is no run directory: it has no config.json")
    written = json.loads((path / "config.json").read_text())
    config, spec = written["config"], from_dict(Spec, written["spec"])
    if "agent" not in config:
        hint = ": use jdp.load_controller" if "planner" in config or "policy" in config else ""
        raise UserError(f"{path} is no run of pgd_d4rl.py or offline_rl.py, whose models load here{hint}")
    normaliser = diffuser = diffuser_state = denoiser = model = model_state = None
    home = Path(written.get("diffuser_from") or path) / "checkpoints" / "diffuser"
    if "diffusion" in config and checkpoints.latest(home) is not None:
        diffuser = trajectory_diffuser(
            from_dict(NetworkConfig, config["network"]),
            from_dict(DiffuserConfig, config["diffusion"]),
            config["precision"],
        )
        batch_size = config["diffusion"]["batch_size"]
        like = diffuser_like(diffuser, spec, batch_size=batch_size, horizon=config["horizon"])
        saved = checkpoints.restore(home, like)
        normaliser, diffuser_state = saved["normaliser"], saved["state"]
        denoiser = diffuser.denoiser(diffuser_state)
    kind = config.get("world_model", "ensemble")
    if checkpoints.latest(path / "checkpoints" / kind) is not None:
        # That there were terminals where a head had to learn them was checked when the run began.
        choice = config["ensemble"]["termination"]
        rule = termination.choose(choice, spec.env_id, has_terminals=True, dataset=written["dataset"])
        model = make_world_model(from_dict(WORLD_MODELS[kind], config[kind]), spec, rule)
        like = jax.eval_shape(model.init, jax.random.key(0), _rows(spec))
        model_state = checkpoints.restore(path / "checkpoints" / kind, like)
    settings = from_dict(AGENTS[config["agent"]], config.get("settings") or config[config["agent"]])
    if config["agent"] in MODEL_BASED:
        agent = None if model is None else make_model_based(settings, spec, model).agent
    else:
        agent = make(settings, spec)
    if agent is None or (model is None and diffuser is None and "arms" in config):
        raise UserError(f"{path} holds no checkpoint of a model yet: let it run on with --resume")
    shapes = agent_like(agent, spec, config["seeds"])
    states = {
        arm: checkpoints.restore(path / "checkpoints" / arm, shapes)
        for arm in config.get("arms", ["agent"])
        if checkpoints.latest(path / "checkpoints" / arm) is not None
    }
    scores = path / "scores.json"
    return LoadedRun(
        path=path,
        config=config,
        spec=spec,
        normaliser=normaliser,
        diffuser=diffuser,
        diffuser_state=diffuser_state,
        denoiser=denoiser,
        world_model=model,
        world_model_state=model_state,
        agent=agent,
        agent_states=states,
        scores=json.loads(scores.read_text()) if scores.exists() else None,
    )
