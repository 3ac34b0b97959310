"""A dataset's card: where it comes from and what is in it, in numbers.

TQ and SACo are the trajectory quality and the state-action coverage of Schweighofer et al., "A Dataset
Perspective on Offline Reinforcement Learning", CoLLAs 2022 (arXiv:2111.04714): behaviour cloning needs
a high TQ, unconstrained value-based methods a high SACo, policy-constrained methods both.
"""

from dataclasses import dataclass

import numpy as np

from jdp.data.episodes import Episodes, Origin
from jdp.errors import UserError
from jdp.types import Spec

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


@dataclass(frozen=True)
class Summary:
    """A distribution in a few numbers."""

    mean: float
    std: float
    minimum: float
    maximum: float
    quantiles: tuple[float, ...]  # at `QUANTILES`


@dataclass(frozen=True)
class DatasetCard:
    """What `dataset_card` finds."""

    origin: Origin
    spec: Spec
    transitions: int
    episodes: int
    lengths: Summary  # steps
    returns: Summary  # undiscounted
    normalised: Summary | None  # returns between 0 and 100; None without reference returns
    terminal_share: float  # of the transitions
    terminated_share: float  # of the episodes
    unknown_successors: int  # transitions whose next observation the source does not give
    saturated_actions: tuple[float, ...]  # per action channel, the share with |a| > 0.99
    tq: float | None  # trajectory quality; None without reference returns
    saco: float  # state-action coverage
    saco_reference: str  # what `saco` is relative to

    def __str__(self) -> str:
        """The card as it is printed: a line a fact, then returns and lengths in numbers."""
        import pandas as pd

        origin, spec, shares = self.origin, self.spec, self.saturated_actions
        saturated = ", ".join(f"{share:.1%}" for share in shares)
        if len(shares) > 8:
            saturated = f"{np.mean(shares):.1%} on average, {max(shares):.1%} in channel {np.argmax(shares)}"
        facts = {
            "dataset": origin.name,
            "file": f"{origin.path} ({origin.size:,} bytes)",
            "sha256": origin.sha256,
            "licence": origin.licence,
            "task": f"{spec.env_id or 'unknown'}, O = {spec.observation_dim}, A = {spec.action_dim}",
            "transitions": f"{self.transitions:,} in {self.episodes:,} episodes",
            "terminals": f"{self.terminal_share:.3%} of transitions, {self.terminated_share:.1%} of episodes",
            "no successor": f"{self.unknown_successors:,} transitions",
            "|action| > 0.99": saturated,
            "TQ": "unknown: no reference returns" if self.tq is None else f"{self.tq:.3f}",
            "SACo": f"{self.saco:.5f} relative to {self.saco_reference}",
        }
        found = {"return": self.returns, "normalised": self.normalised, "length": self.lengths}
        heads = ("mean", "std", "min", *(f"{100 * q:g}%" for q in QUANTILES), "max")
        rows = {
            name: (s.mean, s.std, s.minimum, *s.quantiles, s.maximum)
            for name, s in found.items()
            if s is not None
        }
        numbers = pd.DataFrame.from_dict(rows, orient="index", columns=heads).to_string(float_format="%.1f")
        lines = [*(f"{name:<16} {value}" for name, value in facts.items()), "", numbers]
        return "\n".join([*lines, *([f"\nnote: {origin.notice}"] if origin.notice else [])])


def dataset_card(episodes: Episodes, *, reference: Episodes | None = None, bins: int = 100) -> DatasetCard:
    """The card of `episodes`.

    Args:
        reference: the experience that SACo is relative to, in the paper the replay of an online
            run; without one it is the number of transitions, and SACo the share of distinct ones.
        bins: linear bins per channel for SACo.

    Raises:
        UserError: if `reference` has other channels.
    """
    returns, score_range = episodes.returns, episodes.spec.score_range
    fraction = None if score_range is None else normalised_returns(returns, score_range)
    return DatasetCard(
        origin=episodes.origin,
        spec=episodes.spec,
        transitions=len(episodes),
        episodes=len(episodes.lengths),
        lengths=_summary(episodes.lengths),
        returns=_summary(returns),
        normalised=None if fraction is None else _summary(100.0 * fraction),
        terminal_share=float(episodes.terminals.mean()),
        terminated_share=float(episodes.terminated.mean()),
        unknown_successors=int(np.sum(~(episodes.next_valid | episodes.terminals))),
        saturated_actions=tuple((np.abs(episodes.actions) > 0.99).mean(0).tolist()),
        tq=None if fraction is None else float(fraction.mean()),
        saco=state_action_coverage(episodes, reference, bins=bins),
        saco_reference="its own number of transitions" if reference is None else reference.origin.name,
    )


def normalised_returns(returns: np.ndarray, score_range: tuple[float, float]) -> np.ndarray:
    """`(return - random) / (best - random)`; its mean over episodes is TQ, 100 times it D4RL's score."""
    low, high = score_range
    return (returns - low) / (high - low)


def state_action_coverage(episodes: Episodes, reference: Episodes | None = None, *, bins: int = 100) -> float:
    """SACo: distinct binned `(observation, action)` pairs, relative to those of `reference`.

    `bins` linear bins per channel span the range of both sets together. The count is exact, but
    for collisions of 64-bit hashes (for 10^6 rows, a chance below 10^-5).

    Raises:
        UserError: if `reference` has other channels.
    """
    rows = _pairs(episodes)
    if reference is None:
        return len(np.unique(_hashes(rows, rows.min(0), rows.max(0), bins))) / len(rows)
    others = _pairs(reference)
    if others.shape[1] != rows.shape[1]:
        raise UserError(
            f"{reference.origin.name} has {others.shape[1]} channels, {episodes.origin.name} "
            f"{rows.shape[1]}: SACo needs a reference of the same task"
        )
    low, high = np.minimum(rows.min(0), others.min(0)), np.maximum(rows.max(0), others.max(0))
    return len(np.unique(_hashes(rows, low, high, bins))) / len(np.unique(_hashes(others, low, high, bins)))


def _pairs(episodes: Episodes) -> np.ndarray:
    return np.concatenate([episodes.observations, episodes.actions], axis=1)


def _hashes(rows: np.ndarray, low: np.ndarray, high: np.ndarray, bins: int) -> np.ndarray:
    width = np.where(high > low, (high - low) / bins, 1.0)
    cells = np.minimum((rows - low) / width, bins - 1).astype(np.uint64)
    # Multiply-shift hashing: a random odd multiplier a channel, summed modulo 2^64.
    odd = np.random.default_rng(0).integers(2**64, size=rows.shape[1], dtype=np.uint64) | np.uint64(1)
    return (cells * odd).sum(axis=1, dtype=np.uint64)


def _summary(values: np.ndarray) -> Summary:
    return Summary(
        mean=float(values.mean()),
        std=float(values.std()),
        minimum=float(values.min()),
        maximum=float(values.max()),
        quantiles=tuple(np.quantile(values, QUANTILES).tolist()),
    )
