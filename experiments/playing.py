"""How a trained policy of chunks is played otherwise than it was trained: warm, or in real time."""

import dataclasses
from dataclasses import dataclass, field

from jdp.errors import UserError
from jdp.loops import late
from jdp.policies.real_time import real_time
from jdp.policies.rti import warm
from jdp.types import Json, Policy


@dataclass(frozen=True)
class WarmOptions:
    """A policy of chunks decides by its last levels alone, from its last chunk (RTI-DP, arXiv 2508.05396)."""

    levels: int | None = None
    """How many of them; none: it draws chunks as it was trained, out of noise."""
    shift: int = 1
    """Actions that are executed before the next decision."""


@dataclass(frozen=True)
class RealTimeOptions:
    """A policy of chunks draws the next one while the last one is executed (arXiv 2506.07339)."""

    delay: int | None = None
    """Steps from where a chunk is begun to where it acts; none: chunks act at once, as they were trained."""
    execute: int | None = None
    """Steps from one chunk to the next; none: as it was trained."""
    overlap: int | None = None
    """Actions of a chunk that are bound to the last one; none: all that it has left; 0: none are."""
    beta: float = 5.0
    """The most guidance."""
    solver_steps: int = 0
    """Of conjugate gradients, in the place of the paper's guidance: slower, and exact for Gaussians."""


@dataclass(frozen=True, kw_only=True)
class PlayingOptions:
    """Of scripts that play trained policies."""

    warm: WarmOptions = field(default_factory=WarmOptions)
    real_time: RealTimeOptions = field(default_factory=RealTimeOptions)

    def played(self, policy: Policy) -> Policy:
        """`policy`, as it is to be played.

        Raises:
            UserError: if it cannot be played so.
        """
        for option, given, name in (
            ("--warm", self.warm, "levels"),
            ("--real-time", self.real_time, "delay"),
        ):
            if getattr(given, name) is None and given != type(given)():
                raise UserError(f"{option}.* says nothing without {option}.{name}: give that too")
        if self.warm.levels is not None and self.real_time.delay is not None:
            raise UserError("--warm.levels and --real-time.delay draw chunks in two ways: leave one out")
        if self.warm.levels is not None:
            return warm(policy, self.warm.levels, self.warm.shift)
        if self.real_time.delay is not None:
            return real_time(policy, **dataclasses.asdict(self.real_time))
        return policy

    def late(self, policy: Policy, ticks: int, *, dim: int) -> Policy:
        """`policy`, as it is to be played, where its decisions of `dim` entries act `ticks` steps late.

        In real time that is the delay of its chunks, which are executed meanwhile; else an action is held.
        """
        if self.real_time.delay is None:
            return late(self.played(policy), ticks, dim)
        return real_time(policy, **dataclasses.asdict(dataclasses.replace(self.real_time, delay=ticks)))

    def otherwise(self) -> Json:
        """What a configuration says of both ways; None of one that the policy is not played."""
        ways = {"warm": self.warm.levels, "real_time": self.real_time.delay}
        return {
            name: None if given is None else dataclasses.asdict(getattr(self, name))
            for name, given in ways.items()
        }

    def told(self) -> str:
        """What a report adds to the name of a method that is not played as it was trained; else nothing."""
        texts = []
        for way, options in self.otherwise().items():
            given = [f"{name} {x}" for name, x in (options or {}).items() if x is not None]
            texts += [f", {way.replace('_', ' ')} ({', '.join(given)})"] if given else []
        return "".join(texts)
