"""Sampling many trajectories from a denoiser, in batches that fit the device."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh

from jdp.devices.mesh import gathered, multiple, over, replicate, split_batch
from jdp.diffusion.guidance import condition
from jdp.diffusion.sampling import Sampling
from jdp.errors import UserError, check_choices
from jdp.types import Denoiser, named_keys

SamplerName = Literal["dpmpp_2m", "dpmpp_2m_sde", "heun", "euler", "churned_heun", "churned_euler"]
LEAST_SIGMA_MAX = 20.0  # for windows whose widest direction is narrow: single steps, independent channels


@dataclass(frozen=True)
class SamplerConfig(Sampling):
    """How trajectories are sampled."""

    sampler: Literal["dpmpp_2m", "dpmpp_2m_sde", "heun", "euler", "churned_heun", "churned_euler"] = (
        "dpmpp_2m"
    )
    """dpmpp_2m: second order, one network call a step; dpmpp_2m_sde: with noise, for 30 steps and more;
    heun: two calls a step; euler: DDIM."""
    steps: int = 32
    """Noise levels of the Karras schedule. Of a flag of probability 1/460, 20 from 42 keep 84 %, 32 97 %."""
    sigma_min: float = 0.002
    """The last level before 0."""
    sigma_max: float | None = None
    """Where sampling begins, in units of the data's standard deviation; none: from the data, four times the
    spread of its windows along their widest direction (see `for_windows`)."""
    eta: float = 1.5
    """Noise of dpmpp_2m_sde: 0 none (dpmpp_2m), 1 the reverse-time SDE."""
    batch: int = 256
    """Trajectories sampled at once."""

    def __post_init__(self) -> None:
        check_choices(self)
        self.check("SamplerConfig", least=3, highest=LEAST_SIGMA_MAX)
        if self.batch < 1:
            raise UserError(f"SamplerConfig.batch is {self.batch}: sample at least one trajectory at once")

    def for_windows(self, spread: float) -> "SamplerConfig":
        """This sampler beginning where windows of that `spread` (`window_spread`) keep theirs.

        At `4 sqrt(lambda_1)` the widest direction loses 3 % of its std. A `sigma_max` that was given stays.
        """
        if self.sigma_max is not None:
            return self
        return replace(self, sigma_max=max(LEAST_SIGMA_MAX, round(4 * spread, 1)))

    def sigmas(self) -> Array:
        """`[steps + 1]`, the noise levels.

        Raises:
            UserError: if `sigma_max` is neither given nor found from the data.
        """
        if self.sigma_max is None:
            raise UserError(
                "the sampler's sigma_max depends on the data: give it, or take "
                "SamplerConfig(...).for_windows(jdp.synthesis.window_spread(data, normaliser, horizon))"
            )
        return super().sigmas()


@lru_cache(maxsize=64)
def sampling_program(
    config: SamplerConfig, shape: tuple[int, int, int], mesh: Mesh | None, conditioned: bool
) -> Callable:
    """The jitted `(denoiser, unguided, key, sigmas, initial) -> x0` for one batch of `shape` `[B, T, D]`."""
    sampler = config.function()

    def sample(
        denoiser: Denoiser, unguided: Denoiser | None, key: Array, sigmas: Array, initial: Array | None
    ) -> Array:
        keys = named_keys(key, "start", "noise")
        x = sigmas[0] * jax.random.normal(keys["start"], shape, jnp.float32)
        x = split_batch(x, mesh)
        if conditioned:
            assert initial is not None
            known = jnp.zeros(shape).at[:, 0, : initial.shape[-1]].set(initial)
            mask = jnp.zeros(shape, bool).at[:, 0, : initial.shape[-1]].set(True)
            denoiser = condition(denoiser, known, mask, base=unguided)
        with over(mesh):
            x0 = sampler(denoiser, x, sigmas, key=keys["noise"])
        return gathered(split_batch(x0, mesh), mesh)

    return jax.jit(sample)


def generate(
    key: Array,
    denoiser: Denoiser,
    config: SamplerConfig,
    *,
    count: int,
    length: int,
    channels: int,
    agents: int = 1,
    initial: np.ndarray | None = None,
    unguided: Denoiser | None = None,
    mesh: Mesh | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> np.ndarray:
    """`[S, count, T, D]` normalised trajectories, `count` for each of `agents` = S (see `target_policy`).

    The denoiser is an argument of the compiled program: new weights, and new policies in its guidance,
    compile nothing. Batch `i` uses `fold_in(key, i)`; the last batch is cut.

    Args:
        initial: `[count, O]` or None: normalised first observations that trajectories are conditioned on.
        unguided: the one without guidance, where `denoiser` is guided (see `guidance.condition`).
        progress: called with (trajectories made, trajectories to make).

    Raises:
        UserError: if a batch does not fit on the device.
    """
    per_agent = multiple(
        max(config.batch // agents, 1), mesh
    )  # also for small counts: one shape, one program
    shape = (agents * per_agent, length, channels)
    program = sampling_program(config, shape, mesh, initial is not None)
    unguided = unguided if initial is not None else None  # else not needed
    denoiser, unguided, sigmas = replicate(denoiser, mesh), replicate(unguided, mesh), config.sigmas()
    parts = []
    for i in range(-(-count // per_agent)):
        start = None
        if initial is not None:
            rows = np.arange(i * per_agent, (i + 1) * per_agent) % len(initial)
            start = jnp.asarray(np.tile(initial[rows], (agents, 1)))
        try:
            x = np.asarray(program(denoiser, unguided, jax.random.fold_in(key, i), sigmas, start))
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            raise UserError(
                f"sampling {shape[0]} trajectories of {length} steps at once does not fit on "
                f"{jax.devices()[0].device_kind}: choose a smaller --sampler.batch"
            ) from error
        parts.append(x.reshape(agents, per_agent, length, channels))
        if progress is not None:
            progress(min((i + 1) * per_agent, count) * agents, count * agents)
    return np.concatenate(parts, axis=1)[:, :count]
