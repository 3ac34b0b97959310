"""What the planners share that learn nothing, MPPI and CEM: they search a plan in a model at every step."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from jdp.data.draws import NoDraw
from jdp.errors import check_settings
from jdp.learning.acting import OnPolicyConfig
from jdp.online.planning import PlanningConfig, dynamics_of, planning_policy
from jdp.registry import Preset
from jdp.types import Learner, Method, Metrics, PyTree, Rollout, Spec, Task, WorldModel


@dataclass(frozen=True)
class SearchConfig(PlanningConfig):
    """Settings of a search from draws of one standard deviation."""

    acting: OnPolicyConfig = field(default_factory=lambda: OnPolicyConfig(environments=1, steps=200))
    """What it does between two reports: nothing is learned of it."""
    std: float = 0.5
    """Standard deviation of the draws around the plan."""
    iterations: int = 4
    """Times that the plan is improved before it acts."""

    def __post_init__(self) -> None:
        super().__post_init__()
        name, std, iterations = type(self).__name__, (self.std, 0, 100), (self.iterations, 1, 1000)
        check_settings(name, std=std, iterations=iterations)


class SearchState(NamedTuple):
    """What it plans with."""

    updates: Array  # [] int32, that its loop has counted
    model: PyTree = ()  # the parameters of a world model; of a simulator none


def _init(key: Array, data: PyTree) -> SearchState:
    del key, data
    return SearchState(jnp.int32(0))


def _update(key: Array, state: SearchState, rollout: Rollout) -> tuple[SearchState, Metrics]:
    """Nothing is learned, which the loss says too."""
    del key
    told = {"loss": jnp.zeros(()), "reward": jnp.mean(rollout.reward)}
    return state._replace(updates=state.updates + 1), told


def presets_of(config: SearchConfig) -> Mapping[str, Preset]:
    """The same for all tasks; updates are episodes of reports."""
    tiny = replace(config, samples=64, elites=16, horizon=10, acting=OnPolicyConfig(1, 20))
    return {
        "smoke": Preset(tiny, updates=2, batch_size=0, seeds=2),
        "cpu": Preset(replace(config, samples=256, elites=32), updates=1, batch_size=0, seeds=3),
        "paper": Preset(config, updates=1, batch_size=0, seeds=5),
    }


def search_method(
    name: str, config: SearchConfig, spec: Spec, task: Task | None, model: WorldModel | None
) -> Method:
    """The method `name`, in the simulator `task`, or in `model`, whose state is put into `SearchState.model`.

    Raises:
        UserError: unless it is given one of them; see `jdp.online.planning.dynamics_of`.
    """
    dynamics = dynamics_of(name, spec, task, model)
    policy = planning_policy(dynamics, config, spec)
    behaviour = planning_policy(dynamics, config, spec, noise=config.exploration)
    return Method(Learner(_init, _update, NoDraw()), policy, behaviour)
