"""Fit loop, device mesh, checkpoints, run directories. Nothing here knows diffusion or RL."""

from jdp.training import checkpoints
from jdp.training.compilations import Compilations, count_compilations
from jdp.training.fit import chunk_program, fit
from jdp.training.mesh import check_divisible, data_mesh, replicate, split_batch
from jdp.training.runs import Run, provenance, resume_run, start_run
from jdp.training.sinks import Sink, SinkName, check_sink, make_sink

__all__ = [
    "Compilations",
    "Run",
    "Sink",
    "SinkName",
    "check_divisible",
    "check_sink",
    "checkpoints",
    "chunk_program",
    "count_compilations",
    "data_mesh",
    "fit",
    "make_sink",
    "provenance",
    "replicate",
    "resume_run",
    "split_batch",
    "start_run",
]
