"""The command line of every script: presets first, one clear line for a mistake, exit statuses."""

import contextlib
import dataclasses
import io
import logging
import os
import re
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import tyro
from paths import expanded

from jdp.devices import distributed
from jdp.errors import StorageError, UserError
from jdp.runs import Finished, preemption

C = TypeVar("C")


def first_words(**defaults: Any) -> Any:
    """The options of these names, read before the others, which depend on them."""
    fields = [(name, str | None if value is None else type(value), value) for name, value in defaults.items()]
    fields = [(n, tuple[str, ...] if kind is tuple else kind, v) for n, kind, v in fields]
    kind = dataclasses.make_dataclass("FirstWords", fields, frozen=True)
    return _parsed(lambda: tyro.cli(kind, args=arguments(), return_unknown_args=True, add_help=False)[0])


def parse(kind: type[C], default: C | None, description: str) -> C:
    """The whole command line; what it does not say is as in `default`."""
    if default is None:
        return _parsed(lambda: tyro.cli(kind, args=arguments(), description=description))
    return _parsed(lambda: tyro.cli(kind, args=arguments(), description=description, default=default))


def parse_preset(presets: Mapping[str, C], description: str) -> C:
    """The whole command line of a script whose defaults are those of `--preset`, else of this device."""
    name = first_words(preset=None).preset or usual_preset()
    if name not in presets:
        raise UserError(f"--preset {name}: choose one of {', '.join(presets)}")
    return parse(type(presets[name]), presets[name], description)


def usual_preset() -> str:
    """ "cpu", or "paper" on an accelerator."""
    import jax

    return "cpu" if jax.default_backend() == "cpu" else "paper"


def arguments() -> list[str]:
    """The command line, where a bare --resume means the newest unfinished run."""
    argv = sys.argv[1:]
    for i in reversed(range(len(argv))):
        if argv[i] == "--resume" and (i + 1 == len(argv) or argv[i + 1].startswith("--")):
            argv[i + 1 : i + 1] = ["latest"]
    return argv


def _parsed(read: Callable[[], C]) -> C:
    """What `read` gives; what tyro has against the command line, in one line."""
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            return expanded(read())
    except SystemExit as end:
        if not end.code:  # --help
            raise
        body = re.sub(r"╭[^\n]*╮", "", said.getvalue())  # the frame's title, which the body says again
        words = re.sub(r"[─━│╭╮╰╯\s]+", " ", body).strip()
        raise UserError(words or "the command line cannot be read: see --help") from None


def fail(line: str) -> NoReturn:
    """Ends the script with a line for the user and status 2."""
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
    except Finished as done:
        print(f"finished   {done}")
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
    except Exception as error:
        if (missing := missing_backend(error)) is not None:
            print(f"{speaker()}error: {missing}", file=sys.stderr, flush=True)
            distributed.leave(2)
        if not distributed.is_many():
            raise
        traceback.print_exc()  # here, for the others must not be waited for: they may hang without this one
        status = preemption.EXIT if preemption.asked() else 1
    if line is not None and (status == 2 or distributed.is_main()):
        print(f"{speaker()}{line}", file=sys.stderr)
    if status:
        # Threads of a chunk that was cut may still compute, and Python's end would crash them.
        distributed.leave(status, at_once=status in (130, preemption.EXIT))


def missing_backend(error: Exception) -> str | None:
    """What to do where JAX could not begin, for it was told to use devices that are not here; else None."""
    frames = traceback.extract_tb(error.__traceback__)
    if not frames or not frames[-1].filename.endswith("xla_bridge.py"):
        return None
    asked, said = os.environ.get("JAX_PLATFORMS"), str(error).strip().splitlines()
    if asked:
        return f"JAX finds no devices for JAX_PLATFORMS={asked}: unset it, or install what they need"
    return f"JAX finds no devices here ({said[0] if said else type(error).__name__})"


def join() -> None:
    """Joins this process to the others that the flags or the environment name, if there are any."""
    said = first_words(distributed=None, processes=None, process=None)
    for name in ("processes", "process"):
        text = getattr(said, name)
        if text is not None and not text.isdigit():
            raise UserError(f"--{name} {text}: give a whole number")
    distributed.start(
        said.distributed, *(None if n is None else int(n) for n in (said.processes, said.process))
    )
    if not distributed.is_main():
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 (until the process ends)


def speaker() -> str:
    """What begins a line of a process that is not the main one."""
    return "" if distributed.is_main() else f"process {distributed.number()}: "


def use_compilation_cache() -> None:
    """Keeps compiled programs between runs, in $JAX_COMPILATION_CACHE_DIR or ~/.cache/jdp.

    Not at all for a user without a home folder, or where that folder cannot be made.
    """
    import jax

    folder = os.environ.get("JAX_COMPILATION_CACHE_DIR")
    try:
        if not folder:
            folder = str(Path.home() / ".cache" / "jdp" / "xla")
            Path(folder).mkdir(parents=True, exist_ok=True)
    except (RuntimeError, OSError):
        return
    jax.config.update("jax_compilation_cache_dir", folder)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def table(rows: Sequence[Sequence[str]]) -> str:
    """Aligned columns; the first row is the head."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([lines[0], "-" * (sum(widths) + 2 * len(widths) - 2), *lines[1:]])


def given(part: str) -> set[str]:
    """Names of the settings of `part` that the command line gives: "steps" for --settings.steps."""
    words = [word.partition("=")[0].replace("-", "_") for word in sys.argv[1:] if word.startswith("--")]
    prefix = f"__{part}."
    return {word.removeprefix(prefix) for word in words if word.startswith(prefix)}
