"""Experience comes in: sources, episodes, windows, normalisers."""

from jdp.data.episodes import Episodes, Origin, transitions
from jdp.data.normalise import Normaliser, fit_normaliser, training_rows
from jdp.data.segments import Hindsight, SegmentRows, draw_segments, rows_of, segment_rows, values_to_go
from jdp.data.sources import load
from jdp.data.windows import Rows, Windows, padded_rows, windows

__all__ = [
    "Episodes",
    "Hindsight",
    "Normaliser",
    "Origin",
    "Rows",
    "SegmentRows",
    "Windows",
    "draw_segments",
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
