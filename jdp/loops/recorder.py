"""What is kept of decisions: plans and subgoals of the first episodes for pictures, and what filters did."""

import numpy as np

from jdp.devices import distributed
from jdp.types import Decision, Json


class Recorder:
    """A `jdp.loops.play.Watch` that keeps `plans[i]` and `subgoals[i]` of the first `count` episodes.

    Of a filtered policy it counts, over all episodes, what the filter changed and could not keep.
    """

    def __init__(self, count: int):
        self.count = count
        self.plans: list[list[np.ndarray]] = [[] for _ in range(count)]  # of each [H, O]
        self.subgoals: list[list[np.ndarray]] = [[] for _ in range(count)]  # of each [K, O]
        self.steps, self.changed, self.broken, self.worst = 0, 0, 0, 0.0

    def __call__(self, step: int, decision: Decision, observation: np.ndarray, running: np.ndarray) -> None:
        del step, observation
        if decision.intended is not None:
            self._filtered(decision, running)
        if decision.plan is None or not self.count:
            return
        decided = distributed.fetch(decision.decided)[: len(running)] & running
        if not decided[: self.count].any():
            return
        seen, subgoal = distributed.fetch(decision.plan.observation), distributed.fetch(decision.plan.subgoal)
        for i in np.flatnonzero(decided[: self.count]):
            self.plans[i].append(seen[i])
            self.subgoals[i].append(subgoal[i])

    def _filtered(self, decision: Decision, running: np.ndarray) -> None:
        rows = len(running)
        assert decision.intended is not None  # a filter says so
        action, intended = (distributed.fetch(x)[:rows] for x in (decision.action, decision.intended))
        self.steps += int(running.sum())
        self.changed += int(((action != np.clip(intended, -1.0, 1.0)).any(-1) & running).sum())
        if decision.violation is not None:
            violation = np.where(running, distributed.fetch(decision.violation)[:rows], 0.0)
            self.broken += int((violation > 0).sum())
            self.worst = max(self.worst, float(violation.max(initial=0.0)))

    def told(self) -> Json:
        """`filter`, what it did: shares of the steps in which it `changed` the action, and in which its rules
        were `broken` all the same, by `worst` at most; nothing where there was none."""
        if not self.steps:
            return {}
        shares = {"changed": self.changed / self.steps, "broken": self.broken / self.steps}
        return {"filter": {"steps": self.steps, **shares, "worst": self.worst}}
