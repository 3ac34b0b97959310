"""A user's rule steers what a script plays: options, the method made with it, and how it was kept."""

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from jdp import evaluation, planners, policies
from jdp.diffusion.guidance.logic import Formula
from jdp.errors import UserError, check_settings
from jdp.learning import rules
from jdp.learning.rules import Rule
from jdp.loops import Played
from jdp.loops.journal import Record
from jdp.types import Json, Method, Spec

_rule = cache(rules.rule)  # a file is imported once, so that its functions are the same ones


@dataclass(frozen=True, kw_only=True)
class GuideOptions:
    """Of scripts that play planners and policies."""

    guide: str | None = None
    """Steer what is drawn by a rule of yours, rules.py:name: a formula (docs/steering.md), a function
    cost(observation, action), or guide(context). It acts in closed loop alone: training knows nothing of
    it."""
    guide_strength: float | None = None
    """How strongly (1): plans are tilted by exp(-strength * cost), of a formula by how far it is from kept; 0
    steers nothing."""
    guide_margin: float = 0.0
    """By how much a formula is to be kept, in its own units."""
    guide_history: int = 1
    """Observations of the episode that a formula judges: the present, or so many; see docs/steering.md."""

    def rule(self, settings: Any) -> Rule | None:
        """The rule of a method of these settings; None without one.

        Raises:
            UserError: if it cannot be imported, or is none.
        """
        if self.guide is None:
            given = [name for name in ("strength", "margin", "history") if self._given(name)]
            if given:
                raise UserError(f"--guide-{given[0]} says nothing without --guide: give that too")
            return None
        if self.guide_strength is not None:
            check_settings("--guide", strength=(self.guide_strength, 0, np.inf))
        stride = getattr(settings, "stride", 1)
        return _rule(self.guide, self.guide_strength, margin=self.guide_margin, stride=stride)

    def formula(self, settings: Any) -> Formula | None:
        """What episodes are judged by: the formula of `rule`; None of other rules."""
        rule = self.rule(settings)
        return None if rule is None else rule.formula

    def _given(self, name: str) -> bool:
        return getattr(self, f"guide_{name}") != getattr(GuideOptions, f"guide_{name}")

    def guided(self, kind: str, settings: Any, spec: Spec) -> Method | None:
        """The planner or policy of `settings`, steered by the rule; None without one.

        Raises:
            UserError: if it cannot be steered.
        """
        rule = self.rule(settings)
        if rule is None:
            return None
        room = {"planner": planners, "policy": policies}.get(kind)
        if room is None:
            raise UserError(
                f"{rule.told} steers what planners and diffusion policies draw, and this is a method of the "
                f"kind {kind}: leave it out"
            )
        history = self.guide_history if self._given("history") else None
        return room.make(settings, spec, guide=rule.guide, history=history)


def executed(formula: Formula, played: Played) -> np.ndarray:
    """`[n]`, by how much each episode kept the formula of a rule: its exact robustness."""
    assert played.observation is not None and played.action is not None  # asked for by play_in_turn
    return rules.kept(formula, played.observation, played.action)


def satisfaction(options: GuideOptions, episodes: ArrayLike) -> Json:
    """What scores.json says of the rule: the share of the episodes that kept it, its interval, the mean.

    `episodes` `[S, n]` are what `executed` says of each.
    """
    found = np.asarray(episodes)
    return {
        "guide": options.guide,
        "strength": 1.0 if options.guide_strength is None else options.guide_strength,
        "margin": options.guide_margin,
        "satisfied": list(evaluation.success_interval((found > 0).astype(int))),
        "robustness": float(found.mean()),
        "episodes": found.tolist(),
    }


def rule_lines(found: Record) -> list[str]:
    """The lines of a report that say how the rule was kept, where there is one."""
    if (rule := found.get("rule")) is None:
        return []
    share = evaluation.with_interval(*rule["satisfied"])
    told = f"{rule['guide']} at strength {rule['strength']:g}"
    return [f"{told}: kept in {share} % of the episodes, robustness {rule['robustness']:.3f} (mean)"]
