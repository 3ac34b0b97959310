"""The command line of every script: presets first, one clear line for a mistake, exit statuses."""

import argparse
import contextlib
import io
import logging
import os
import re
import sys
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

import jax
import tyro
from options import changed

from jdp.data.sources import at_home
from jdp.devices import distributed, use_compilation_cache
from jdp.errors import StorageError, UserError
from jdp.runs import Finished, preemption

C = TypeVar("C")
_checking = False  # whether command lines are only checked


class Checked(Exception):
    """The command line is right, and nothing else was asked for."""


def first_words(**defaults: str | tuple[str, ...] | None) -> argparse.Namespace:
    """The options of these names, read before the others, which depend on them."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    for name, value in defaults.items():
        parser.add_argument(f"--{name}", default=value, nargs="*" if isinstance(value, tuple) else None)
    try:
        return parser.parse_known_args(arguments())[0]
    except argparse.ArgumentError as error:
        raise UserError(str(error)) from error


def parse(kind: type[C], default: C | None, description: str) -> C:
    """The whole command line, with ~ expanded in its paths; what it does not say is as in `default`.

    What tyro has against it becomes one line.
    """
    said, known = io.StringIO(), tyro.MISSING_NONPROP if default is None else default
    try:
        with contextlib.redirect_stderr(said):
            found = tyro.cli(kind, args=arguments(), description=description, default=known)
    except SystemExit as end:
        if not end.code:  # --help
            raise
        body = re.sub(r"╭[^\n]*╮", "", said.getvalue())  # the frame's title, which the body says again
        words = re.sub(r"[─━│╭╮╰╯\s]+", " ", body).strip()
        raise UserError(words or "the command line cannot be read: see --help") from None
    found = changed(found, lambda _, value: at_home(value) if isinstance(value, Path) else value)
    if _checking:
        raise Checked
    return found


def check(main: Callable[[], None], argv: list[str]) -> None:
    """Raises `UserError` where the script whose `main` this is does not take the command line `argv`."""
    global _checking
    before, sys.argv, _checking = sys.argv, argv, True
    try:
        main()
    except Checked:
        return
    finally:
        sys.argv, _checking = before, False


def parse_preset(presets: Mapping[str, C], description: str) -> C:
    """The whole command line of a script whose defaults are those of `--preset`, else of this device."""
    name = first_words(preset=None).preset or usual_preset()
    if name not in presets:
        raise UserError(f"--preset {name}: choose one of {', '.join(presets)}")
    return parse(type(presets[name]), presets[name], description)


def usual_preset() -> str:
    """ "cpu", or "paper" on an accelerator."""
    return "cpu" if jax.default_backend() == "cpu" else "paper"


def arguments() -> list[str]:
    """The command line, where a bare --resume means the newest unfinished run."""
    argv = sys.argv[1:]
    for i in reversed(range(len(argv))):
        if argv[i] == "--resume" and (i + 1 == len(argv) or argv[i + 1].startswith("--")):
            argv[i + 1 : i + 1] = ["latest"]
    return argv


def given(part: str) -> set[str]:
    """Names of the settings of `part` that the command line gives: "steps" for --settings.steps."""
    words = [word.partition("=")[0].replace("-", "_") for word in sys.argv[1:] if word.startswith("--")]
    prefix = f"__{part}."
    return {word.removeprefix(prefix) for word in words if word.startswith(prefix)}


def run_main(main: Callable[[], None], *, spans_processes: bool = False) -> None:
    """Runs a script and ends it: status 0; 2 with one line for a user's mistake or a full disk; 130 after
    Ctrl-C; 75 after SIGTERM, when the same command with --resume auto goes on.

    A script that `spans_processes` trains, and keeps what it compiles; it may be one of many processes (see
    `jdp.devices.distributed`), of which process 0 speaks and the others tell their errors alone.
    """
    logging.getLogger("absl").setLevel(logging.CRITICAL)  # what orbax logs as an error it also raises
    preemption.install()
    try:
        if spans_processes:
            join()
            use_compilation_cache()
        main()
    except Finished as done:
        print(f"finished   {done}")
    except (Exception, KeyboardInterrupt, preemption.Preempted) as error:
        status, line = explained(error)
        if line is None:
            if not distributed.is_many():
                raise
            traceback.print_exc()  # here: Python's end would wait for the others, and they may hang
        elif line and (status == 2 or distributed.is_main()):
            speaker = "" if distributed.is_main() else f"process {distributed.number()}: "
            print(f"{speaker}{line}", file=sys.stderr, flush=True)
        # Threads of a chunk that was cut may still compute, and Python's end would crash them; writers that
        # failed would complain again there.
        cut = status in (130, preemption.EXIT) or isinstance(error, StorageError | BrokenPipeError)
        distributed.leave(status, at_once=cut)


def explained(error: BaseException) -> tuple[int, str | None]:
    """Exit status and line for the user of what ended a script; None for a fault in the code."""
    match error:
        case UserError():
            return 2, f"error: {error}"
        case BrokenPipeError():  # the reader of what this prints has gone, as `head` does
            return 2, ""
        case OSError():
            where = f" {error.filename}" if error.filename else ""
            reason = error.strerror or error
            return 2, f"error: cannot read or write{where}: {reason}; mend it and add --resume"
        case KeyboardInterrupt():
            again = "the same command with --resume auto goes on from the last checkpoint"
            return 130, f"\nstopped; {again}"
        case preemption.Preempted():
            return preemption.EXIT, "stopped by SIGTERM; the same command with --resume auto goes on"
    frames = traceback.extract_tb(error.__traceback__)
    if not frames or not frames[-1].filename.endswith("xla_bridge.py"):
        return preemption.EXIT if preemption.asked() else 1, None
    if asked := os.environ.get("JAX_PLATFORMS"):
        return (
            2,
            f"error: JAX finds no devices for JAX_PLATFORMS={asked}: unset it, or install what they need",
        )
    return (
        2,
        f"error: JAX finds no devices here ({(str(error).strip() or type(error).__name__).splitlines()[0]})",
    )


def join() -> None:
    """Joins this process to the others that the flags or the environment name, if there are any."""
    said = first_words(distributed=None, processes=None, process=None)
    for name in ("processes", "process"):
        text = getattr(said, name)
        if text is not None and not text.isdigit():
            raise UserError(f"--{name} {text}: give a whole number")
    numbers = (None if text is None else int(text) for text in (said.processes, said.process))
    distributed.start(said.distributed, *numbers)
    if not distributed.is_main():
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 (until the process ends)
