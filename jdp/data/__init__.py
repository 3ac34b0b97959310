"""Experience comes in: sources, episodes, windows, normalisers."""

from jdp.data.draws import SegmentDraw, TransitionDraw, WindowDraw, batches, together
from jdp.data.episodes import Episodes, Origin, transitions
from jdp.data.normalise import Affine, Normaliser, fit_affine, fit_normaliser, training_rows
from jdp.data.pools import Experience, Pool, PoolDraw, experience, pool, to_transitions
from jdp.data.row_files import RowFiles, prepared
from jdp.data.segments import Hindsight, SegmentRows, rows_of, segment_rows, values_to_go
from jdp.data.sources import load
from jdp.data.windows import Rows, Windows, left_out, left_out_notice, padded_rows, windows

__all__ = [
    "Affine",
    "Episodes",
    "Experience",
    "Hindsight",
    "Normaliser",
    "Origin",
    "Pool",
    "PoolDraw",
    "RowFiles",
    "Rows",
    "SegmentDraw",
    "SegmentRows",
    "TransitionDraw",
    "WindowDraw",
    "Windows",
    "batches",
    "experience",
    "fit_affine",
    "fit_normaliser",
    "left_out",
    "left_out_notice",
    "load",
    "padded_rows",
    "pool",
    "prepared",
    "rows_of",
    "segment_rows",
    "to_transitions",
    "together",
    "training_rows",
    "transitions",
    "values_to_go",
    "windows",
]
