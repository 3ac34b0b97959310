"""What diffusion world models of vectors share: settings, weights, denoiser, a step of training, presets."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from jax import Array
from jax.tree_util import Partial

from jdp.data.checks import check_fits
from jdp.diffusion.denoiser import edm
from jdp.learning import averaged, optimiser
from jdp.learning.averaged import Averaged
from jdp.learning.optimiser import Loss
from jdp.learning.vector_diffusion import VectorDiffusionConfig
from jdp.networks.conditional_mlp import conditioned
from jdp.registry import Preset, Presets, Task
from jdp.types import Metrics, Network, Params, Spec, Transition
from jdp.world_models.coordinates import Statistics, statistics
from jdp.world_models.history import History, as_history


@dataclass(frozen=True)
class DiffusionModelConfig(VectorDiffusionConfig):
    """What every diffusion world model of vectors is configured by; levels are in standard deviations."""

    RENAMED: ClassVar[Mapping[str, str]] = {"hidden": "features", "sampler_steps": "sampling_steps"}

    sampling_steps: int = 10
    """Steps of the sampler."""
    sigma_max: float = 80.0
    """First level of the Karras schedule."""
    p_mean: float = 0.0
    """Mean of ln sigma in training: higher than for pictures, for the condition says nearly everything."""
    p_std: float = 1.4
    """Standard deviation of ln sigma in training."""
    steps: int = 20_000
    """Gradient steps, over which the learning rate warms up and falls to 0 by a cosine."""
    batch_size: int = 256
    """Steps in a batch."""
    learning_rate: float = 3e-3
    """Peak of the schedule."""


class DiffusionModelState(NamedTuple):
    """Weights, their average, and the units of the task."""

    training: Averaged
    statistics: Statistics


def begin(
    config: DiffusionModelConfig, params: Params, data: Transition | History, spec: Spec
) -> DiffusionModelState:
    """Training of the first weights `params` on a dataset.

    Raises:
        UserError: if its shapes are not those of `spec`.
    """
    found = as_history(data)
    check_fits(found.next_observation, found.actions, spec, "world model")
    return DiffusionModelState(averaged.begin(optimiser.adam(config), params), statistics(found))


def descend(
    config: DiffusionModelConfig, state: DiffusionModelState, loss: Loss
) -> tuple[DiffusionModelState, Metrics]:
    """One step down `loss(params)`."""
    training, metrics = averaged.descend(optimiser.adam(config), state.training, loss, config.ema)
    return DiffusionModelState(training, state.statistics), metrics


def denoiser_of(network: Network, state: DiffusionModelState, condition: Array) -> Partial:
    """The denoiser of the averaged weights under `condition` `[B, C]`, which are its leaves."""
    return edm(conditioned(network.apply), (state.training.ema, condition))


def presets_of(config: type[DiffusionModelConfig]) -> Presets:
    """Those of a model with the type `config`, the same for all datasets: a minute, and its defaults."""

    def presets(task: Task) -> Mapping[str, Preset]:
        del task
        found = {"smoke": config(features=32, blocks=1, steps=300), "cpu": config(), "paper": config()}
        return {name: Preset(made, made.steps, made.batch_size) for name, made in found.items()}

    return presets
