"""A small board game whose optimal play is known: a runner slides over ice to the exit, past walls and traps.

A move slides the runner until a wall or the rim stops it; on a trap or on the exit it stays for good. So the
way to the exit is rarely the way towards it: where a slide ends is told by cells far away, and what it is
good for by the slides after it. Boards are solved backwards from the exit. Everything is numpy.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from jdp.errors import UserError, check_settings

FREE, WALL, TRAP, EXIT = KINDS = range(4)
MOVES = ((-1, 0), (1, 0), (0, -1), (0, 1))  # up, down, left, right, in rows and columns
END = len(MOVES)  # the move of a game that is over
LOST = 99  # moves to the exit from where no way leads there


@dataclass(frozen=True)
class Game:
    """Boards of `size` x `size` cells, and the tokens of what follows: in turns a move and where it ends."""

    size: int = 5
    """Cells of a side."""
    walls: int = 4
    """Cells of a board that are walls."""
    traps: int = 2
    """Cells of a board that are traps."""

    def __post_init__(self) -> None:
        room = self.size**2 - 2  # the runner and the exit have a cell each
        check_settings("Game", size=(self.size, 2, 100), walls=(self.walls, 0, room))
        check_settings("Game", traps=(self.traps, 0, room - self.walls))

    @property
    def cells(self) -> int:
        """C, cells of a board."""
        return self.size**2

    @property
    def start(self) -> int:
        """The cell in the middle, where the runner begins."""
        return self.size // 2 * (self.size + 1)

    @property
    def present(self) -> int:
        """Entries of the present as a vector: the kind of every cell, and where the runner is."""
        return self.cells * (len(KINDS) + 1)

    @property
    def vocabulary(self) -> int:
        """V, tokens: first the places, then the moves, and the end of the game last."""
        return self.cells + END + 1

    def spans(self, horizon: int) -> tuple[tuple[int, int], ...]:
        """`(first, last + 1)` of the tokens that may stand at each place of a future, `[1 + 2 horizon]`."""
        move = (self.cells, self.vocabulary)
        return (move, *((0, self.cells), move) * horizon)


class Solved(NamedTuple):
    """N boards and all that can happen on them."""

    boards: np.ndarray  # [N, C] int8, the kinds of cells
    following: np.ndarray  # [N, C, 4] int16, where each move from each cell ends
    distance: np.ndarray  # [N, C] int16, the fewest moves to the exit, LOST where there is no way


def draw(rng: np.random.Generator, game: Game, count: int) -> np.ndarray:
    """`[count, C]` int8, random boards with a free cell in the middle."""
    order = np.argsort(rng.random((count, game.cells - 1)), axis=1)
    kinds = np.zeros(game.cells - 1, np.int8)
    kinds[: game.walls], kinds[game.walls : game.walls + game.traps], kinds[-1] = WALL, TRAP, EXIT
    return np.insert(kinds[order], game.start, FREE, axis=1)


def slides(boards: np.ndarray) -> np.ndarray:
    """`[N, C, 4]` int16: where the moves from every cell of boards `[N, C]` end; who is not free stays.

    Raises:
        UserError: if the boards are no squares.
    """
    size = math.isqrt(boards.shape[1])
    if size**2 != boards.shape[1]:
        raise UserError(f"boards of {boards.shape[1]} cells are no squares: write them row by row")
    walled = np.pad(boards.reshape(-1, size, size), ((0, 0), (1, 1), (1, 1)), constant_values=WALL)
    n = np.arange(len(boards))[:, None, None]
    change = np.array(MOVES).T[:, None, None]  # [2, 1, 1, 4]
    at = np.stack(np.divmod(np.arange(size**2), size))[:, None, :, None]
    at = np.tile(at, (1, len(boards), 1, len(MOVES))) + 1
    for _ in range(size - 1):
        on = (walled[n, at[0], at[1]] == FREE) & (walled[n, *(at + change)] != WALL)
        at = at + change * on
    return ((at[0] - 1) * size + at[1] - 1).astype(np.int16)


def _after(values: np.ndarray, following: np.ndarray) -> np.ndarray:
    """`[N, C, 4]`, of values `[N, C]` those of the cells that moves end at."""
    return np.take_along_axis(values, following.reshape(len(values), -1), axis=1).reshape(following.shape)


def solve(boards: np.ndarray) -> Solved:
    """Of boards `[N, C]` every cell's distance, backwards from the exit until nothing changes."""
    following = slides(boards)
    distance = np.where(boards == EXIT, 0, LOST).astype(np.int16)
    while True:
        nearer = np.minimum(distance, 1 + _after(distance, following).min(-1))
        if (nearer == distance).all():
            return Solved(boards, following, distance)
        distance = nearer


