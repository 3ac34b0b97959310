"""Progress on the terminal."""

import sys
from typing import TextIO

from tqdm import tqdm


class Bar(tqdm):
    """A progress bar that takes absolute positions."""

    def __init__(self, label: str, total: int, unit: str, start: int = 0, *, file: TextIO | None = None):
        options = {"dynamic_ncols": True, "mininterval": 0.5, "file": file or sys.stdout}
        super().__init__(total=total, initial=start, desc=f"{label:<22}", unit=unit, **options)

    def at(self, done: int, **notes: float | int | str) -> None:
        """So many are done; `notes` stand beside it."""
        if notes:
            shown = {k: f"{v:.3g}" if isinstance(v, float) else v for k, v in notes.items()}
            self.set_postfix(shown, refresh=False)
        self.update(done - self.n)


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
