"""Observations as agents and policies see them: standardised over the dataset."""

from jax import Array

from jdp.data.normalise import Affine, fit_affine, identity
from jdp.types import Transition

PLUS = 1e-3  # is added to the standard deviations (TD3+BC, arXiv 2106.06860, section 5)


def observation_affine(observations: Array, *, enabled: bool = True) -> Affine:
    """Statistics of `observations` `[..., O]`; the identity where not `enabled`."""
    return fit_affine(observations, plus=PLUS) if enabled else identity(observations.shape[-1])


def standardised(batch: Transition, standardise: Affine) -> Transition:
    """`batch` with both its observations standardised."""
    return batch._replace(
        observation=standardise(batch.observation), next_observation=standardise(batch.next_observation)
    )
