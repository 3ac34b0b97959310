"""CEM (de Boer et al. 2005; PETS, Chua et al. 2018, arXiv 1805.12114): plans by the best draws.

MPPI with another spread: that of an entry of the plan is not set but that of the elites of the iteration
before, and elites weigh the same.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import jax.numpy as jnp
from jax import Array

from jdp.diffusion import monte_carlo
from jdp.errors import check_settings
from jdp.online.planning import weigher
from jdp.online.searching import SearchConfig, presets_of, search_method
from jdp.registry import Preset, register
from jdp.registry import Task as Named
from jdp.types import Method, Spec, Task, WorldModel


@dataclass(frozen=True)
class CEMConfig(SearchConfig):
    """Settings of CEM; `std` is the spread of the first draws at every step."""

    temperature: float = 1e9
    """Of the weights of the elites: so high that they are equal."""
    floor: float = 0.05
    """Least standard deviation of the draws."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_settings("CEMConfig", elites=(self.elites, 1, self.samples), floor=(self.floor, 0, 100))

    def improved(self, key: Array, value: monte_carlo.Value, plan: Array, given: Array | None) -> Array:
        """`[T, A]`, a plan of more value than `plan`; the key is consumed."""
        return monte_carlo.cross_entropy(
            key,
            value,
            weigher(self),
            plan,
            jnp.full_like(plan, self.std),
            iterations=self.iterations,
            samples=self.samples,
            floor=self.floor,
            limit=1.0,
            given=given,
        )


def presets(task: Named) -> Mapping[str, Preset]:
    """The same for all tasks."""
    del task
    return presets_of(CEMConfig())


@register(
    "online",
    "cem",
    CEMConfig,
    presets,
    title="CEM",
    paper="arXiv 1805.12114",
    idea="plans in the simulator itself (or a world model), by draws around the best ones; learns nothing",
    departures="no learned ensemble; the spread begins anew at every step, and has a floor",
)
@lru_cache
def cem(
    config: CEMConfig, spec: Spec, *, task: Task | None = None, model: WorldModel | None = None
) -> Method:
    """CEM in the simulator `task`, or in `model`, whose state is then put into `SearchState.model`.

    Equal arguments give the same method.

    Raises:
        UserError: unless it is given one of them; see `jdp.online.planning.dynamics_of`.
    """
    return search_method("cem", config, spec, task, model)
