"""Experience comes in: sources, episodes, windows, normalisers."""

from jdp.data.episodes import Episodes, Origin, transitions
from jdp.data.normalise import Normaliser, fit_normaliser, training_rows
from jdp.data.sources import load
from jdp.data.windows import Rows, Windows, padded_rows, windows

__all__ = [
    "Episodes",
    "Normaliser",
    "Origin",
    "Rows",
    "Windows",
    "fit_normaliser",
    "load",
    "padded_rows",
    "training_rows",
    "transitions",
    "windows",
]
