"""Synthetic experience of a trajectory diffuser: of the dataset's behaviour, or guided to policies."""

from collections.abc import Callable
from dataclasses import replace

import jax
import numpy as np
from jax import Array
from jax.sharding import Mesh

from jdp.data import Episodes, Experience, experience
from jdp.learning.diffuser import TrainedDiffuser
from jdp.synthesis.generate import SamplerConfig, generate
from jdp.synthesis.guided import GuidanceConfig, guide
from jdp.synthesis.imagined import target_of
from jdp.types import Denoiser, Method, PyTree

Progress = Callable[[int, int], None]  # (trajectories made, trajectories to make)


def synthetic_experience(
    key: Array,
    models: TrainedDiffuser,
    method: Method | None = None,
    states: PyTree = None,
    *,
    count: int,
    length: int,
    agents: int = 1,
    sampler: SamplerConfig = SamplerConfig(),  # noqa: B008 (frozen)
    guidance: GuidanceConfig = GuidanceConfig(),  # noqa: B008 (frozen)
    begin_in: Episodes | None = None,
    mesh: Mesh | None = None,
    progress: Progress | None = None,
) -> Experience:
    """`[S, count, length, ...]` generated trajectories: policy-guided diffusion (arXiv 2404.06356).

    Args:
        method, states: the target policies that trajectories are guided to: of S agents, stacked. Without
            them they are of the behaviour that the dataset shows.
        agents: S.
        begin_in: a dataset whose states the trajectories begin in; None: they are wholly drawn from noise.

    Raises:
        UserError: if a batch does not fit on the device, or the method tells no distribution of its actions.
    """
    initial = None
    if begin_in is not None:
        rng = np.random.default_rng(np.asarray(jax.random.key_data(key)))
        rows = rng.integers(len(begin_in), size=count)
        initial = models.normaliser.normalise_observation(begin_in.observations[rows])
    denoiser, unguided = _denoisers(models, method, states, sampler, guidance)
    x = generate(
        key,
        denoiser,
        sampler,
        count=count,
        length=length,
        channels=len(models.normaliser.mean),
        agents=agents,
        initial=initial,
        unguided=unguided,
        mesh=mesh,
        progress=progress,
    )
    return experience(x, models.normaliser)


def chained_experience(
    key: Array,
    models: TrainedDiffuser,
    method: Method | None = None,
    states: PyTree = None,
    *,
    count: int,
    length: int,
    window: int,
    sampler: SamplerConfig = SamplerConfig(),  # noqa: B008 (frozen)
    guidance: GuidanceConfig = GuidanceConfig(),  # noqa: B008 (frozen)
    mesh: Mesh | None = None,
) -> Experience:
    """`[count, length + 1, ...]`: windows of `window` steps, each begun at the last state of the one before.

    Args:
        method, states: as of `synthetic_experience`, of one agent `[1, ...]`.
        length: transitions of a trajectory.
    """
    sampler = replace(sampler, batch=min(sampler.batch, count))
    denoiser, unguided = _denoisers(models, method, states, sampler, guidance)
    parts, initial, windows = [], None, -(-length // (window - 1))
    for i in range(windows):
        x = generate(
            jax.random.fold_in(key, i),
            denoiser,
            sampler,
            count=count,
            length=window,
            channels=len(models.normaliser.mean),
            initial=initial,
            unguided=unguided,
            mesh=mesh,
        )[0]
        initial = x[:, -1, : models.normaliser.observation_dim]
        parts.append(x if i == windows - 1 else x[:, :-1])
    return experience(np.concatenate(parts, axis=1)[:, : length + 1], models.normaliser)


def _denoisers(
    models: TrainedDiffuser,
    method: Method | None,
    states: PyTree,
    sampler: SamplerConfig,
    guidance: GuidanceConfig,
) -> tuple[Denoiser, Denoiser | None]:
    """The denoiser that trajectories are drawn with, and where it is guided to `states` the plain one."""
    plain = models.denoiser
    if states is None:
        return plain, None
    target = target_of(method)
    return guide(plain, target, states, models.normaliser, guidance, sampler.sigmas()), plain
