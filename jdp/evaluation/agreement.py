"""Whether one sample could be another of the chains that a recipe makes."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

COVERED = (0.025, 0.975)


class Spread(NamedTuple):
    """A statistic over independent chains."""

    low: float  # quantiles `COVERED`
    high: float
    mean: float
    std: float

    def holds(self, value: float) -> bool:
        """Whether `value` lies between the quantiles."""
        return self.low <= value <= self.high


def spreads(chains: Sequence[Mapping[str, float]]) -> dict[str, Spread]:
    """The spread of each statistic over `chains`, which name the same ones."""
    found = {}
    for name in chains[0]:
        values = np.array([chain[name] for chain in chains])
        low, high = np.quantile(values, COVERED)
        found[name] = Spread(float(low), float(high), float(values.mean()), float(values.std()))
    return found


def outside(values: Mapping[str, float], spread: Mapping[str, Spread]) -> list[str]:
    """The names of the `values` that lie outside of their spread."""
    return [name for name, value in values.items() if not spread[name].holds(value)]
