"""A user's rule, by its name in a file: a formula, a cost or a guide; and what is said of a wrong one."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.tree_util import register_dataclass

from jdp.data.segments import SegmentRows
from jdp.diffusion.guidance.logic import Formula, Seen, robustness
from jdp.errors import UserError
from jdp.learning.clusters import part_of
from jdp.learning.guides import Cost, cost_guide, history_of, logic_guide
from jdp.registry import named
from jdp.types import AnyArray, Bound, Context, Denoiser, Guide

Drawn = Literal["observation", "action", "both"]  # what a method draws of a plan
VARIED = 16  # plans around the first one, at which a rule must have a slope
JUDGED = 4096  # segments of data at once
APART = 0.05  # their distance, in the units of the task


class Rule(NamedTuple):
    """What steers, and what is asked of it."""

    told: str  # how the command line names it
    guide: Guide
    formula: Formula | None = None  # of a rule of logic: what was done is judged by it too
    cost: Cost | None = None  # what a first plan is asked for; None: of a guide, that is asked nothing


@dataclass(frozen=True)
class ToldCost:
    """A user's cost, whose mistakes are told in one line."""

    cost: Cost
    told: str

    def __call__(self, observation: Array, action: Array) -> Array:
        """As `cost`; raises `UserError` for whatever it does wrong."""
        return _called(self.told, self.cost, observation, action)


@partial(register_dataclass, data_fields=["part"], meta_fields=["told"])
@dataclass(frozen=True)
class ToldFormula(Formula):
    """A user's formula, whose mistakes are told in one line."""

    part: Formula
    told: str

    def signal(self, seen: Seen) -> Array:
        def of(observation: Array, action: Array) -> Array:
            return self.part.signal(seen._replace(observation=observation, action=action))

        return _called(self.told, of, seen.observation, seen.action)

    def slack(self, rows: int, stride: int) -> float:
        return self.part.slack(rows, stride)


@dataclass(frozen=True)
class ToldGuide:
    """A user's guide, whose mistakes are told in one line."""

    guide: Guide
    told: str
    history: int = 1

    def __call__(self, context: Context) -> Callable[[Denoiser], Denoiser]:
        """As `guide`; raises `UserError` for whatever it does wrong."""
        return _excused(self.told, self.guide, context)


def _called(told: str, function: Callable[..., Array], observation: Array, action: Array) -> Array:
    def on_the_host() -> None:
        # JAX takes an entry that is not there for the last one; numpy does not.
        try:
            with np.errstate(all="ignore"):
                function(*(np.zeros(x.shape, np.float32) for x in (observation, action)))
        except IndexError as error:
            shapes = f"observations {_shape(observation)} and actions {_shape(action)}"
            raise UserError(f"it asks {shapes} for what they have not ({_line(error)})") from None
        except Exception:  # what numpy cannot do, JAX may
            return

    _excused(told, on_the_host)
    found = _excused(told, function, observation, action)
    if not hasattr(found, "dtype") or not jnp.issubdtype(found.dtype, jnp.floating):
        kind = getattr(found, "dtype", type(found).__name__)
        raise UserError(f"{told} gives {kind} numbers, which have no gradient: give float32 ones")
    return found


def _excused(told: str, function: Callable[..., Any], *args: Any) -> Any:
    try:
        return function(*args)
    except UserError as error:
        line = str(error)
        raise UserError(line if line.startswith(told) else f"{told}: {line}") from error
    except Exception as error:  # whatever a user's function does wrong
        raise UserError(f"{told} cannot be computed ({_line(error)})") from error


def _line(error: Exception) -> str:
    line = str(error).splitlines()[0] if str(error) else ""
    return f"{type(error).__name__}: {line}"[:200]


def _shape(x: Array) -> str:
    return f"[B, {', '.join(map(str, x.shape[1:]))}]"


def rule(
    source: str,
    strength: float | None = None,
    *,
    margin: float = 0.0,
    stride: int = 1,
    option: str = "--guide",
) -> Rule:
    """The rule `file.py:name` or `module:name`, as a guide.

    A formula (`jdp.diffusion.guidance.logic`) becomes a `logic_guide`, a function `cost(observation, action)`
    a `cost_guide`; a function `guide(context)` is one already, with a strength of its own.

    Args:
        strength: None: 1.
        margin, stride: of a formula; see `logic_guide`.

    Raises:
        UserError: if it cannot be imported, has no such name, or that is none of these.
    """
    told = f"{option} {source}"
    found = named(source, option)
    if isinstance(found, Formula):
        formula = ToldFormula(found, told)
        guide = logic_guide(formula, _strength(strength), margin=margin, stride=stride)
        return Rule(told, _hashable(told, guide), formula)
    if margin:
        raise UserError(f"{told} is no formula, and {option}-margin is asked of formulas alone: leave it out")
    asked = _asked(found)
    if asked == 2:
        cost = ToldCost(found, told)
        return Rule(told, _hashable(told, cost_guide(cost, _strength(strength))), cost=cost)
    if asked != 1:
        raise UserError(
            f"{told} is no rule: give a formula, cost(observation, action), or guide(context) as a function"
        )
    if strength is not None:
        raise UserError(f"{told} is a guide with a strength of its own: leave {option}-strength out")
    return Rule(told, _hashable(told, ToldGuide(found, told, history_of(found))))


