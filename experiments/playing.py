"""How a trained policy is played otherwise than it was trained: filtered; of chunks warm, or in real time."""

import dataclasses
from dataclasses import dataclass, field
from functools import lru_cache
from typing import cast

from jdp.errors import UserError
from jdp.learning.filters import filtered
from jdp.loops import late
from jdp.policies.real_time import real_time
from jdp.policies.rti import warm
from jdp.registry import named
from jdp.types import Filter, Json, Policy, Spec


@lru_cache  # a file is executed once, so that what it defines stays the same function
def user_filter(where: str) -> Filter:
    """What `--filter` names; raises `UserError` if it cannot be imported, or is no function."""
    found = named(where, "--filter")
    if not callable(found):
        raise UserError(f"--filter {where} is no function of a context and an action: see docs/steering.md")
    return cast(Filter, found)


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
    filter: str | None = None
    """FILE:NAME of what has the last word on every action, as my_rules.py:barrier: a function of a context
    and an action, or what jdp.learning.filters makes, for instance `barrier = keep_out((1.0, 2.0, 0.4))`."""

    def played(self, policy: Policy, spec: Spec) -> Policy:
        """`policy`, as it is to be played in the task of `spec`.

        Raises:
            UserError: if it cannot be played so.
        """
        return self._filtered(self._drawn(policy), spec)

    def _filtered(self, policy: Policy, spec: Spec) -> Policy:
        return policy if self.filter is None else filtered(policy, user_filter(self.filter), spec)

    def _drawn(self, policy: Policy) -> Policy:
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

    def late(self, policy: Policy, ticks: int, *, spec: Spec) -> Policy:
        """`policy`, as it is to be played, where its decisions act `ticks` steps late.

        In real time that is the delay of its chunks, which are executed meanwhile; else an action is held. A
        filter is never late.
        """
        if self.real_time.delay is None:
            return self._filtered(late(self._drawn(policy), ticks, spec.action_dim), spec)
        delayed = dataclasses.asdict(dataclasses.replace(self.real_time, delay=ticks))
        return self._filtered(real_time(policy, **delayed), spec)

    def _ways(self) -> Json:
        """How chunks are drawn otherwise; None of a way in which they are not."""
        ways = {"warm": self.warm.levels, "real_time": self.real_time.delay}
        return {
            name: None if given is None else dataclasses.asdict(getattr(self, name))
            for name, given in ways.items()
        }

    def otherwise(self) -> Json:
        """What a configuration says of all ways; None of one that the policy is not played."""
        return self._ways() | {"filter": self.filter}

    def told(self) -> str:
        """What a report adds to the name of a method that is not played as it was trained; else nothing."""
        texts = []
        for way, options in self._ways().items():
            given = [f"{name} {x}" for name, x in (options or {}).items() if x is not None]
            texts += [f", {way.replace('_', ' ')} ({', '.join(given)})"] if given else []
        texts += [] if self.filter is None else [f", filter {self.filter}"]
        return "".join(texts)
