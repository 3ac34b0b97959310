"""Paths that begin with ~, which no shell expands behind `=` or in quotes."""

import dataclasses
from pathlib import Path
from typing import Any

from jdp.errors import UserError


def expanded(value: Any) -> Any:
    """`value` with ~ expanded in its paths, those of nested settings too."""
    if isinstance(value, Path):
        return at_home(value)
    if isinstance(value, tuple) and not hasattr(value, "_fields"):
        return tuple(expanded(item) for item in value)
    if not dataclasses.is_dataclass(value) or isinstance(value, type):
        return value
    fields = {f.name: getattr(value, f.name) for f in dataclasses.fields(value) if f.init}
    changed = {name: new for name, old in fields.items() if (new := expanded(old)) is not old and new != old}
    return dataclasses.replace(value, **changed) if changed else value


def at_home(path: str | Path) -> Path:
    """`path` with ~ expanded.

    Raises:
        UserError: if this user has no home folder.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise UserError(f"{path}: this user has no home folder, write the path in full") from error
