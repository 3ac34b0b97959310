"""What is done after each chunk of a phase: a check of its loss, the journal's records, and an early stop."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from jdp.errors import UserError
from jdp.learning.optimiser import copied
from jdp.loops.journal import Journal, Progress
from jdp.types import Logged, PyTree

StopWhen = Callable[[Any, Logged], str | None]
# stop_when(state after a chunk, its metrics; of seeds [S, ...]) -> why training stops and undoes it, or None


class Stopped(Exception):
    """Unwinds training that a `StopWhen` ended."""

    def __init__(self, state: PyTree):
        super().__init__()
        self.state = state  # of the last chunk that was good


class Chunks:
    """After each chunk of a phase its loss is checked, and the journal is told, with the seconds it took."""

    def __init__(
        self,
        journal: Journal,
        phase: str,
        last: int,
        label: str | None = None,
        stop_when: StopWhen | None = None,
    ):
        self.journal, self.phase, self.last, self.stop_when = journal, phase, last, stop_when
        self.label = label or f"train {phase}"  # of its progress
        self.bar: Progress | None = None
        self._good: tuple[int, PyTree] | None = None
        self.restart()

    def restart(self) -> None:
        """What was done since the last chunk is no training."""
        self._begun = time.monotonic()

    def keep(self, step: int, state: PyTree) -> None:
        """Training that stops goes back to a copy of this state; none is made where nothing stops it."""
        if self.stop_when is not None:
            self._good = step, copied(state)

    def __call__(self, step: int, state: PyTree, metrics: Logged) -> None:
        seconds = time.monotonic() - self._begun
        told = {**metrics, "seconds": seconds}
        self._stop(step, state, told)
        loss = np.asarray(next(metrics[k] for k in ("loss", "critic_loss", "bc_loss") if k in metrics))
        if not np.isfinite(loss).all():
            raise UserError(
                f"{self.phase}: the loss is not finite at step {step}; lower the learning rate, start again"
            )
        self.restart()
        if self.bar is not None:
            self.bar.at(step, loss=float(loss.mean()))
        self.journal.after(self.phase, step, self.last, state, told)
        self.keep(step, state)

    def _stop(self, step: int, state: PyTree, told: Logged) -> None:
        """Saves what was kept and raises `Stopped`, where there is a reason to."""
        reason = None if self.stop_when is None else self.stop_when(state, told)
        if reason is None or self._good is None:
            return
        before, good = self._good
        self.journal.log(self.phase, step, told)
        self.journal.save(self.phase, before, good)
        self.journal.note(f"{self.phase} stopped at update {step:,}, back to {before:,}: {reason}")
        raise Stopped(good)