def _strength(strength: float | None) -> float:
    return 1.0 if strength is None else strength


def _hashable(told: str, guide: Guide) -> Guide:
    try:
        hash(guide)
    except TypeError:
        raise UserError(
            f"{told} holds arrays, and what steers a planner must be hashable: write numbers and tuples"
        ) from None
    return guide


def _asked(found: Any) -> int:
    """How many arguments a function wants by their place; 0 of what is none, or cannot be asked."""
    bound = dict(found.settings) if isinstance(found, Bound) else {}
    function = found.function if isinstance(found, Bound) else found
    if not callable(function) or inspect.isclass(function):
        return 0
    try:
        wanted = inspect.signature(function).parameters
    except (TypeError, ValueError):
        return 0
    places = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    free = [p for name, p in wanted.items() if p.kind in places and name not in bound]
    return sum(p.default is inspect.Parameter.empty for p in free)


def check_rule(found: Rule, observation: Array, action: Array, *, drawn: Drawn) -> None:
    """Asks `found` about a first plan, observations `[1, T, O]` and actions `[1, T', A]`.

    Args:
        drawn: what the method draws of it; the rest is no more than shown.

    Raises:
        UserError: if the cost, the robustness or the gradient is not finite, or there is no gradient.
    """
    measure = found.cost
    if found.formula is not None:
        measure = partial(robustness, found.formula, tau=100.0)
    if measure is None:
        return
    what = "cost" if found.cost is not None else "robustness"
    keys = jax.random.split(jax.random.key(0), 2)
    rows = [jnp.repeat(jnp.asarray(x, jnp.float32), VARIED + 1, axis=0) for x in (observation, action)]
    noise = [
        APART * jax.random.normal(key, x.shape).at[0].set(0.0) for key, x in zip(keys, rows, strict=True)
    ]

    def total(observation: Array, action: Array) -> tuple[Array, Array]:
        values = measure(observation, action)
        return jnp.sum(values), values

    asked = jax.jit(jax.value_and_grad(total, argnums=(0, 1), has_aux=True))
    (_, values), slopes = asked(*(x + dx for x, dx in zip(rows, noise, strict=True)))
    first = np.asarray(values[0])
    if not np.isfinite(first):
        raise UserError(f"{found.told}: its {what} of the first plan is {first}: let it be finite everywhere")
    if not all(np.isfinite(np.asarray(slope[0])).all() for slope in slopes):
        raise UserError(
            f"{found.told}: the gradient of its {what} is not finite on the first plan: no roots or norms "
            "of 0, and jnp.where has the gradients of both branches"
        )
    chosen = {"observation": slopes[:1], "action": slopes[1:], "both": slopes}[drawn]
    if any(np.asarray(slope).any() for slope in chosen):
        return
    if found.formula is not None or not np.ptp(np.asarray(values)):
        if found.formula is not None:
            raise UserError(f"{found.told} says nothing of what is drawn here, which is {_drawn(drawn)}")
        return  # a cost that is 0 around here
    raise UserError(f"{found.told}: its cost changes in steps, and has no gradient: make it smooth")


def _drawn(drawn: Drawn) -> str:
    told = {"observation": "states alone", "action": "actions alone, and no states"}
    return told.get(drawn, "states and actions")


def kept(formula: Formula, observation: AnyArray, action: AnyArray) -> np.ndarray:
    """`[n]`, the exact robustness of what was done.

    Args:
        observation: `[T + 1, n, O]`, what was seen, and `action` `[T, n, A]` what was done, as
            `jdp.loops.Played` has them: an episode's last row is repeated, which changes no formula.
    """
    seen, done = (jnp.swapaxes(jnp.asarray(x), 0, 1) for x in (observation, action))
    done = jnp.concatenate([done, done[:, -1:]], axis=1)
    return np.asarray(_exact(formula, seen, done))


_exact = jax.jit(robustness)


def keeping(rows: SegmentRows, formula: Formula, offsets: tuple[int, ...]) -> SegmentRows:
    """The rows of a draw, with only those places where segments begin that keep `formula`.

    A planner that is trained on them draws from the data given the rule, and composes with one of all data
    (arXiv 2510.01068): statistics are still those of all rows.

    Args:
        offsets: of the rows that are judged, evenly apart, from 0 on; windows of the formula are in steps.

    Raises:
        UserError: if no segment keeps it.
    """
    count, stride = len(rows.starts), offsets[1] - offsets[0]
    found = np.empty(count, bool)
    for first in range(0, count, JUDGED):  # as few programs as there are sizes: two
        some = slice(first, min(first + JUDGED, count))
        at = np.minimum(rows.starts[some, None] + np.array(offsets), rows.last[some, None])
        seen, done = (jnp.asarray(np.asarray(x)[at]) for x in (rows.observation, rows.action))
        found[some] = np.asarray(_strided(formula, seen, done, stride)) >= 0
    if not found.any():
        raise UserError(f"none of {count:,} segments of the data keeps the rule: ask for less of it")
    return part_of(rows, found)


@partial(jax.jit, static_argnames="stride")
def _strided(formula: Formula, observation: Array, action: Array, stride: int) -> Array:
    return robustness(formula, observation, action, stride=stride)
