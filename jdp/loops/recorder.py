"""What a picture needs of the first episodes: plans and subgoals, as they were made."""

import numpy as np

from jdp.devices import distributed
from jdp.types import Decision


class Recorder:
    """A `jdp.loops.play.Watch` that keeps `plans[i]` and `subgoals[i]` of the first `count` episodes."""

    def __init__(self, count: int):
        self.count = count
        self.plans: list[list[np.ndarray]] = [[] for _ in range(count)]  # of each [H, O]
        self.subgoals: list[list[np.ndarray]] = [[] for _ in range(count)]  # of each [K, O]

    def __call__(self, step: int, decision: Decision, observation: np.ndarray, running: np.ndarray) -> None:
        del step, observation
        if decision.plan is None or not self.count:
            return
        decided = distributed.fetch(decision.decided)[: len(running)] & running
        if not decided[: self.count].any():
            return
        seen, subgoal = distributed.fetch(decision.plan.observation), distributed.fetch(decision.plan.subgoal)
        for i in np.flatnonzero(decided[: self.count]):
            self.plans[i].append(seen[i])
            self.subgoals[i].append(subgoal[i])
