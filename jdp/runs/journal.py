"""The journal of a run directory: metrics, checkpoints, arrays of rounds; resumes, and stops when asked."""

import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path

import jax
import numpy as np

from jdp.devices import distributed
from jdp.loops.journal import Progress, ProgressBar, Record, say_nothing, silent
from jdp.runs import checkpoints, preemption
from jdp.runs.directories import Run, replacing
from jdp.types import Logged, PyTree


@dataclass
class RunJournal:
    """A `jdp.loops.Journal` on the directory of a run.

    `after` saves when `checkpoint_minutes` have passed, at a phase's end, and after a SIGTERM, when it raises
    `jdp.runs.preemption.Preempted`. Many processes of one run agree on both.
    """

    run: Run
    checkpoint_minutes: float = 3.0
    progress_bar: ProgressBar = silent
    note: Callable[[str], None] = say_nothing
    _saved_with: dict[str, Mapping[str, PyTree]] = field(default_factory=dict)
    _saved_at: dict[str, float] = field(default_factory=dict)

    def begin(
        self,
        phase: str,
        init: Callable[..., PyTree],
        *args: PyTree,
        saved: Mapping[str, PyTree] | None = None,
    ) -> tuple[PyTree, int]:
        """As of `Journal`: from the last checkpoint that can be read; others are set aside, with a note."""
        self._saved_with[phase] = saved or {}
        self._saved_at[phase] = time.monotonic()
        folder = self.run.folder(phase)
        if checkpoints.latest(folder) is None:
            self.run.cut(phase, 0)
            return jax.jit(init)(*args), 0
        like = jax.eval_shape(init, *args)
        found, start, damaged = checkpoints.restore_newest(
            folder, {"state": like, **saved} if saved else like
        )
        for reason in damaged:
            self.note(f"{reason}: set aside; going on from step {start:,}")
        self.run.cut(phase, start)
        return found["state"] if saved else found, start

    def after(self, phase: str, step: int, last: int, state: PyTree, metrics: Logged) -> None:
        self.run.log(phase, step, metrics)
        late = time.monotonic() - self._saved_at.get(phase, 0.0) > 60 * self.checkpoint_minutes
        due, stop = distributed.agree(late, preemption.asked())  # of many processes all save, or none
        if step == last or due or stop:
            self.save(phase, step, state)
        if stop:
            raise preemption.Preempted

    def save(self, phase: str, step: int, state: PyTree) -> None:
        saved = self._saved_with.get(phase)
        checkpoints.save(self.run.folder(phase), step, {"state": state, **saved} if saved else state)
        self._saved_at[phase] = time.monotonic()

    def log(self, phase: str, step: int, record: Logged) -> None:
        self.run.log(phase, step, record)

    def cut(self, phase: str, step: int) -> None:
        self.run.cut(phase, step)

    def records(self, phase: str | None = None) -> list[Record]:
        return self.run.records(phase)

    def kept(
        self, name: str, number: int, make: Callable[[], Mapping[str, np.ndarray]]
    ) -> dict[str, np.ndarray]:
        """The arrays that serve round `number`, kept on disk until those of the next round but one.

        A run that was cut goes on with the same arrays, also from its last checkpoint but one.
        """
        path: Path = self.run.path / "synthetic" / f"{name}-{number}.npz"
        if path.exists():
            with np.load(path, allow_pickle=False) as file:
                arrays = dict(file)
        else:
            arrays = dict(make())
            with replacing(path, "wb") as file:
                np.savez(file, **arrays)  # type: ignore[arg-type]
        rounds = {int(p.stem.removeprefix(f"{name}-")): p for p in path.parent.glob(f"{name}-*.npz")}
        for old in sorted(other for other in rounds if other < number)[:-1]:
            rounds[old].unlink()
        return arrays

    def held(self) -> AbstractContextManager[None]:
        return preemption.held()

    def progress(self, label: str, total: int, unit: str, start: int = 0) -> AbstractContextManager[Progress]:
        return self.progress_bar(label, total, unit, start)
