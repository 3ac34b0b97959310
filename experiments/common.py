"""What experiment scripts share: command line, progress bars, one clear line for a mistake."""

import difflib
import logging
import os
import signal
import sys
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, NoReturn, TextIO, TypeVar

import tyro
from tqdm import tqdm

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


def run_main(main: Callable[[], None]) -> None:
    """Runs a script: a user's mistake or a full disk ends in one line and exit status 2."""
    logging.getLogger("absl").setLevel(logging.CRITICAL)  # what orbax logs as an error it also raises
    # SIGTERM unwinds like Ctrl-C, so that bars and files are closed.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        main()
    except StorageError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        sys.stdout.flush()
        os._exit(2)
    except UserError as error:
        fail(str(error))
    except OSError as error:
        where = f" {error.filename}" if error.filename else ""
        fail(f"cannot read or write{where}: {error.strerror or error}; mend it and add --resume")
    except KeyboardInterrupt:
        print("\nstopped; the same command with --resume goes on from the last checkpoint", file=sys.stderr)
        sys.exit(130)


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
