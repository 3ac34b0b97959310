"""Another trained run whose scores are added to those of the one that is played."""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from opening import trained_run

from jdp import evaluation
from jdp.errors import UserError, check_settings
from jdp.loops.journal import Record
from jdp.runs.composed import composed_policy, composed_states
from jdp.runs.load import LoadedRun
from jdp.types import Json, Policy, PyTree

APART = 10_000_000  # between the seeds of episodes that weights are chosen by and of those that are reported


@dataclass(frozen=True)
class ComposeOptions:
    """Scores of two trained policies of chunks, or planners, are added (GPC, arXiv 2510.01068)."""

    run: Path | None = None
    """The other one: a run directory, a file of weights, or the name of a model; none: RUN plays alone."""
    weight: float = 0.5
    """Of its score; the rest, 1 less it, is that of RUN."""
    search: int = 0
    """Weights from 0 to 1 that are tried first, on episodes that are not reported; 0: none, take the weight
    given."""
    search_episodes: int = 20
    """Of every seed, that each of them plays."""

    def of(self, run: LoadedRun) -> "Composition":
        """`run` with the other one, or alone.

        Raises:
            UserError: if they do not go together, or nothing is composed and its settings are given.
        """
        if self.run is None:
            if self != ComposeOptions():
                raise UserError("--compose.* says nothing without --compose.run: give that too")
            return Composition((run,), run.method.policy, (1.0,))
        check_settings(
            "--compose", search=(self.search, 0, 1 << 16), search_episodes=(self.search_episodes, 1, 1 << 20)
        )
        if self.search == 1:
            raise UserError("--compose.search is 1: there is something to choose from two weights on")
        runs = (run, trained_run(self.run))
        return Composition(runs, composed_policy(runs), (1 - self.weight, self.weight))

    def otherwise(self) -> Json:
        """What a configuration says of it; None of a run that is played alone."""
        own = dataclasses.asdict(self) | {"run": str(self.run)}
        return {"compose": None if self.run is None else own}


@dataclass(frozen=True)
class Composition:
    """Runs that are played as one, by these weights."""

    runs: tuple[LoadedRun, ...]
    policy: Policy
    weights: tuple[float, ...]
    found: evaluation.WeightSearch | None = None  # where they were searched

    def states(self, own: PyTree) -> PyTree:
        """The states `[S, ...]` of all seeds; `own` are those of the first run alone."""
        return own if len(self.runs) == 1 else composed_states(self.runs, self.weights)

    def searched(
        self, play: Callable[..., list[Record]], options: ComposeOptions, span: tuple[int, int]
    ) -> "Composition":
        """With the best of `options.search` weights, by episodes other than those of `span`."""
        task = self.runs[0].task

        def scored(weights: tuple[float, ...], episodes: Sequence[int]) -> np.ndarray:
            states = composed_states(self.runs, weights)
            records = play(states=states, episodes=len(episodes), seed=episodes[0])
            if evaluation.is_success(task):
                return 100.0 * np.concatenate([record["success"] for record in records])
            return np.concatenate([evaluation.scores_of(record["returns"], task) for record in records])

        first = span[0] + APART
        found = evaluation.search_weights(
            scored,
            evaluation.pairs(options.search),
            search=range(first, first + options.search_episodes),
            held_out=range(*span),
        )
        return dataclasses.replace(self, weights=found.chosen, found=found)

    def told(self) -> str:
        """What a report adds to the name of the method."""
        if len(self.runs) == 1:
            return ""
        return f" composed with {self.runs[1].name} of {self.runs[1].path} (weight {self.weights[1]:g})"

    def lines(self, name: str) -> list[str]:
        """The lines of a report that say what was searched."""
        if self.found is None:
            return []
        found, tried = self.found, len(self.found.grid)
        alone = " and ".join(f"{score:.1f}" for score in found.parents.mean(1))
        return [
            f"weight {self.weights[1]:g} chosen of {tried} by other episodes, where its {name} was "
            f"{found.scores.max():.1f}; on those above the policies alone have {alone}"
        ]

    def facts(self) -> Json:
        """What scores.json says of it."""
        if len(self.runs) == 1:
            return {}
        facts: Json = {"weights": list(self.weights)}
        if self.found is not None:
            facts |= {"grid": self.found.grid, "searched": self.found.scores}
            facts |= {"parents": self.found.parents.mean(1)}
        return facts | {"composed_with": str(self.runs[1].path)}
