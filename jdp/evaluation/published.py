"""Scores that papers and their repositories print, copied from there: nothing of this was run here."""

import csv
from functools import cache
from pathlib import Path
from typing import NamedTuple


class Published(NamedTuple):
    """One number of a table elsewhere. Tables of one method differ by tens of points: name the source."""

    method: str  # its name in jdp: "td3_bc"
    printed_as: str  # "TD3+BC"
    dataset: str  # D4RL's full name: "hopper-medium-v2"
    score: float  # normalised, of the last checkpoint or one that was chosen offline
    spread: float  # NaN where none is printed
    spread_is: str  # "standard error", or "not said"
    paper: str
    table: str
    read_in: str  # the paper itself, its repository's README, or a quotation of the table

    @property
    def source(self) -> str:
        return f"{self.paper}: {self.table}; read in {self.read_in}"


@cache
def published_scores() -> tuple[Published, ...]:
    """All of them: locomotion (-v2), methods of jdp, one source a method, no checkpoints chosen online."""
    with (Path(__file__).parent / "published.csv").open(newline="") as file:
        return tuple(
            Published(**row | {"score": float(row["score"]), "spread": float(row["spread"] or "nan")})  # type: ignore[arg-type]
            for row in csv.DictReader(file)
        )


def published(dataset: str) -> dict[str, Published]:
    """By method, what is published for `dataset`, the name of a run's data ("hopper-medium-v2 (D4RL)").

    Empty for all that is not D4RL's own file: bundled, Minari and d4rl-style data have other numbers.
    """
    name, _, kind = dataset.partition(" ")
    return {row.method: row for row in published_scores() if kind == "(D4RL)" and row.dataset == name}
