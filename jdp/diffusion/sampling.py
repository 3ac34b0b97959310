"""Settings of a sampler and of the levels that it goes down, their one check, and a draw by them."""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import partial

import jax
from jax import Array

from jdp.diffusion.samplers import FLOW_SAMPLERS, SAMPLERS, Sampler, consistency
from jdp.diffusion.schedules import flow, karras
from jdp.errors import UserError
from jdp.types import Denoiser, named_keys


@dataclass(frozen=True)
class Sampling:
    """How samples are drawn: a base of nested configs; others make one of their fields by `sampling()`.

    Configs call `check` when they are made, each by its own name.
    """

    sampler: str = "dpmpp_2m"
    """One of `jdp.diffusion.samplers.SAMPLERS`."""
    steps: int = 10
    """Noise levels of the schedule."""
    sigma_min: float = 0.02
    """The last level above 0 of the Karras schedule."""
    sigma_max: float | None = 20.0
    """The first level of the Karras schedule."""
    rho: float = 7.0
    """Curvature of the Karras schedule."""
    eta: float = 1.0
    """Noise of dpmpp_2m_sde: 0 none (dpmpp_2m), 1 the reverse-time SDE."""

    def check(
        self,
        name: str,
        *,
        steps: str = "steps",
        least: int = 2,
        samplers: Collection[str] = SAMPLERS,
        highest: float | None = None,
    ) -> None:
        """Raises `UserError` for settings that draw nothing.

        Args:
            name: of the config, for the message.
            steps: what its field for the steps is called.
            least: the fewest steps it takes.
            samplers: those that it knows.
            highest: what `sigma_max` is at least where it is None; None: anything.
        """
        if self.sampler not in samplers:
            raise UserError(f"{name}.sampler is {self.sampler!r}; one of {', '.join(samplers)}")
        first = highest if self.sigma_max is None else self.sigma_max
        if self.steps < least or self.sigma_min <= 0 or (first is not None and self.sigma_min >= first):
            raise UserError(
                f"{name} needs {steps} >= {least} and 0 < sigma_min < sigma_max, "
                f"not {self.steps}, {self.sigma_min} and {self.sigma_max}"
            )

    def sigmas(self) -> Array:
        """`[steps + 1]`, the levels, the last one 0.

        Raises:
            UserError: if `sigma_max` is None, to be found from something else.
        """
        if self.sigma_max is None:
            raise UserError("sigma_max is none: give the first level of the schedule")
        return karras(self.steps, self.sigma_min, self.sigma_max, self.rho)

    def function(self) -> Sampler:
        """`(denoiser, x, sigmas, key=, trace=) -> x0`."""
        chosen = (SAMPLERS | FLOW_SAMPLERS)[self.sampler]
        return partial(chosen, eta=self.eta) if self.sampler == "dpmpp_2m_sde" else chosen

    def draw(
        self, key: Array, denoiser: Denoiser, shape: tuple[int, ...], *, around: Array | None = None
    ) -> Array:
        """A sample of `shape` from pure noise; the key is consumed. Gradients flow through the chain.

        Args:
            around: of that shape, what the noise is added to. At a first level that is low the chain is then
                a truncated one from what is nearly a sample, such as anchors (DiffusionDrive, arXiv
                2411.15139), of any denoiser.
        """
        keys = named_keys(key, "start", "sampler")
        sigmas = self.sigmas()
        x = sigmas[0] * jax.random.normal(keys["start"], shape)
        x = x if around is None else around + x
        return self.function()(denoiser, x, sigmas, key=keys["sampler"])

    def finish(self, key: Array, denoiser: Denoiser, x: Array, levels: int) -> Array:
        """What the last `levels` levels alone make of `x`, taken to stand at the highest of them.

        The key is consumed.
        """
        return self.function()(denoiser, x, self.sigmas()[-(levels + 1) :], key=key)


@dataclass(frozen=True)
class FlowSampling(Sampling):
    """Of a rectified flow, down its own levels: its times fall evenly, and no setting of Karras's counts."""

    def sigmas(self) -> Array:
        """`[steps + 1]`, from .999 of the time (level 999) to 0."""
        return flow(self.steps)


@dataclass(frozen=True)
class LeveledSampling(Sampling):
    """As `own`, down the matrix `[steps + 1, *prefix]` that `levels` makes of its levels (`schedules`)."""

    own: Sampling = Sampling()
    levels: Callable[[Array], Array] = jax.numpy.asarray  # hashable

    def sigmas(self) -> Array:
        """`[steps + 1, *prefix]`."""
        return self.levels(self.own.sigmas())

    def function(self) -> Sampler:
        """That of `own`."""
        return self.own.function()


@dataclass(frozen=True)
class ConsistencySampling(Sampling):
    """Of a consistency model: a jump from each level, and noise up to the next one."""

    def function(self) -> Sampler:
        """Of any consistency function, also one that is exact down to level 0."""
        return partial(consistency, sigma_min=0.0)
