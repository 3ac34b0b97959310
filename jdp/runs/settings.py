"""Configurations as frozen dataclasses, out of the JSON in which a run keeps them."""

import dataclasses
import types
import typing
from collections.abc import Mapping
from typing import TypeVar

from jdp.errors import UserError
from jdp.types import Json, Spec

T = TypeVar("T")


def from_dict(kind: type[T], values: Mapping[str, object], ignored: list[str] | None = None) -> T:
    """A dataclass from its JSON form: lists become tuples; what is missing has its default.

    A class attribute `RENAMED` tells what settings of older runs are called now.

    Args:
        ignored: gets the names of settings that this version does not know ("model.width"); they are left
            out.

    Raises:
        UserError: if the values are none that the dataclass takes.
    """
    hints = typing.get_type_hints(kind)
    names = {field.name for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    known: Json = {}
    renamed: Mapping[str, str] = getattr(kind, "RENAMED", {})
    for given, value in values.items():
        name = renamed.get(given, given)
        if name not in names:
            if ignored is not None:
                ignored.append(name)
            continue
        inner = _dataclass_in(hints[name])
        if isinstance(value, Mapping) and inner is not None:
            below: list[str] = []
            value = from_dict(inner, value, below)
            if ignored is not None:
                ignored += [f"{name}.{unknown}" for unknown in below]
        known[name] = _tuples(value)
    try:
        return kind(**known)
    except TypeError as error:
        raise UserError(f"these are no settings of {kind.__name__} ({error})") from error


def task_of(written: Json) -> Spec:
    """The task that a run of this config.json is scored on; `spec` may be of observations with the goal."""
    return from_dict(Spec, written.get("task_spec") or written["spec"])


def _dataclass_in(hint: object) -> type | None:
    """The dataclass of an annotation, also of `X | None`."""
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return hint
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return next((found for arg in typing.get_args(hint) if (found := _dataclass_in(arg))), None)
    return None


def _tuples(value: object) -> object:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def flat(config: Mapping[str, object], name: str = "") -> Json:
    """A nested configuration by dotted names."""
    found: Json = {}
    for key, value in config.items():
        path = f"{name}.{key}".strip(".")
        found |= flat(value, path) if isinstance(value, Mapping) else {path: value}
    return found
