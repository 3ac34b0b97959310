"""MPPI (Williams et al. 2017, arXiv 1707.02342): plans in a model by draws weighted by their returns.

It learns nothing: the baseline of `mbdpo`, which differs by its levels of noise and by its network.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from jdp.data.draws import NoDraw
from jdp.errors import check_settings
from jdp.learning.acting import OnPolicyConfig
from jdp.online.planning import PlanningConfig, dynamics_of, planning_policy
from jdp.registry import Preset, register
from jdp.registry import Task as Named
from jdp.types import Learner, Method, Metrics, PyTree, Rollout, Spec, Task, WorldModel


@dataclass(frozen=True)
class MPPIConfig(PlanningConfig):
    """Settings of MPPI."""

    acting: OnPolicyConfig = field(default_factory=lambda: OnPolicyConfig(environments=1, steps=200))
    """What it does between two reports: nothing is learned of it."""
    std: float = 0.5
    """Standard deviation of the draws around the plan."""
    iterations: int = 4
    """Times that the plan is improved before it acts."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_settings("MPPIConfig", std=(self.std, 0, 100), iterations=(self.iterations, 1, 1000))

    def sigmas(self) -> Array:
        """`[iterations]`, the same everywhere."""
        return jnp.full(self.iterations, self.std)


class MPPIState(NamedTuple):
    """What it plans with."""

    updates: Array  # [] int32, that its loop has counted
    model: PyTree = ()  # the parameters of a world model; of a simulator none


def _init(key: Array, data: PyTree) -> MPPIState:
    del key, data
    return MPPIState(jnp.int32(0))


def _update(key: Array, state: MPPIState, rollout: Rollout) -> tuple[MPPIState, Metrics]:
    """Nothing is learned, which the loss says too."""
    del key
    told = {"loss": jnp.zeros(()), "reward": jnp.mean(rollout.reward)}
    return state._replace(updates=state.updates + 1), told


def presets(task: Named) -> Mapping[str, Preset]:
    """The same for all tasks; updates are episodes of reports."""
    del task
    config = MPPIConfig()
    tiny = replace(config, samples=64, elites=16, horizon=10, acting=OnPolicyConfig(1, 20))
    return {
        "smoke": Preset(tiny, updates=2, batch_size=0, seeds=2),
        "cpu": Preset(replace(config, samples=256, elites=32), updates=1, batch_size=0, seeds=3),
        "paper": Preset(config, updates=1, batch_size=0, seeds=5),
    }


@register(
    "online",
    "mppi",
    MPPIConfig,
    presets,
    title="MPPI",
    paper="arXiv 1707.02342",
    idea="plans in the simulator itself (or a world model), by draws around the last plan; learns nothing",
    departures="weights of elites, at a temperature in standard deviations of the returns; no cost of "
    "control but the task's own",
)
@lru_cache
def mppi(
    config: MPPIConfig, spec: Spec, *, task: Task | None = None, model: WorldModel | None = None
) -> Method:
    """MPPI in the simulator `task`, or in `model`, whose state is then put into `MPPIState.model`.

    Equal arguments give the same method.

    Raises:
        UserError: unless it is given one of them; see `jdp.online.planning.dynamics_of`.
    """
    dynamics = dynamics_of("mppi", spec, task, model)
    policy = planning_policy(dynamics, config, spec)
    behaviour = planning_policy(dynamics, config, spec, noise=config.exploration)
    return Method(Learner(_init, _update, NoDraw()), policy, behaviour)
