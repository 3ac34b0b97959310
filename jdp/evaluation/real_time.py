"""Scores of a policy in tasks that wait for nobody: where it is slower than a tick, it acts late."""

from collections.abc import Callable, Sequence
from typing import Protocol

from jdp.errors import UserError
from jdp.evaluation.summary import summary_of_seeds
from jdp.loops.clock import ticks_late
from jdp.loops.journal import Record
from jdp.types import Json, Policy, Spec


class Play(Protocol):
    """`jdp.loops.play_in_turn`, all else bound."""

    def __call__(self, policy: Policy, /, *, phase: str) -> list[Record]: ...


def scores_at_rates(
    rates: Sequence[float],
    found: Json,
    spec: Spec,
    play: Play,
    late: Callable[[int], Policy],
    scored: int = 0,
) -> list[Json]:
    """For every rate in Hz: `hz`, `ticks` that it acts late, `seeds` and `interval` of the scores.

    How late follows from the median time of a decision on this machine, which `found` (`summary_of_seeds`)
    has. Equal delays are played once. Where a policy cannot act so late, `why` says so.

    Args:
        late: the policy that acts so many ticks late (`jdp.loops.late`); it may raise `UserError`.
        scored: ticks late that the policy of `found` acts.

    Raises:
        UserError: for a rate that is not above 0.
    """
    seconds, by_ticks = found["latency"]["median"], {scored: _scores(found)}
    delays = [ticks_late(seconds, hz) for hz in rates]
    for ticks in dict.fromkeys(delays):
        if ticks not in by_ticks:
            try:
                records = play(late(ticks), phase=f"evaluation {ticks} late")
                by_ticks[ticks] = _scores(summary_of_seeds(records, spec))
            except UserError as error:
                by_ticks[ticks] = {"seeds": [], "why": str(error)}
    return [{"hz": hz, "ticks": n, **by_ticks[n]} for hz, n in zip(rates, delays, strict=True)]


def _scores(found: Json) -> Json:
    return {name: found[name] for name in ("seeds", "interval")}
