"""A run directory gives a notebook its models back."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from jdp.agents import IQLConfig, TD3BCConfig
from jdp.agents import make as make_agent
from jdp.data import Normaliser
from jdp.diffusion import DiffuserConfig, DiffuserState, trajectory_diffuser
from jdp.errors import UserError
from jdp.networks import NetworkConfig
from jdp.training import checkpoints
from jdp.types import Agent, Denoiser, Diffuser, PyTree, Spec, Transition

T = TypeVar("T")


@dataclass(frozen=True)
class LoadedRun:
    """What a run of `experiments/pgd_d4rl.py` made, without its script."""

    path: Path
    config: Mapping[str, Any]  # as written in config.json
    spec: Spec
    normaliser: Normaliser
    diffuser: Diffuser
    diffuser_state: DiffuserState
    denoiser: Denoiser  # of normalised trajectories [B, T, D]
    agent: Agent
    agent_states: Mapping[str, PyTree]  # arm -> states of all seeds, stacked [S, ...]
    scores: Mapping[str, Any] | None  # scores.json; None while the run is unfinished


def from_dict(kind: type[T], values: Mapping[str, Any]) -> T:
    """A frozen dataclass from its JSON form: lists become tuples, unknown names are left out."""
    known = {}
    for field in fields(kind):  # type: ignore[arg-type]
        if field.name in values:
            value = values[field.name]
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


def agent_like(agent: Agent, spec: Spec, seeds: int) -> PyTree:
    """Shapes of the stacked states of `seeds` agents."""
    o, a, f = spec.observation_dim, spec.action_dim, jnp.float32
    shapes = ((2, o), (2, a), (2,), (2, o), (2,))
    rows: Any = Transition(*(jax.ShapeDtypeStruct(s, f) for s in shapes))  # type: ignore[arg-type]
    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), seeds))
    return jax.eval_shape(jax.vmap(agent.init, in_axes=(0, None)), keys, rows)


def load_run(path: str | Path) -> LoadedRun:
    """The trained diffuser and agents of the run directory `path`, at their last checkpoints.

    Raises:
        UserError: if `path` is no run directory, or its diffuser has no checkpoint yet.
    """
    path = Path(path)
    if not (path / "config.json").exists():
        raise UserError(f"{path} is no run directory: it has no config.json")
    written = json.loads((path / "config.json").read_text())
    config = written["config"]
    spec = from_dict(Spec, written["spec"])
    diffuser = trajectory_diffuser(
        from_dict(NetworkConfig, config["network"]),
        from_dict(DiffuserConfig, config["diffusion"]),
        config["precision"],
    )
    like = diffuser_like(
        diffuser, spec, batch_size=config["diffusion"]["batch_size"], horizon=config["horizon"]
    )
    home = Path(written.get("diffuser_from") or path) / "checkpoints" / "diffuser"
    saved = checkpoints.restore(home, like)
    kinds = {"td3_bc": TD3BCConfig, "iql": IQLConfig}
    agent = make_agent(from_dict(kinds[config["agent"]], config[config["agent"]]), spec)
    shapes = agent_like(agent, spec, config["seeds"])
    arms = {
        arm: checkpoints.restore(path / "checkpoints" / arm, shapes)
        for arm in config["arms"]
        if checkpoints.latest(path / "checkpoints" / arm) is not None
    }
    scores = path / "scores.json"
    return LoadedRun(
        path=path,
        config=config,
        spec=spec,
        normaliser=saved["normaliser"],
        diffuser=diffuser,
        diffuser_state=saved["state"],
        denoiser=diffuser.denoiser(saved["state"]),
        agent=agent,
        agent_states=arms,
        scores=json.loads(scores.read_text()) if scores.exists() else None,
    )
