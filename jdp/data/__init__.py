"""Experience comes in: sources, episodes, windows, normalisers."""

from jdp.data.draws import SegmentDraw, TransitionDraw, WindowDraw, batches
from jdp.data.episodes import Episodes, Origin, transitions
from jdp.data.normalise import Affine, Normaliser, fit_affine, fit_normaliser, training_rows
from jdp.data.segments import Hindsight, SegmentRows, rows_of, segment_rows, values_to_go
from jdp.data.sources import load
from jdp.data.windows import Rows, Windows, padded_rows, windows

__all__ = [
    "Affine",
    "Episodes",
    "Hindsight",
    "Normaliser",
    "Origin",
    "Rows",
    "SegmentDraw",
    "SegmentRows",
    "TransitionDraw",
    "WindowDraw",
    "Windows",
    "batches",
    "fit_affine",
    "fit_normaliser",
    "load",
    "padded_rows",
    "rows_of",
    "segment_rows",
    "training_rows",
    "transitions",
    "values_to_go",
    "windows",
]
