"""What a loop tells while it works, and where it goes on: in memory, or in a run directory.

Loops know no files and no screen. They take a `Journal`: `Memory()` keeps what it is told, for a notebook;
`jdp.runs.RunJournal` logs, saves, resumes and stops.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Protocol

import jax
import numpy as np

from jdp.types import Json, Logged, PyTree

Record = Json  # one line of a journal: "phase", "step" and what was logged


class Progress(Protocol):
    """How far a piece of work is."""

    def at(self, done: int, **notes: float) -> None:
        """`done` units of the total, and numbers to show beside them."""
        ...


class ProgressBar(Protocol):
    """Shows the progress of one piece of work, for instance by tqdm."""

    def __call__(
        self, label: str, total: int, unit: str, start: int = 0
    ) -> AbstractContextManager[Progress]: ...


class Journal(Protocol):
    """What loops tell and ask while they work. A phase is one piece of training, or its evaluation."""

    def begin(
        self,
        phase: str,
        init: Callable[..., PyTree],
        *args: PyTree,
        saved: Mapping[str, PyTree] | None = None,
    ) -> tuple[PyTree, int]:
        """`(state, updates made)`: where the phase stood when it was saved last, else `(init(*args), 0)`.

        Args:
            saved: what its checkpoints hold besides the state, for instance a normaliser.
        """
        ...

    def after(self, phase: str, step: int, last: int, state: PyTree, metrics: Logged) -> None:
        """A chunk ended with update `step` of `last`: logs `metrics`, and saves the state now and then.

        It does not keep `state`, whose arrays the next chunk overwrites. It may raise to stop the work.
        """
        ...

    def save(self, phase: str, step: int, state: PyTree) -> None:
        """Saves the state of a phase now."""
        ...

    def log(self, phase: str, step: int, record: Logged) -> None:
        """Adds a record."""
        ...

    def cut(self, phase: str, step: int) -> None:
        """Drops the records of a phase after `step`: that work is done again."""
        ...

    def records(self, phase: str | None = None) -> list[Record]:
        """What was logged, of one phase or all, in order."""
        ...

    def kept(
        self, name: str, number: int, make: Callable[[], Mapping[str, np.ndarray]]
    ) -> dict[str, np.ndarray]:
        """The arrays of round `number`, made now or by the process that was cut here."""
        ...

    def held(self) -> AbstractContextManager[None]:
        """A block that calls `after` soon and often, so that it may be stopped there and nowhere else."""
        ...

    def progress(self, label: str, total: int, unit: str, start: int = 0) -> AbstractContextManager[Progress]:
        """Shows how far a piece of work is, within a `with` block."""
        ...

    def note(self, line: str, /) -> None:
        """One line for whoever watches."""
        ...


class _Silent:
    def at(self, done: int, **notes: float) -> None: ...


@contextmanager
def silent(label: str, total: int, unit: str, start: int = 0) -> Iterator[Progress]:
    """The `ProgressBar` that shows nothing."""
    del label, total, unit, start
    yield _Silent()


def say_nothing(line: str) -> None:
    """Takes notes of a journal and shows none."""


@dataclass
class Memory:
    """A journal that keeps its records in memory and writes nothing; every phase begins anew."""

    progress: ProgressBar = silent
    note: Callable[[str], None] = say_nothing
    lines: list[Record] = field(default_factory=list)

    def begin(
        self,
        phase: str,
        init: Callable[..., PyTree],
        *args: PyTree,
        saved: Mapping[str, PyTree] | None = None,
    ) -> tuple[PyTree, int]:
        del saved
        self.cut(phase, 0)
        return jax.jit(init)(*args), 0

    def after(self, phase: str, step: int, last: int, state: PyTree, metrics: Logged) -> None:
        del last, state
        self.log(phase, step, metrics)

    def save(self, phase: str, step: int, state: PyTree) -> None:
        del phase, step, state

    def log(self, phase: str, step: int, record: Logged) -> None:
        self.lines.append({"phase": phase, "step": step, **record})

    def cut(self, phase: str, step: int) -> None:
        self.lines = [r for r in self.lines if r["phase"] != phase or r["step"] <= step]

    def records(self, phase: str | None = None) -> list[Record]:
        return [r for r in self.lines if phase is None or r["phase"] == phase]

    def kept(
        self, name: str, number: int, make: Callable[[], Mapping[str, np.ndarray]]
    ) -> dict[str, np.ndarray]:
        del name, number
        return dict(make())

    @contextmanager
    def held(self) -> Iterator[None]:
        yield


def training_seconds(journal: Journal, phase: str) -> float:
    """Wall time of a phase's training as logged, in all its processes, without its evaluations."""
    return sum(record["seconds"] for record in journal.records(phase))
