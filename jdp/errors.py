"""The one exception for mistakes that a user can make and mend."""

import math
from typing import Any, Literal, get_args, get_origin, get_type_hints


class UserError(Exception):
    """What was wrong, where, and what to do, in one line.

    Library code raises it; scripts in `experiments/` print the line and exit with status 2.
    """


class StorageError(UserError):
    """Something could not be written, for instance to a full disk.

    Writers that were interrupted may complain again while the interpreter shuts down, so a script
    prints the line and leaves at once.
    """


def check_seed(seed: int, name: str = "seed") -> None:
    """Raises `UserError` unless JAX tells `seed` from every other: its keys hold 32 bits of it."""
    if not 0 <= seed < 1 << 32:
        raise UserError(f"{name} is {seed}: it must lie from 0 to {(1 << 32) - 1}")


def check_choices(config: Any) -> None:
    """Raises `UserError` where a field that is annotated `Literal[...]` holds none of its values.

    For `__post_init__` of a dataclass: Python itself does not look.
    """
    for name, kind in get_type_hints(type(config)).items():
        value = getattr(config, name)
        if get_origin(kind) is Literal and value not in get_args(kind):
            choices = ", ".join(map(str, get_args(kind)))
            raise UserError(f"{type(config).__name__}.{name} is {value!r}: choose one of {choices}")


def check_settings(name: str, **settings: tuple[float, float, float]) -> None:
    """Raises `UserError` unless every setting, given as `(value, low, high)`, lies in `[low, high]`.

    `high` may be `math.inf`.
    """
    for setting, (value, low, high) in settings.items():
        if not low <= value <= high:
            limits = f"be at least {low}" if high == math.inf else f"lie between {low} and {high}"
            raise UserError(f"{name}.{setting} is {value}; it must {limits}")
