"""Asks the scripts what they make of the commands of a sweep, in a process of its own, without running them.

Reads {name: [script, [option, ...], [word, ...]]} from standard input and prints {"device": {...}, "cells":
{name: {"config": {...}} or {"error": "one line"}}}. The sweep itself must not do this: the scripts ask JAX
for its devices, and a sweep that held the accelerator would leave none to its cells.
"""

import contextlib
import dataclasses
import importlib
import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import common
from sweep_grid import EXPERIMENTS, Cell, flag, nearest

from jdp.errors import UserError


class Parsed(Exception):
    """Ends a script once its command line has been read."""

    def __init__(self, config: Any):
        self.config = config


def names(config: Any, prefix: str = "") -> Iterator[str]:
    """The options of a script, as a grid names them."""
    for item in dataclasses.fields(config):
        value = getattr(config, item.name)
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            yield from names(value, f"{prefix}{item.name}.")
        else:
            yield prefix + item.name


def stop_after(parse: Callable[..., Any], options: list[str]) -> Callable[..., Any]:
    """`common.parse`, which first looks for unknown options, and lets nothing happen afterwards."""

    def parsed(presets: Mapping[str, Any], default: Callable[[], str], description: str, kind: Any = None):
        known = list(names(next(iter(presets.values()))))
        for name in options:
            if name not in known:
                raise UserError(f"unknown option {name}: {nearest(name, known).strip()}")
        raise Parsed(parse(presets, default, description, kind))

    return parsed


def plain(value: Any) -> Any:
    return dataclasses.asdict(value) if dataclasses.is_dataclass(value) else str(value)  # type: ignore[arg-type]


def ask(script: Path, options: list[str], words: list[str]) -> dict[str, Any]:
    """The configuration that a script of this folder makes of `words`, or what it says against them."""
    parse, printed = common.parse, io.StringIO()
    common.parse = stop_after(parse, options)
    sys.argv = [str(script), *words]
    try:
        module = importlib.import_module(script.stem)
        if getattr(module, "parse", None) is None:
            return {"error": f"{script.name} trains nothing: it cannot be swept"}
        module.parse = common.parse  # type: ignore[attr-defined]  # imported before, with another list of options
        with contextlib.redirect_stderr(printed), contextlib.redirect_stdout(io.StringIO()):
            module.main()
        return {"error": f"{script.name} did not read its command line"}
    except Parsed as found:
        return {"config": found.config}
    except UserError as error:
        return {"error": str(error)}
    except SystemExit:
        return {"error": one_line(printed.getvalue())}
    finally:
        common.parse = parse


def one_line(text: str) -> str:
    """What tyro printed in a box, without its title and the help that follows, as one line."""
    lines = [re.sub(r"^[│╭╰|+]|[│╮╯|+]$", "", line.strip()).strip(" ─-") for line in text.splitlines()]
    lines = [line for line in lines if line]
    end = next((i for i, line in enumerate(lines) if "helptext" in line), len(lines))
    return " ".join(lines[min(1, end - 1) : end]).removeprefix("error: ") or "the script refuses it silently"


def main() -> None:
    asked, found = json.load(sys.stdin), {}
    for name, (script, options, words) in asked.items():
        found[name] = ask(Path(script), options, words)
    import jax

    devices = jax.devices()
    device = {"platform": devices[0].platform, "kind": devices[0].device_kind, "count": len(devices)}
    json.dump({"device": device, "cells": found}, sys.stdout, default=plain)


def probe(cells: list[Cell]) -> tuple[dict[str, Any], dict[str, Any]]:
    """`(device, configurations by cell name)`, without cells of scripts from elsewhere.

    Raises:
        UserError: for the first cell whose options its script refuses.
    """
    asked, same = {}, {}
    for cell in (cell for cell in cells if cell.script.parent == EXPERIMENTS):
        given = [(name, value) for name, value in cell.options if name not in ("seed", "seeds")]
        same.setdefault((cell.script, str(given)), []).append(cell)
    for (script, _), alike in same.items():  # seeds change nothing that could be refused
        words = [word for name, value in alike[0].options for word in flag(name, value)]
        asked[alike[0].name] = (str(script), [name for name, _ in alike[0].options], words)
    if not asked and os.environ.get("JAX_PLATFORMS") == "cpu":
        return {"platform": "cpu", "kind": "cpu", "count": 1}, {}  # nothing to ask
    done = subprocess.run(
        [sys.executable, str(Path(__file__).resolve())],
        input=json.dumps(asked),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise UserError(f"cannot ask the scripts for their options: {done.stderr.strip().splitlines()[-1]}")
    found, configs = json.loads(done.stdout), {}
    for alike in same.values():
        answer = found["cells"][alike[0].name]
        if "error" in answer:
            raise UserError(f"cell {alike[0].name}: {answer['error']}")
        for cell in alike:
            configs[cell.name] = answer["config"] | {k: v for k, v in cell.options if k in ("seed", "seeds")}
    return found["device"], configs


if __name__ == "__main__":
    main()
