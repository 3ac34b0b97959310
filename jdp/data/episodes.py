"""Experience on the host: flat rows in time order, cut into episodes."""

from dataclasses import dataclass, replace

import numpy as np

from jdp.data.ends import find_ends
from jdp.errors import UserError
from jdp.types import Spec, Transition


@dataclass(frozen=True)
class Origin:
    """Where a dataset came from; written into every run and printed with every score."""

    name: str  # the true name, e.g. "hopper-medium-v2 (D4RL)" or "my.hdf5 (file)"
    kind: str  # "d4rl" | "recipe" | "minari" | "ogbench" | "bundled" | "file" | "none" (learned online)
    path: str
    sha256: str
    size: int  # bytes
    licence: str
    notice: str = ""  # what the user should know before reading a score

    def noting(self, *lines: str) -> "Origin":
        """This origin with `lines` added to its notice; empty ones are left out."""
        return replace(self, notice="; ".join(filter(None, (self.notice, *lines))))


@dataclass(frozen=True)
class Episodes:
    """`N` steps of `E` episodes; episode `e` is rows `starts[e]:stops[e]`.

    `terminals` marks the steps that ended the task. `timeouts` marks the last row of every other
    episode: a time limit, or the end of the file. No row carries both.
    """

    observations: np.ndarray  # [N, O] float32
    actions: np.ndarray  # [N, A] float32, within [-1, 1]
    rewards: np.ndarray  # [N] float32
    next_observations: np.ndarray  # [N, O] float32
    terminals: np.ndarray  # [N] bool
    timeouts: np.ndarray  # [N] bool
    next_valid: np.ndarray  # [N] bool, False where the source does not say what came next
    starts: np.ndarray  # [E] int64
    stops: np.ndarray  # [E] int64, exclusive
    spec: Spec
    origin: Origin

    def __len__(self) -> int:
        return len(self.rewards)

    @property
    def lengths(self) -> np.ndarray:
        """`[E]` int64, steps in each episode."""
        return self.stops - self.starts

    @property
    def returns(self) -> np.ndarray:
        """`[E]` float64, undiscounted sum of the rewards of each episode."""
        return np.add.reduceat(self.rewards, self.starts, dtype=np.float64)

    @property
    def terminated(self) -> np.ndarray:
        """`[E]` bool, whether the episode ended in a terminal."""
        return self.terminals[self.stops - 1]


def make_episodes(
    observations: np.ndarray,
    actions: np.ndarray,
    rewards: np.ndarray,
    next_observations: np.ndarray | None,
    terminals: np.ndarray,
    timeouts: np.ndarray | None,
    *,
    spec: Spec,
    origin: Origin,
    marked: bool = False,
) -> Episodes:
    """Cut checked rows `[N, ...]` into episodes; see `Episodes` and `jdp.data.ends.find_ends`.

    `marked` says that `timeouts` mark all ends, so that none need be looked for.
    """
    if not marked or timeouts is None:
        limit = spec.max_episode_steps
        timeouts, notice = find_ends(observations, next_observations, terminals, timeouts, limit)
        origin = origin.noting(notice)
    timeouts = timeouts & ~terminals
    timeouts[-1] = not terminals[-1]
    ends = terminals | timeouts
    stops = np.flatnonzero(ends).astype(np.int64) + 1
    next_valid = np.ones(len(ends), bool)
    if next_observations is None:
        next_observations = np.concatenate([observations[1:], observations[-1:]])
        next_observations[ends] = observations[ends]
        next_valid = ~ends
    return Episodes(
        observations=observations,
        actions=np.clip(actions, -1.0, 1.0),
        rewards=rewards,
        next_observations=next_observations,
        terminals=terminals,
        timeouts=timeouts,
        next_valid=next_valid,
        starts=np.concatenate([np.zeros(1, np.int64), stops[:-1]]),
        stops=stops,
        spec=spec,
        origin=origin,
    )


def require_successors(episodes: Episodes, keep: np.ndarray) -> None:
    """Raises `UserError` unless there are steps `keep` `[N]` bool, of which it is known what came next."""
    if not keep.any():
        raise UserError(
            f"{episodes.origin.name}: of none of its {len(episodes):,} steps is it known what came next: "
            "each is an episode of its own, and there are no 'next_observations'"
        )


def transitions(
    episodes: Episodes, *, next_actions: bool = False, known_successors: bool = False
) -> Transition:
    """The steps with a known successor, fields `[n, ...]` float32 numpy arrays, `n <= N`.

    A value function needs no successor of a terminal, so it stays even where the source does not give
    one: its own observation stands in, masked by the terminal. A model of the dynamics would learn from
    it to stand still where it should fall: `known_successors` leaves such steps out. Other steps
    without a successor are always left out.

    With `next_actions` so are the last steps of episodes that a time limit cut, whose next action nobody
    took; a terminal's is 0. The next action of a step is always of its own episode.

    Raises:
        UserError: if no step is left.
    """
    keep = episodes.next_valid if known_successors else episodes.terminals | episodes.next_valid
    following = None
    if next_actions:
        keep = keep & ~episodes.timeouts
        following = np.concatenate([episodes.actions[1:], np.zeros_like(episodes.actions[:1])])
        following[episodes.terminals] = 0.0
    require_successors(episodes, keep)
    rows = slice(None) if keep.all() else keep
    return Transition(
        observation=episodes.observations[rows],  # type: ignore[arg-type]
        action=episodes.actions[rows],  # type: ignore[arg-type]
        reward=episodes.rewards[rows],  # type: ignore[arg-type]
        next_observation=episodes.next_observations[rows],  # type: ignore[arg-type]
        terminal=episodes.terminals[rows].astype(np.float32),  # type: ignore[arg-type]
        next_action=None if following is None else following[rows],
    )
