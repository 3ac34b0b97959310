"""Run directories: checkpoints, metrics, resume, and their way back into a notebook."""

from jdp.runs import checkpoints
from jdp.runs.directories import (
    Run,
    finished_run,
    follow_run,
    provenance,
    resume_run,
    start_run,
    unfinished_run,
)
from jdp.runs.sinks import Sink, SinkName, check_sink, make_sink

__all__ = [
    "Run",
    "Sink",
    "SinkName",
    "check_sink",
    "checkpoints",
    "finished_run",
    "follow_run",
    "make_sink",
    "provenance",
    "resume_run",
    "start_run",
    "unfinished_run",
]
