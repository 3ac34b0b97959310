"""Run directories: checkpoints, metrics, resume, and their way back into a notebook."""

from jdp.runs import checkpoints, preemption
from jdp.runs.directories import (
    Run,
    dataset_folder,
    finished_run,
    follow_run,
    resume_run,
    start_run,
    unfinished_run,
)
from jdp.runs.job import Finished, Job, RunOptions, load_dataset, open_run
from jdp.runs.journal import RunJournal
from jdp.runs.load import LoadedRun, load_run
from jdp.runs.models import restore_diffuser
from jdp.runs.provenance import provenance
from jdp.runs.sinks import Sink, SinkName, check_sink, make_sink

__all__ = [
    "Finished",
    "Job",
    "LoadedRun",
    "Run",
    "RunJournal",
    "RunOptions",
    "Sink",
    "SinkName",
    "check_sink",
    "checkpoints",
    "dataset_folder",
    "finished_run",
    "follow_run",
    "load_dataset",
    "load_run",
    "make_sink",
    "open_run",
    "preemption",
    "provenance",
    "restore_diffuser",
    "resume_run",
    "start_run",
    "unfinished_run",
]
