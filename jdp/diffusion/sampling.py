"""Settings of a sampler and of its Karras levels, their checks, and a draw by them."""

from collections.abc import Collection
from typing import NamedTuple

import jax
from jax import Array

from jdp.diffusion.samplers import SAMPLERS
from jdp.diffusion.schedules import karras
from jdp.errors import UserError
from jdp.types import Denoiser, named_keys


class Sampling(NamedTuple):
    """What a config says of its samples: a method `sampling()` gives one, whatever its fields are called."""

    sampler: str  # of `jdp.diffusion.samplers.SAMPLERS`
    steps: int
    sigma_min: float  # last positive level
    sigma_max: float  # first level
    rho: float = 7.0  # curvature of the schedule

    def check(
        self, name: str, *, steps: str = "steps", least: int = 2, samplers: Collection[str] = SAMPLERS
    ) -> None:
        """Raises `UserError` for settings that draw nothing.

        Args:
            name: of the config, for the message.
            steps: what its field for the steps is called.
            least: the fewest steps it takes.
            samplers: those that it knows.
        """
        if self.sampler not in samplers:
            raise UserError(f"{name}.sampler is {self.sampler!r}; one of {', '.join(samplers)}")
        if self.steps < least or not 0 < self.sigma_min < self.sigma_max:
            raise UserError(
                f"{name} needs {steps} >= {least} and 0 < sigma_min < sigma_max, "
                f"not {self.steps}, {self.sigma_min} and {self.sigma_max}"
            )

    def sigmas(self) -> Array:
        """`[steps + 1]`, the levels, the last one 0."""
        return karras(self.steps, self.sigma_min, self.sigma_max, self.rho)

    def draw(self, key: Array, denoiser: Denoiser, shape: tuple[int, ...]) -> Array:
        """A sample of `shape` from pure noise; the key is consumed. Gradients flow through the chain."""
        keys = named_keys(key, "start", "sampler")
        sigmas = self.sigmas()
        x = sigmas[0] * jax.random.normal(keys["start"], shape)
        return SAMPLERS[self.sampler](denoiser, x, sigmas, key=keys["sampler"])
