"""Fit loop, device mesh, checkpoints, run directories. Nothing here knows diffusion or RL."""

from jdp.training import checkpoints, distributed
from jdp.training.compilations import Compilations, count_compilations
from jdp.training.fit import block_program, chunk_program, fit, fit_blocks
from jdp.training.mesh import (
    check_divisible,
    data_mesh,
    gathered,
    multiple,
    on_one,
    padded,
    replicate,
    split_batch,
)
from jdp.training.runs import Run, finished_run, follow_run, provenance, resume_run, start_run, unfinished_run
from jdp.training.sinks import Sink, SinkName, check_sink, make_sink

__all__ = [
    "Compilations",
    "Run",
    "Sink",
    "SinkName",
    "block_program",
    "check_divisible",
    "check_sink",
    "checkpoints",
    "chunk_program",
    "count_compilations",
    "data_mesh",
    "distributed",
    "finished_run",
    "fit",
    "fit_blocks",
    "follow_run",
    "gathered",
    "make_sink",
    "multiple",
    "on_one",
    "padded",
    "provenance",
    "replicate",
    "resume_run",
    "split_batch",
    "start_run",
    "unfinished_run",
]
