"""A run directory of a planner or a policy gives a notebook its controller back."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from jdp.data import SegmentRows
from jdp.errors import UserError
from jdp.planners import PLANNERS
from jdp.planners import make as make_planner
from jdp.policies import POLICIES, follow
from jdp.policies import make as make_policy
from jdp.runs import checkpoints
from jdp.runs.load import from_dict
from jdp.types import Planner, Policy, PyTree, Spec

SHAPES_OF = 4096  # rows that stand for the dataset's where only shapes matter


@dataclass(frozen=True)
class LoadedController:
    """What a run of `plan.py` or `policies.py` trained, at its last checkpoint."""

    path: Path
    config: Mapping[str, Any]  # as written in config.json
    spec: Spec
    policy: Policy  # of a planner the closed loop that follows its plans
    planner: Planner | None
    states: PyTree  # of all seeds, stacked [S, ...]
    scores: Mapping[str, Any] | None  # scores.json; None while the run is unfinished

    def state(self, seed: int = 0) -> PyTree:
        """The state of one seed, for `policy` and `planner`."""
        return jax.tree.map(lambda x: x[seed], self.states)


def _rows(spec: Spec) -> SegmentRows:
    """Shapes of a dataset's rows."""
    n, f = SHAPES_OF, jnp.float32
    vectors = [jax.ShapeDtypeStruct((n, dim), f) for dim in (spec.observation_dim, spec.action_dim)]
    numbers = [jax.ShapeDtypeStruct((n,), kind) for kind in (f, f, f, *[jnp.int32] * 3)]
    return SegmentRows(*vectors, *numbers)


def load_controller(path: str | Path) -> LoadedController:
    """The planner or policy of the run directory `path`.

    Raises:
        UserError: if `path` is no run directory of one, or holds no checkpoint yet.
    """
    path = Path(path)
    if not (path / "config.json").exists():
        raise UserError(f"{path} is no run directory: it has no config.json")
    written = json.loads((path / "config.json").read_text())
    config, spec = written["config"], from_dict(Spec, written["spec"])
    planner, name = None, config.get("planner") or config.get("policy")
    if name in PLANNERS:
        planner = make_planner(from_dict(PLANNERS[name], config["settings"]), spec)
        learner, policy = planner, follow(planner)
        rounds = [f"round_{i + 1}" for i in range(config["settings"].get("rounds", 0))]
        phases = [*reversed(rounds), "planner"]
    elif name in POLICIES:
        learner = make_policy(from_dict(POLICIES[name], config["settings"]), spec)
        policy, phases = learner.policy, ["policy"]
    else:
        raise UserError(f"{path} is no run of plan.py or policies.py: use jdp.load_run")
    home = next((h for p in phases if checkpoints.latest(h := path / "checkpoints" / p) is not None), None)
    if home is None:
        raise UserError(f"{path} holds no checkpoint yet: let it run on with --resume")
    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), config["seeds"]))
    like = jax.eval_shape(jax.vmap(learner.init, in_axes=(0, None)), keys, _rows(spec))
    scores = path / "scores.json"
    return LoadedController(
        path=path,
        config=config,
        spec=spec,
        policy=policy,
        planner=planner,
        states=checkpoints.restore(home, like),
        scores=json.loads(scores.read_text()) if scores.exists() else None,
    )
