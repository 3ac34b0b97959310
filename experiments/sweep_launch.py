"""Where cells run, processes of this machine or Slurm, both through submitit, and how they are stopped."""

import os
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sweep_cell import RunCell

from jdp.errors import UserError

FOREVER = 60 * 24 * 365  # minutes
GRACE = 120  # seconds before the end of Slurm's time at which checkpoints are written


@dataclass(frozen=True)
class Slurm:
    """What a cell asks of Slurm."""

    partition: str | None = None
    """Of Slurm, as all that follow."""
    minutes: int = 24 * 60
    """Time limit of a cell; one that is cut goes on with its last checkpoint."""
    gpus: int = 0
    """GPUs of a cell."""
    cpus: int = 8
    """Cores of a cell."""
    memory_gb: float | None = None
    """Memory of a cell."""
    account: str | None = None
    """What the time is charged to."""
    setup: tuple[str, ...] = ()
    """Lines of shell that a job begins with."""


@dataclass(frozen=True)
class Slot:
    """The share of this machine that one cell gets."""

    cores: tuple[int, ...]
    gpus: tuple[str, ...] | None = None  # None: whatever the environment says
    shared: bool = False  # its GPU serves other cells too: none may take all its memory


def slots(jobs: int | None, device: Mapping[str, Any]) -> list[Slot]:
    """`jobs` shares; by default one for each GPU, or on a CPU one for every two cores."""
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    count = len(cores) or os.cpu_count() or 1
    if device["platform"] != "gpu":
        jobs = jobs or (max(1, count // 2) if device["platform"] == "cpu" else 1)  # a TPU serves one process
        return [Slot(share(cores, i, jobs)) for i in range(jobs)]
    shown = os.environ.get("CUDA_VISIBLE_DEVICES")
    gpus = shown.split(",") if shown else [str(i) for i in range(device["count"])]
    jobs = jobs or len(gpus)
    return [Slot(share(cores, i, jobs), share(gpus, i, jobs), jobs > len(gpus)) for i in range(jobs)]


def share(things: Sequence[Any], i: int, count: int) -> tuple[Any, ...]:
    """The i-th of `count` shares of about equal size; where things are too few, several have the same."""
    begin, end = i * len(things) // count, (i + 1) * len(things) // count
    return tuple(things[begin:end]) or tuple(things[begin : begin + 1])


def environment(slot: Slot) -> dict[str, str | None]:
    """Changes to a script's environment; submitit hides all GPUs from local jobs, so they are named anew."""
    if slot.gpus is None:
        return {"CUDA_VISIBLE_DEVICES": os.environ.get("CUDA_VISIBLE_DEVICES")}
    return {
        "CUDA_VISIBLE_DEVICES": ",".join(slot.gpus),
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false"
        if slot.shared
        else os.environ.get("XLA_PYTHON_CLIENT_PREALLOCATE"),
    }


def executor(folder: Path, name: str, jobs: int, slurm: Slurm | None) -> Any:
    """A submitit executor, local or for Slurm.

    Raises:
        UserError: without submitit; without Slurm's commands.
    """
    try:
        import submitit
    except ImportError as error:
        raise UserError('sweeps run through submitit: pip install -e ".[sweeps]"') from error
    here = str(Path(__file__).resolve().parent)
    known = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    if here not in known:  # a job finds RunCell by its name
        os.environ["PYTHONPATH"] = os.pathsep.join([here, *filter(None, known)])
    if slurm is None:
        found = submitit.AutoExecutor(folder, cluster="local")
        found.update_parameters(timeout_min=FOREVER)
        return found
    try:
        found = submitit.AutoExecutor(folder, cluster="slurm", slurm_max_num_timeout=10_000)
    except RuntimeError as error:
        raise UserError("--slurm: no srun on this machine: start the sweep where sbatch works") from error
    found.update_parameters(**parameters(name, jobs, slurm))
    return found


def parameters(name: str, jobs: int, slurm: Slurm) -> dict[str, Any]:
    """submitit's words for a `Slurm`."""
    return {
        "name": name,
        "timeout_min": slurm.minutes,
        "gpus_per_node": slurm.gpus or None,
        "cpus_per_task": slurm.cpus,
        "mem_gb": slurm.memory_gb,
        "slurm_partition": slurm.partition,
        "slurm_account": slurm.account,
        "slurm_array_parallelism": jobs,
        "slurm_signal_delay_s": GRACE,
        "slurm_setup": [f"export PYTHONPATH={os.environ['PYTHONPATH']}", *slurm.setup],
        "slurm_additional_parameters": {"requeue": True},
    }


def submit(made: Any, runs: list[RunCell]) -> list[Any]:
    """Starts cells; on Slurm they are one array job. A Ctrl-C in this terminal is for the sweep alone.

    Raises:
        UserError: if Slurm refuses them.
    """
    from submitit.core.utils import FailedJobError

    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with made.batch():
            return [made.submit(run) for run in runs]
    except FailedJobError as error:
        raise UserError(f"Slurm refuses the jobs: {str(error).strip().splitlines()[-1]}") from error
    finally:
        signal.signal(signal.SIGINT, before)


def adopt(folder: Path, job_id: str) -> Any:
    """A Slurm job of an earlier process of this sweep."""
    import submitit

    return submitit.SlurmJob(folder, job_id)


def terminate(job: Any) -> None:
    """SIGTERM for a local job, whose id is that of its controller, which passes it on."""
    if not job.done():
        os.kill(int(job.job_id), signal.SIGTERM)


def ended(job: Any) -> bool:
    """Whether a job has ended for good, as far as its executor knows."""
    return job.done() or job.state.upper().startswith("PREEMPTED")


def cancelled(job: Any) -> bool:
    """Whether a user took a job out of Slurm's queue."""
    return job.state.upper().startswith("CANCELLED")


def last_words(job: Any) -> str:
    """What submitit's own process said last, where a cell left no outcome."""
    path: Path = job.paths.stderr
    lines = path.read_text(errors="replace").splitlines() if path.exists() else []
    last = next((line.strip() for line in reversed(lines) if line.strip()), "")
    said = f" ({last})" if last and not last.startswith("submitit ") else ""
    return f"the process that ran it died{said}: {job.state.lower()}; see {path}"


def tidy(job: Any) -> None:
    """Removes what submitit wrote for a job that has ended."""
    for path in (job.paths.submitted_pickle, job.paths.result_pickle, job.paths.stdout, job.paths.stderr):
        path.unlink(missing_ok=True)
