"""Other people's implementations beside ours: a file a peer, which runs its functions unchanged."""

import importlib.util
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from peers import stand_ins


class Pair(NamedTuple):
    """A work of the peer's and the same of ours, as functions to time, which return their arrays."""

    work: str
    theirs: Callable[[], Any]
    ours: Callable[[], Any]
    their_units: float = 1.0  # how much of the work one call of theirs does
    our_units: float = 1.0
    note: str = ""


class Peer(NamedTuple):
    """Where a peer is found, and what it is timed at."""

    name: str  # its folder, in the folder of all peers
    repository: str
    commit: str  # that this was written for
    packages: tuple[str, ...]  # that it needs beside ours
    pairs: Callable[[Path, int], list[Pair]]  # of its folder and the number of rows

    def missing(self, folder: Path) -> str | None:
        """One line that says what is missing and where to get it; None where nothing is."""
        if not (folder / self.name).is_dir():
            return (
                f"{self.name}: not in {folder}; git clone https://github.com/{self.repository} there "
                f"(written for commit {self.commit})"
            )
        absent = [p for p in self.packages if importlib.util.find_spec(p) is None]
        return f"{self.name}: needs {' '.join(absent)}; pip install them" if absent else None


@contextmanager
def importing(folder: Path) -> Iterator[None]:
    """The peer's modules can be imported, and stand-ins of what they import but we never call."""
    environment = dict(os.environ)  # some set XLA's flags as they are imported
    stand_ins.install()
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        os.environ.clear()
        os.environ.update(environment)


def module(path: Path, name: str) -> ModuleType:
    """The file `path` as a module of that name, whatever package it lies in."""
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    sys.modules[name] = found
    spec.loader.exec_module(found)
    return found
