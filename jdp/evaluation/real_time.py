"""Scores of a policy in tasks that wait for nobody: where it is slower than a tick, it acts late."""

from collections.abc import Callable, Sequence

from jdp.evaluation.summary import summary_of_seeds
from jdp.loops.clock import late, ticks_late
from jdp.loops.journal import Record
from jdp.types import Json, Policy, Spec

Play = Callable[
    [Policy, str], list[Record]
]  # of a policy and the name of the phase, as play_in_turn gives them


def scores_at_rates(
    rates: Sequence[float], found: Json, policy: Policy, spec: Spec, play: Play
) -> list[Json]:
    """For every rate in Hz: `hz`, `ticks` that it acts late, `seeds` and `interval` of the scores.

    How late follows from the median time of a decision on this machine, which `found` (`summary_of_seeds`)
    has. Where that is within a tick the scores are those of `found`; equal delays are played once.

    Raises:
        UserError: for a rate that is not above 0.
    """
    seconds, by_ticks = found["latency"]["median"], {0: found}
    delays = [ticks_late(seconds, hz) for hz in rates]
    for ticks in dict.fromkeys(delays):
        if ticks not in by_ticks:
            records = play(late(policy, ticks, spec.action_dim), f"evaluation {ticks} late")
            by_ticks[ticks] = summary_of_seeds(records, spec)
    return [
        {"hz": hz, "ticks": ticks, **{name: by_ticks[ticks][name] for name in ("seeds", "interval")}}
        for hz, ticks in zip(rates, delays, strict=True)
    ]
