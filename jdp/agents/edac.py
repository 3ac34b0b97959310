"""EDAC (An et al. 2021, arXiv 2110.01548): SAC-N with critics whose action gradients are held apart."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache

import jax
import jax.numpy as jnp
from jax import Array

from jdp.agents.presets import presets_of
from jdp.agents.sac import SACConfig, SACState, sac_init, sac_target, sac_update
from jdp.errors import check_settings
from jdp.learning.actors import actor_method
from jdp.registry import Preset, Task, register
from jdp.types import Method, Metrics, Network, Params, Spec, Transition

NORM_FLOOR = 1e-10  # a shorter gradient is divided by this: it has no direction to speak of


# (critics, diversity) that the paper (appendix) takes for D4RL's v2 locomotion sets
EDAC_SETTINGS: dict[str, tuple[int, float]] = {
    "halfcheetah-medium-v2": (10, 1.0),
    "halfcheetah-medium-replay-v2": (10, 1.0),
    "halfcheetah-medium-expert-v2": (10, 5.0),
    "hopper-medium-v2": (50, 1.0),
    "hopper-medium-replay-v2": (50, 1.0),
    "hopper-medium-expert-v2": (50, 1.0),
    "walker2d-medium-v2": (10, 1.0),
    "walker2d-medium-replay-v2": (10, 1.0),
    "walker2d-medium-expert-v2": (10, 5.0),
}


@dataclass(frozen=True)
class EDACConfig(SACConfig):
    """Settings of EDAC; what the paper tunes is in `EDAC_SETTINGS`."""

    diversity: float = 1.0  # eta, the weight of the penalty on aligned gradients
    critics: int = 10
    hidden: tuple[int, ...] = (256, 256, 256)
    initialiser: str = "edac"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_settings("EDACConfig", critics=(self.critics, 2, 1000), diversity=(self.diversity, 0, 1e9))


def alignment(params: Params, critic: Network, observation: Array, action: Array) -> Array:
    """`[B]`, `sum_{i != j} <g_i, g_j> / (N - 1)` of the unit vectors `g_i` along `dQ_i/da` (equation 14).

    N where all critics agree on the direction, 0 where their gradients are orthogonal.
    """

    def gradient(member: Params) -> Array:  # [B, A]
        alone = jax.tree.map(lambda x: x[None], member)
        return jax.grad(lambda a: jnp.sum(critic.apply(alone, observation, a)))(action)

    gradients = jax.vmap(gradient)(params)  # [N, B, A]
    squares = jnp.sum(jnp.square(gradients), axis=-1, keepdims=True)
    # The floor is inside the root, whose derivative at 0 would be infinite.
    unit = gradients / jnp.sqrt(jnp.maximum(squares, NORM_FLOOR**2))
    # |sum_i g_i|^2 - sum_i |g_i|^2 is the sum over all pairs, without making them.
    pairs = jnp.sum(jnp.square(jnp.sum(unit, axis=0)), axis=-1) - jnp.sum(jnp.square(unit), axis=(0, 2))
    return pairs / (gradients.shape[0] - 1)


def _update(
    key: Array, state: SACState, batch: Transition, *, config: EDACConfig, spec: Spec
) -> tuple[SACState, Metrics]:
    """An update of SAC whose critic loss has `diversity` times the mean alignment (algorithm 1)."""

    def penalty(params, critic, key, batch, actor):
        del key, actor
        aligned = jnp.mean(alignment(params, critic, batch.observation, batch.action))
        return config.diversity * aligned, {"alignment": aligned}

    return sac_update(key, state, batch, config=config, spec=spec, penalty=penalty)


def presets(task: Task) -> Mapping[str, Preset]:
    """What the authors tuned for the dataset; 10 critics on two cores."""
    config = EDACConfig()
    if task.name in EDAC_SETTINGS:
        critics, diversity = EDAC_SETTINGS[task.name]
        config = replace(config, critics=critics, diversity=diversity)
    return presets_of(config, smaller={"hidden": (256, 256), "critics": 10}, updates=3_000_000)


@register(
    "agent",
    "edac",
    EDACConfig,
    presets,
    title="EDAC",
    paper="arXiv 2110.01548",
    idea="SAC-N whose critics' gradients are held apart, so fewer are needed",
)
@lru_cache
def edac(config: EDACConfig, spec: Spec) -> Method:
    """EDAC; one minibatch an update. Equal arguments give the same method."""
    return actor_method(sac_init, _update, sac_target, config, spec)
