"""Formulas of signal temporal logic, and how well a plan keeps them (pSTL diffusion, arXiv 2503.02924).

Predicates are in `jdp.diffusion.guidance.predicates`; `jdp.diffusion.guidance.logic` has the words of both.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial, reduce
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.tree_util import register_dataclass

from jdp.errors import UserError

Signal = Callable[[Array, Array], Array]  # (observation [B, T, O], action [B, T, A]) -> [B, T]
LEAST, MOST = -1, 1  # what is sought of signals


class Seen(NamedTuple):
    """What a formula judges, and how."""

    observation: Array  # [B, T, O]
    action: Array  # [B, T', A]; T' = 0 where plans hold states alone
    tau: Array | float | None  # of the smooth robustness; None: the exact one
    stride: int  # steps from one row to the next


class Formula:
    """A formula of signal temporal logic: `a & b`, `a | b`, `~a`, and the functions of this file."""

    def signal(self, seen: Seen) -> Array:
        """`[B, T]`, the robustness of what begins at each row."""
        raise NotImplementedError

    def slack(self, rows: int, stride: int) -> float:
        """`tau |smooth - exact|` is at most this."""
        raise NotImplementedError

    def __and__(self, other: "Formula") -> "Formula":
        return Many(_flat(self, LEAST) + _flat(_formula(other), LEAST), LEAST)

    def __or__(self, other: "Formula") -> "Formula":
        return Many(_flat(self, MOST) + _flat(_formula(other), MOST), MOST)

    def __invert__(self) -> "Formula":
        return self.part if isinstance(self, Not) else Not(self)


@partial(register_dataclass, data_fields=["numbers"], meta_fields=["function"])
@dataclass(frozen=True)
class Predicate(Formula):
    """`function(observation, action, *numbers) -> [B, T]`, a margin that is above 0 where it is true."""

    function: Callable[..., Array]
    numbers: tuple[Any, ...] = ()

    def signal(self, seen: Seen) -> Array:
        found = self.function(seen.observation, seen.action, *self.numbers)
        batch = seen.observation.shape[0]
        if found.ndim != 2 or found.shape[0] != batch:
            name = getattr(self.function, "__name__", "a predicate")
            raise UserError(
                f"{name} of {batch} plans has the shape {found.shape}: give a margin for every row, [B, T]"
            )
        if not found.shape[1]:
            raise UserError("the rule judges actions, and what it is shown holds states alone")
        return found

    def slack(self, rows: int, stride: int) -> float:
        return 0.0


@partial(register_dataclass, data_fields=["part"], meta_fields=[])
@dataclass(frozen=True)
class Not(Formula):
    """True where `part` is not."""

    part: Formula

    def signal(self, seen: Seen) -> Array:
        return -self.part.signal(seen)

    def slack(self, rows: int, stride: int) -> float:
        return self.part.slack(rows, stride)


@partial(register_dataclass, data_fields=["parts"], meta_fields=["sought"])
@dataclass(frozen=True)
class Many(Formula):
    """All of `parts` are true (`LEAST`), or any (`MOST`)."""

    parts: tuple[Formula, ...]
    sought: int

    def signal(self, seen: Seen) -> Array:
        return reduce(partial(_joined, sought=self.sought, tau=seen.tau), _aligned(self.parts, seen))

    def slack(self, rows: int, stride: int) -> float:
        return max(part.slack(rows, stride) for part in self.parts) + math.log(len(self.parts))


@partial(register_dataclass, data_fields=["part"], meta_fields=["begin", "end", "sought"])
@dataclass(frozen=True)
class Throughout(Formula):
    """`part` is true at all rows of a window (`LEAST`), or at any (`MOST`)."""

    part: Formula
    begin: int
    end: int | None
    sought: int

    def signal(self, seen: Seen) -> Array:
        found = self.part.signal(seen)
        begin, end = _window(self.begin, self.end, found.shape[1], seen.stride)
        return _later(_over(found, end - begin + 1, self.sought, seen.tau), begin)

    def slack(self, rows: int, stride: int) -> float:
        begin, end = _window(self.begin, self.end, rows, stride)
        return self.part.slack(rows, stride) + math.log(end - begin + 1)


@partial(register_dataclass, data_fields=["left", "right"], meta_fields=["begin", "end"])
@dataclass(frozen=True)
class Until(Formula):
    """`right` is true at a row of a window, and `left` at all rows before it."""

    left: Formula
    right: Formula
    begin: int
    end: int | None

    def signal(self, seen: Seen) -> Array:
        left, right = _aligned((self.left, self.right), seen)
        begin, end = _window(self.begin, self.end, max(left.shape[1], right.shape[1]), seen.stride)
        least, most = (partial(_joined, sought=sought, tau=seen.tau) for sought in (LEAST, MOST))
        best = _later(right, begin)
        if begin:
            best = least(best, _over(left, begin, LEAST, seen.tau))
        if end == begin:
            return best

        def later(carry: tuple[Array, ...], _: None) -> tuple[tuple[Array, ...], None]:
            left, right, held, best = carry
            best = most(best, least(right, held))
            return (_later(left, 1), _later(right, 1), least(held, left), best), None

        held = _over(left, begin + 1, LEAST, seen.tau)
        first = (_later(left, begin + 1), _later(right, begin + 1), held, best)
        return jax.lax.scan(later, first, None, length=end - begin)[0][3]

    def slack(self, rows: int, stride: int) -> float:
        parts = max(self.left.slack(rows, stride), self.right.slack(rows, stride))
        return parts + math.log(_window(self.begin, self.end, rows, stride)[1] + 1)


def _formula(found: Any) -> Formula:
    if not isinstance(found, Formula) and not callable(found):
        raise UserError(f"{found!r} is no formula: give one, or a function (observation, action) -> [B, T]")
    return found if isinstance(found, Formula) else Predicate(found)  # type: ignore[arg-type]


def _flat(formula: Formula, sought: int) -> tuple[Formula, ...]:
    """The parts of `a & b` where `sought` is `LEAST`, of `a | b` where it is `MOST`; else `formula`."""
    same = isinstance(formula, Many) and formula.sought == sought
    return formula.parts if same else (formula,)  # type: ignore[attr-defined]


def _aligned(parts: Sequence[Formula], seen: Seen) -> list[Array]:
    """The signals of all parts, of one length; one of a single row is held."""
    found = [part.signal(seen) for part in parts]
    lengths = sorted({x.shape[1] for x in found} - {1})
    if len(lengths) > 1:
        raise UserError(f"the rule joins signals of {lengths[0]} and {lengths[1]} rows: use one of both")
    shape = (seen.observation.shape[0], lengths[0] if lengths else 1)
    return [jnp.broadcast_to(x, shape) for x in found]


def _joined(a: Array, b: Array, *, sought: int, tau: Array | float | None) -> Array:
    """The larger or the lesser of both; smooth: `logsumexp(tau x) / tau` (arXiv 2503.02924)."""
    if tau is None:
        return jnp.maximum(a, b) if sought == MOST else jnp.minimum(a, b)
    gain = sought * tau
    return jnp.logaddexp(gain * a, gain * b) / gain


def _later(x: Array, by: int) -> Array:
    """`x` `[B, T]` from `by` rows on; after its end its last row is held."""
    by = min(by, x.shape[1])
    held = jnp.broadcast_to(x[:, -1:], (x.shape[0], by))
    return jnp.concatenate([x[:, by:], held], axis=1)


def _over(x: Array, width: int, sought: int, tau: Array | float | None) -> Array:
    """`_joined` over the window of `width` rows that begins at each row, in `log2(width)` passes."""
    found, offset, size, block = None, 0, 1, x
    while width:
        if width % 2:
            ahead = _later(block, offset)
            found = ahead if found is None else _joined(found, ahead, sought=sought, tau=tau)
            offset += size
        width //= 2
        if width:
            block = _joined(block, _later(block, size), sought=sought, tau=tau)
            size *= 2
    assert found is not None
    return found


def _window(begin: int, end: int | None, rows: int, stride: int) -> tuple[int, int]:
    """The first and the last row of a window of steps; at least one, and none behind the last row."""
    first = min(-(-begin // stride), rows - 1)
    last = rows - 1 if end is None else min(end // stride, rows - 1)
    return first, max(first, last)


def _checked(begin: int, end: int | None) -> tuple[int, int | None]:
    if begin < 0 or (end is not None and end < begin):
        raise UserError(f"a window from step {begin} to {end}: it begins at 0 or later, and ends after that")
    return begin, end


def always(part: Formula | Signal, begin: int = 0, end: int | None = None) -> Formula:
    """`part` is true at every step from `begin` to `end`, both counted from the present; None: to the end.

    A signal is held at its last row: what a window asks for beyond it is what is true there.
    """
    return Throughout(_formula(part), *_checked(begin, end), LEAST)


def eventually(part: Formula | Signal, begin: int = 0, end: int | None = None) -> Formula:
    """`part` is true at some step from `begin` to `end`; see `always`."""
    return Throughout(_formula(part), *_checked(begin, end), MOST)


def until(left: Formula | Signal, right: Formula | Signal, begin: int = 0, end: int | None = None) -> Formula:
    """`right` is true at some step from `begin` to `end`, and `left` at every step before that one."""
    return Until(_formula(left), _formula(right), *_checked(begin, end))


def implies(left: Formula | Signal, right: Formula | Signal) -> Formula:
    """Where `left` is true `right` is: `~left | right`."""
    return ~_formula(left) | _formula(right)


def robustness(
    formula: Formula,
    observation: Array,
    action: Array | None = None,
    *,
    tau: Array | float | None = None,
    stride: int = 1,
) -> Array:
    """`[B]`, by how much plans keep `formula` from their first row on; below 0 they break it.

    Args:
        observation: `[B, T, O]`, in the units of the task.
        action: `[B, T, A]`; None: the formula judges states alone.
        tau: of the smooth robustness (arXiv 2503.02924: 100), whose gradient reaches more than one row and
            which is within `slack(...)` of the exact one; None: the exact one.
        stride: steps from one row to the next; windows are told in steps. A window between two rows is that
            of the later one.

    Raises:
        UserError: where the formula names what is not there.
    """
    action = observation[:, :0, :0] if action is None else action
    return formula.signal(Seen(observation, action, tau, stride))[:, 0]


def slack(formula: Formula, rows: int, *, tau: float = 100.0, stride: int = 1) -> float:
    """How far the smooth robustness of plans of `rows` rows may be from the exact one, at most.

    `log(n) / tau` for every extremum of `n` values on the way into the formula: off this band their signs
    agree, so a plan whose smooth robustness is above it keeps the formula.
    """
    return formula.slack(rows, stride) / tau
