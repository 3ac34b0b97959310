"""Progress on the terminal."""

import sys
from typing import TextIO

from tqdm import tqdm


class Bar:
    """A progress bar that takes absolute positions."""

    def __init__(self, label: str, total: int, unit: str, start: int = 0, *, file: TextIO | None = None):
        self._bar = tqdm(
            total=total,
            initial=start,
            desc=f"{label:<22}",
            unit=unit,
            dynamic_ncols=True,
            mininterval=0.5,
            file=file or sys.stdout,
        )

    def at(self, done: int, **notes: float | int | str) -> None:
        """So many are done; `notes` stand beside it."""
        if notes:
            shown = {k: f"{v:.3g}" if isinstance(v, float) else v for k, v in notes.items()}
            self._bar.set_postfix(shown, refresh=False)
        self._bar.update(done - self._bar.n)

    def close(self) -> None:
        """Nothing more will be done."""
        self._bar.close()

    def __enter__(self) -> "Bar":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def show_download(done: int, total: int | None, *, file: TextIO | None = None) -> None:
    """Progress of a download on one line of `file` (standard output)."""
    size = "" if total is None else f" of {total / 1e6:.0f}"
    end = "\n" if done == total else ""
    print(f"\rdownloading {done / 1e6:.0f}{size} MB", end=end, file=file, flush=True)


class MakingBar:
    """A bar of the rows that a recipe makes; it appears with the first."""

    def __init__(self, file: TextIO | None = None):
        self._file = file
        self._bar: Bar | None = None

    def __call__(self, done: int, total: int) -> None:
        """So many rows of all are made."""
        self._bar = self._bar or Bar("making the dataset", total, "row", file=self._file)
        self._bar.at(done)
        if done == total:
            self._bar.close()
            self._bar = None
