"""What must hold for arrays that come from outside, before anything is built on them."""

import numpy as np

from jdp.errors import UserError
from jdp.types import AnyArray, Spec

ACTION_TOLERANCE = 1e-3  # of actions stored in another precision
OFFSET = 1e4  # a smaller one costs float32 less than 1e-3
RESOLUTION = 10.0  # a column's spread in steps of float32, below which its values would run together


def float_rows(values: np.ndarray, key: str, where: str) -> np.ndarray:
    """`[N, K]` float32, all finite.

    Raises:
        UserError: for another number of axes, a type that is no number, or NaN or infinity.
    """
    if values.ndim != 2 or values.dtype.kind not in "fiu" or not values.shape[1]:
        raise UserError(
            f"{where}: {key!r} is {values.dtype} {values.shape}; jdp reads flat, continuous {key} "
            "of shape (rows, channels)"
        )
    return _finite(values, key, where)


def float_column(values: np.ndarray, key: str, where: str) -> np.ndarray:
    """`[N]` float32, all finite, from `[N]` or `[N, 1]`; raises like `float_rows`."""
    return _finite(_column(values, key, where), key, where)


def flag_column(values: np.ndarray, key: str, where: str) -> np.ndarray:
    """`[N]` bool from `[N]` or `[N, 1]` of bools or numbers 0 and 1; raises like `float_rows`."""
    flags = _column(values, key, where)
    if flags.dtype.kind != "b" and not np.isin(flags, (0, 1)).all():
        raise UserError(f"{where}: {key!r} holds other values than 0 and 1")
    return flags.astype(bool)


def same_length(columns: dict[str, np.ndarray], where: str) -> None:
    """Raises `UserError` unless all arrays have the same number of rows, at least one."""
    lengths = {key: len(values) for key, values in columns.items()}
    if len(set(lengths.values())) > 1:
        found = ", ".join(f"{key} {n}" for key, n in lengths.items())
        raise UserError(f"{where}: the numbers of rows differ ({found}); is the file cut or mixed?")
    if not next(iter(lengths.values())):
        raise UserError(f"{where}: it holds no rows")


def scaled_actions(actions: np.ndarray, where: str) -> None:
    """Raises `UserError` if an action leaves [-1, 1]."""
    largest = float(np.abs(actions).max())
    if largest > 1.0 + ACTION_TOLERANCE:
        row = int(np.argmax(np.abs(actions).max(axis=1)))
        raise UserError(
            f"{where}: an action of {largest:.4g} at row {row} lies outside [-1, 1]; name the task with "
            "env_id (--env-id), whose action space says how they are scaled"
        )


def _column(values: np.ndarray, key: str, where: str) -> np.ndarray:
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.ndim != 1 or values.dtype.kind not in "fiub":
        raise UserError(f"{where}: {key!r} is {values.dtype} {values.shape}, not one number a row")
    return values


def _finite(values: np.ndarray, key: str, where: str) -> np.ndarray:
    with np.errstate(over="ignore"):
        result = values.astype(np.float32)
    _check_resolution(values, key, where)
    # A sum is one pass without a temporary; only a bad one is worth the search.
    if not np.isfinite(result.sum(dtype=np.float64)):
        bad = ~np.isfinite(result)
        row = int(np.flatnonzero(bad.reshape(len(bad), -1).any(axis=1))[0])
        raise UserError(
            f"{where}: {int(bad.sum())} values of {key!r} are NaN or infinite, the first in row {row}; "
            "repair or drop those episodes"
        )
    return result


def _check_resolution(values: np.ndarray, key: str, where: str) -> None:
    """Raises `UserError` where float32 rounds away what a column says, beside a large offset."""
    if values.dtype.itemsize <= 4 or values.dtype.kind not in "fiu" or len(values) < 2:
        return
    rows = values.reshape(len(values), -1)
    with np.errstate(all="ignore"):  # what is not finite is told elsewhere
        mean = rows.mean(axis=0, dtype=np.float64)
        spread = rows.std(axis=0, dtype=np.float64)  # before the cast: after it there may be none
    step = np.abs(mean) * float(np.finfo(np.float32).eps)
    constant = spread <= 4 * np.finfo(np.float64).eps * np.abs(mean)
    for i in np.flatnonzero((np.abs(mean) >= OFFSET) & ~constant & (spread < RESOLUTION * step)):
        raise UserError(
            f"{where}: channel {i} of {key!r} varies by {spread[i]:.2g} around {mean[i]:.6g}, and float32 "
            f"goes in steps of {step[i]:.2g} there: subtract the offset, in the file and in the task"
        )


def check_same_task(what: str, spec: Spec, task: Spec, mend: str = "give one of this task") -> None:
    """Whether `what`, of the task `spec`, sees, does and is told as many numbers as in `task`.

    Raises:
        UserError: if not; it ends with `mend`, what the user is to do.
    """
    ours, wanted = ((one.observation_dim, one.action_dim, len(one.goal)) for one in (spec, task))
    if ours != wanted:
        raise UserError(
            f"{what} has {ours[0]} observations, {ours[1]} actions and goals of {ours[2]}; "
            f"{task.env_id or 'the task'} has {wanted[0]}, {wanted[1]} and {wanted[2]}: {mend}"
        )


def check_fits(observation: AnyArray, action: AnyArray, spec: Spec, what: str) -> None:
    """Raises `UserError` where `[..., O]` and `[..., A]` are not of the task in `spec`; `what` is for it."""
    found = observation.shape[-1], action.shape[-1]
    if found != (spec.observation_dim, spec.action_dim):
        raise UserError(
            f"transitions have observations of {found[0]} and actions of {found[1]} numbers, but the "
            f"{what} was made for {spec.observation_dim} and {spec.action_dim}: make it with the spec of "
            "this dataset"
        )