def optimal(solved: Solved) -> np.ndarray:
    """`[N, C, 4]` bool: the moves that lead to the exit soonest; none where there is no way, or no need."""
    distance = solved.distance[..., None]
    open_ = (distance > 0) & (distance < LOST)
    return open_ & (_after(solved.distance, solved.following) == distance - 1)


def towards(solved: Solved) -> np.ndarray:
    """`[N, C, 4]` bool: what one step of foresight takes for best, to end alive and nearest to the exit."""
    size = math.isqrt(solved.boards.shape[1])
    way = np.abs(np.stack(np.divmod(np.arange(size**2), size))[:, :, None] - np.stack(
        np.divmod(solved.boards.argmax(1), size))[:, None]).sum(0).T  # fmt: skip
    way = np.where(solved.boards == TRAP, LOST, way)
    found = _after(way, solved.following)
    found = np.where(solved.following == np.arange(size**2)[None, :, None], LOST, found)  # it must move
    return found == found.min(-1, keepdims=True)


def shown(boards: np.ndarray, places: np.ndarray) -> np.ndarray:
    """`[N, 5 C]` float32, boards `[N, C]` and runners at `places` `[N]` as ones and zeros."""
    kinds = boards[..., None] == np.arange(len(KINDS))
    runner = places[:, None] == np.arange(boards.shape[1])
    return np.concatenate([kinds.reshape(len(boards), -1), runner], axis=1).astype(np.float32)


def futures(solved: Solved, places: np.ndarray, horizon: int) -> np.ndarray:
    """`[N, 1 + 2 horizon]` int32, what runners at `places` `[N]` best do: a move, then places and moves.

    Of equally good moves it is the first one. Where a game is over, or lost, the move is END.
    """
    rows, best, cells = np.arange(len(places)), optimal(solved), solved.boards.shape[1]
    columns: list[np.ndarray] = []
    for _ in range(horizon + 1):
        now = best[rows, places]
        move = np.where(now.any(-1), now.argmax(-1), END)
        columns += [places, cells + move]
        on = solved.following[rows, places, np.minimum(move, END - 1)]
        places = np.where(move == END, places, on)
    return np.stack(columns[1:], axis=1).astype(np.int32)


def read(tokens: np.ndarray, cells: int) -> tuple[np.ndarray, np.ndarray]:
    """Moves `[N, h + 1]` and the places after them `[N, h]` of tokens `[N, 1 + 2 h]`."""
    return tokens[:, ::2] - cells, tokens[:, 1::2]


def puzzles(rng: np.random.Generator, game: Game, count: int, distances: Sequence[int]) -> Solved:
    """`count` solved boards, no two alike, whose start is at one of these distances from the exit.

    Raises:
        UserError: if the game has too few of them.
    """
    kept: list[Solved] = []
    for _ in range(40):
        found = solve(draw(rng, game, max(2 * count, 1000)))
        rows = np.isin(found.distance[:, game.start], np.asarray(distances))
        kept.append(Solved(*(part[rows] for part in found)))
        together = Solved(*(np.concatenate(parts) for parts in zip(*kept, strict=True)))
        first = np.sort(np.unique(together.boards, axis=0, return_index=True)[1])
        kept = [Solved(*(part[first] for part in together))]
        if len(first) >= count:
            return Solved(*(part[:count] for part in kept[0]))
    raise UserError(
        f"{game} has {len(kept[0].boards)} boards at distances {tuple(distances)} in 40 draws, not {count}: "
        "ask for fewer, or other distances"
    )
