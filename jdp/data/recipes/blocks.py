"""Episodes that are made apart: in blocks that survive a kill, over processes that change no byte.

Every episode is a function of the seed and of its own number alone. A block of them is a file in a folder
beside the dataset's; the blocks that are there are not made again, and all of them together are the dataset.
"""

import fcntl
import json
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jdp.data.ogbench import FACTS
from jdp.data.write import write_npz
from jdp.errors import UserError

Facts = Mapping[str, str | int | float]
Columns = Mapping[str, np.ndarray]
MakeEpisode = Callable[[int, int], Columns]  # (seed, number) -> columns [episode, ...], always the same
Opened = Callable[[], MakeEpisode]  # makes the simulator; it goes to other processes, so it must be picklable
_BLOCK = 5_000  # rows, about


class Plan(NamedTuple):
    """Which episodes are made: numbers `first` to `first + count - 1`, of `rows` rows each."""

    opened: Opened
    seed: int
    first: int
    count: int
    rows: int

    @property
    def blocks(self) -> list[range]:
        """The numbers of episodes, block by block."""
        size = max(1, _BLOCK // self.rows)
        stop = self.first + self.count
        return [range(n, min(n + size, stop)) for n in range(self.first, stop, size)]


def write(
    path: Path,
    plan: Plan,
    facts: Facts,
    *,
    processes: int = 1,
    progress: Callable[[int], None] | None = None,
) -> None:
    """Writes the npz file at `path`: the columns `[count * rows, ...]` of all episodes, and `facts`.

    Blocks lie in the folder `<path>.blocks` until the file is there, and those of an earlier try are used.
    Where another process makes the same file, its end is waited for.

    Args:
        facts: written down as JSON under the key `FACTS`, where OGBench's own files have nothing.
        progress: called with the number of rows so far.

    Raises:
        OSError: if something cannot be written.
        UserError: if one of several processes was ended, a block is broken, or a package is missing.
    """
    folder = path.with_name(f"{path.name}.blocks")
    with _held(folder, plan, progress):
        if not path.exists():  # the one that was waited for may have made it
            columns = _made(folder, plan, processes, progress)
            write_npz(path, {**columns, FACTS: np.array(json.dumps(dict(facts)))})
        shutil.rmtree(folder, ignore_errors=True)


def _made(
    folder: Path, plan: Plan, processes: int, progress: Callable[[int], None] | None
) -> dict[str, np.ndarray]:
    files = [folder / f"{block.start:07d}-{block.stop:07d}.npz" for block in plan.blocks]
    work = [(block, file) for block, file in zip(plan.blocks, files, strict=True) if not file.exists()]
    done = _rows(folder, plan)
    if progress is not None and done:
        progress(done)
    for rows in _one_after_another(plan, work) if processes == 1 else _side_by_side(plan, work, processes):
        done += rows
        if progress is not None:
            progress(done)
    return _together(plan, files)


@contextmanager
def _held(folder: Path, plan: Plan, progress: Callable[[int], None] | None) -> Iterator[None]:
    """Within it no other process works in `folder`."""
    folder.mkdir(exist_ok=True)
    with (folder / "lock").open("w") as lock:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if progress is not None:
                    progress(_rows(folder, plan))
                time.sleep(0.5)
        yield


def _rows(folder: Path, plan: Plan) -> int:
    """Rows of the blocks that are there."""
    spans = [file.stem.split("-") for file in folder.glob("*-*.npz")]
    return plan.rows * sum(int(stop) - int(start) for start, stop in spans)


Work = list[tuple[range, Path]]


def _one_after_another(plan: Plan, work: Work) -> Iterator[int]:
    """The number of rows of each block that was made now."""
    if not work:
        return
    episode = plan.opened()
    for block, file in work:
        made = []
        for number in block:
            made.append(episode(plan.seed, number))
            yield plan.rows
        write_npz(file, {key: np.concatenate([columns[key] for columns in made]) for key in made[0]})


def _side_by_side(plan: Plan, work: Work, processes: int) -> Iterator[int]:
    context = get_context("spawn")  # a fork of a process with JAX's threads may hang
    workers, ends = [], []
    try:
        for i in range(min(processes, len(work))):
            ours, theirs = context.Pipe(duplex=False)
            worker = context.Process(target=_worker, args=(theirs, plan, work[i::processes]), daemon=True)
            worker.start()
            theirs.close()
            workers.append(worker)
            ends.append(ours)
        while ends:
            for end in wait(ends):
                assert isinstance(end, Connection)
                try:
                    said = end.recv()
                except EOFError:
                    said = UserError("a process that makes episodes was ended; the same command goes on")
                if isinstance(said, BaseException):
                    raise said
                if said:
                    yield said
                else:  # it has made its share
                    ends.remove(end)
    finally:
        for worker in workers:
            worker.terminate()
            worker.join()


def _worker(end: Connection, plan: Plan, work: Work) -> None:
    """Tells rows as they are made, 0 when all are, or the error that ended it; ends when nobody listens."""
    with suppress(KeyboardInterrupt, BrokenPipeError):
        try:
            for rows in _one_after_another(plan, work):
                end.send(rows)
            end.send(0)
        except BrokenPipeError:
            raise
        except (OSError, UserError) as error:
            end.send(error)


def _together(plan: Plan, files: list[Path]) -> dict[str, np.ndarray]:
    """All rows of all blocks, with the memory for one of each."""
    columns: dict[str, np.ndarray] = {}
    for block, file in zip(plan.blocks, files, strict=True):
        start = (block.start - plan.first) * plan.rows
        try:
            with np.load(file, allow_pickle=False) as found:
                for key in found:
                    values = found[key]
                    if key not in columns:
                        columns[key] = np.empty((plan.count * plan.rows, *values.shape[1:]), values.dtype)
                    columns[key][start : start + len(block) * plan.rows] = values
        except (ValueError, EOFError, OSError) as error:
            raise UserError(f"{file} is broken ({error}): delete it, and it is made again") from error
    return columns
