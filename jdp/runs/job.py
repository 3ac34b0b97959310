"""What a training script opens: its dataset, a run directory, and what every phase needs of both."""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, Protocol, TypeVar

from jax import Array
from jax.sharding import Mesh

from jdp.data import Episodes
from jdp.data.row_files import RowFiles
from jdp.devices import distributed
from jdp.errors import UserError
from jdp.runs.directories import (
    Run,
    finished_run,
    follow_run,
    resume_run,
    start_run,
    unfinished_run,
)
from jdp.runs.journal import RunJournal
from jdp.runs.sinks import SinkName, make_sink
from jdp.types import Json


class RunOptions(Protocol):
    """What opening a run asks of a script's configuration, a dataclass (with a dataset: also `stream`)."""

    @property
    def env(self) -> str:
        """The dataset, or the task, as on the command line."""
        ...

    @property
    def out(self) -> Path:
        """Where results are written."""
        ...

    @property
    def resume(self) -> str | None:
        """A run directory, "latest", "auto", or None for a new run."""
        ...

    @property
    def log(self) -> tuple[SinkName, ...]:
        """Where metrics go besides metrics.jsonl."""
        ...


C = TypeVar("C", bound=RunOptions, covariant=True)  # a job only reads its configuration


@dataclass(frozen=True)
class Job(Generic[C]):
    """What every phase needs: settings, data, where to write, devices, keys by name."""

    config: C
    data: Episodes
    journal: RunJournal
    mesh: Mesh | None
    keys: Mapping[str, Array]

    @property
    def run(self) -> Run:
        """The run directory."""
        return self.journal.run

    @property
    def files(self) -> RowFiles | None:
        """Where rows of the dataset lie in files; None where they lie on the devices."""
        stream = getattr(self.config, "stream", False)  # runs without a dataset have none to stream
        return RowFiles(self.config.out / "streams") if stream else None


class Finished(Exception):
    """The run that `--resume auto` asks for is there, and has its scores."""

    def __init__(self, path: Path):
        super().__init__(str(path))
        self.path = path


def load_dataset(load: Callable[[], Episodes]) -> Episodes:
    """The dataset; of many processes the first goes first, for it may have to download it."""
    with distributed.main_first("data"):
        return load()


def open_run(
    experiment: str,
    config: RunOptions,
    data: Episodes,
    *,
    not_in_hash: tuple[str, ...],
    facts: Json | None = None,
) -> Run:
    """A new run directory, or with `config.resume` the unfinished one of the same configuration.

    Args:
        config: its fields but `not_in_hash` are written to config.json and name the run.
        facts: go into config.json too, and must be the same on resuming.

    Raises:
        Finished: with `resume` "auto", where a finished run is there.
        UserError: if there is no such run, or it is finished, in use, or of another configuration or data.
    """
    settings = {k: v for k, v in dataclasses.asdict(config).items() if k not in not_in_hash}  # type: ignore[call-overload]
    facts = {
        "dataset": data.origin.name,
        "sha256": data.origin.sha256,
        "spec": dataclasses.asdict(data.spec),
        **(facts or {}),
    }
    where = {"out": config.out, "experiment": experiment, "dataset": config.env, "config": settings}
    resume = config.resume
    if resume == "auto":
        done = distributed.from_main(lambda: str(finished_run(**where, facts=facts) or ""))
        if done:
            raise Finished(Path(done))
        if not distributed.from_main(lambda: str(unfinished_run(**where) or "")):
            resume = None
    opened: list[Run] = []

    def start_or_resume() -> str:
        opened.append(start_run(**where, facts=facts) if resume is None else _resumed(where, resume, facts))
        return str(opened[0].path)

    path = Path(distributed.from_main(start_or_resume))
    run = opened[0] if opened else follow_run(path)
    if not distributed.is_main():
        return run
    sinks = tuple(make_sink(name, run.path, settings) for name in config.log)
    return dataclasses.replace(run, sinks=sinks)


def _resumed(where: Json, which: str, facts: Json) -> Run:
    """The unfinished run `which`; "auto" is the newest one."""
    run = resume_run(**where, which="latest" if which == "auto" else which, facts=facts)
    if run.read("scores.json") is not None:
        raise UserError(f"{run.path} is finished: its table is in {run.path / 'report.txt'}")
    return run
