"""MPPI (Williams et al. 2017, arXiv 1707.02342): plans in a model by draws weighted by their returns.

It learns nothing: the baseline of `mbdpo`, which differs by its levels of noise and by its network.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import jax.numpy as jnp
from jax import Array

from jdp.online.searching import SearchConfig, presets_of, search_method
from jdp.registry import Preset, register
from jdp.registry import Task as Named
from jdp.types import Method, Spec, Task, WorldModel


@dataclass(frozen=True)
class MPPIConfig(SearchConfig):
    """Settings of MPPI."""

    def sigmas(self) -> Array:
        """`[iterations]`, the same everywhere."""
        return jnp.full(self.iterations, self.std)


def presets(task: Named) -> Mapping[str, Preset]:
    """The same for all tasks."""
    del task
    return presets_of(MPPIConfig())


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
    """MPPI in the simulator `task`, or in `model`, whose state is then put into `SearchState.model`.

    Equal arguments give the same method.

    Raises:
        UserError: unless it is given one of them; see `jdp.online.planning.dynamics_of`.
    """
    return search_method("mppi", config, spec, task, model)
