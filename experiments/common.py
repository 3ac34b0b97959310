"""What experiment scripts share: command line, progress bars, one clear line for a mistake."""

import difflib
import logging
import os
import sys
import traceback
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, NoReturn, TextIO, TypeVar

import preemption
import tyro
from tqdm import tqdm

from jdp.devices import distributed
from jdp.errors import StorageError, UserError

C = TypeVar("C")


def option(name: str) -> str | None:
    """The value of `--name` on the command line, before it is parsed; None where it is not there."""
    argv, value = sys.argv[1:], None
    for i, word in enumerate(argv):
        word = word.replace("_", "-") if word.startswith("--") and "=" not in word else word
        if word == name and i + 1 < len(argv):
            value = argv[i + 1]
        elif word.startswith(f"{name}="):
            value = word.partition("=")[2]
    return value


def choose(name: str, options: Collection[str], default: str) -> str:
    """The value of `--name`, one of `options`, needed before the rest can be parsed."""
    value = option(name) or default
    if value not in options:
        near = difflib.get_close_matches(value, list(options), n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        fail(f"{name} {value}: {hint}choose one of {', '.join(options)}")
    return value


def parse(presets: Mapping[str, C], default: Callable[[], str], description: str, kind: Any = None) -> C:
    """Reads the command line; `--preset` chooses the defaults, and any other flag beats it.

    `kind` is the type to parse, where it is not that of the presets (a generic one with its argument).
    """
    argv = sys.argv[1:]
    for i, word in enumerate(argv):
        # A bare --resume means the newest unfinished run.
        if word == "--resume" and (i + 1 == len(argv) or argv[i + 1].startswith("--")):
            argv = [*argv[: i + 1], "latest", *argv[i + 1 :]]
    name = option("--preset")
    base = presets.get(name or default())
    if base is None:
        fail(f"unknown preset {name!r}: choose one of {', '.join(presets)}")
    return tyro.cli(kind or type(base), default=base, args=argv, description=description)


def fail(line: str) -> NoReturn:
    print(f"error: {line}", file=sys.stderr)
    sys.exit(2)


def run_main(main: Callable[[], None], *, spans_processes: bool = False) -> None:
    """Runs a script and ends it: status 0; 2 with one line for a user's mistake or a full disk; 130 after
    Ctrl-C; 75 after SIGTERM, when the same command with --resume auto goes on.

    With `spans_processes` the script may be one of many processes (see `jdp.devices.distributed`), of which
    process 0 speaks; the others tell their errors alone.
    """
    logging.getLogger("absl").setLevel(logging.CRITICAL)  # what orbax logs as an error it also raises
    preemption.install()
    status, line = 0, None
    try:
        if spans_processes:
            join()
        main()
    except StorageError as error:
        print(f"{speaker()}error: {error}", file=sys.stderr, flush=True)
        distributed.leave(2, at_once=True)
    except UserError as error:
        status, line = 2, f"error: {error}"
    except BrokenPipeError:  # the reader of what this prints has gone, as `head` does
        distributed.leave(2, at_once=True)
    except OSError as error:
        where = f" {error.filename}" if error.filename else ""
        status = 2
        line = f"error: cannot read or write{where}: {error.strerror or error}; mend it and add --resume"
    except KeyboardInterrupt:
        status, line = 130, "\nstopped; the same command with --resume auto goes on from the last checkpoint"
    except preemption.Preempted:
        status, line = preemption.EXIT, "stopped by SIGTERM; the same command with --resume auto goes on"
    except Exception:
        if not distributed.is_many():
            raise
        traceback.print_exc()  # here, for the others must not be waited for: they may hang without this one
        status = preemption.EXIT if preemption.asked() else 1
    if line is not None and (status == 2 or distributed.is_main()):
        print(f"{speaker()}{line}", file=sys.stderr)
    if status:
        # Threads of a chunk that was cut may still compute, and Python's end would crash them.
        distributed.leave(status, at_once=status in (130, preemption.EXIT))


def join() -> None:
    """Joins this process to the others that the flags or the environment name, if there are any."""

    def number(name: str) -> int | None:
        text = option(name)
        if text is not None and not text.isdigit():
            raise UserError(f"{name} {text}: give a whole number")
        return None if text is None else int(text)

    distributed.start(option("--distributed"), number("--processes"), number("--process"))
    if not distributed.is_main():
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 (until the process ends)


def speaker() -> str:
    """What begins a line of a process that is not the main one."""
    return "" if distributed.is_main() else f"process {distributed.number()}: "


def use_compilation_cache() -> None:
    """Keeps compiled programs between runs, in $JAX_COMPILATION_CACHE_DIR or ~/.cache/jdp."""
    import jax

    folder = os.environ.get("JAX_COMPILATION_CACHE_DIR") or str(Path.home() / ".cache" / "jdp" / "xla")
    jax.config.update("jax_compilation_cache_dir", folder)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


class Bar:
    """A progress bar that takes absolute positions."""

    def __init__(self, label: str, total: int, unit: str, start: int = 0):
        self._bar = tqdm(
            total=total,
            initial=start,
            desc=f"{label:<22}",
            unit=unit,
            dynamic_ncols=True,
            mininterval=0.5,
            file=sys.stdout,
        )

    def at(self, done: int, **notes: Any) -> None:
        if notes:
            shown = {k: f"{v:.3g}" if isinstance(v, float) else v for k, v in notes.items()}
            self._bar.set_postfix(shown, refresh=False)
        self._bar.update(done - self._bar.n)

    def __enter__(self) -> "Bar":
        return self

    def __exit__(self, *_: Any) -> None:
        self._bar.close()


def show_download(done: int, total: int | None, *, file: TextIO | None = None) -> None:
    """Progress of a download on one line of `file` (standard output)."""
    size = "" if total is None else f" of {total / 1e6:.0f}"
    end = "\n" if done == total else ""
    print(f"\rdownloading {done / 1e6:.0f}{size} MB", end=end, file=file, flush=True)


def table(rows: list[list[str]]) -> str:
    """Aligned columns; the first row is the head."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([lines[0], "-" * (sum(widths) + 2 * len(widths) - 2), *lines[1:]])
