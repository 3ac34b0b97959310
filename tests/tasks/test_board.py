"""The board game against a search that is written out, and its tokens."""

from collections import deque

import numpy as np
import pytest

from jdp.errors import UserError
from jdp.tasks import board

GAME = board.Game(4, walls=3, traps=2)
SOLVED = board.solve(board.draw(np.random.default_rng(0), GAME, 300))
START = np.full(300, GAME.start)


def slid(cells, size, at, move):
    """One slide, cell by cell."""
    row, column = divmod(at, size)
    while cells[row * size + column] == board.FREE:
        r, c = row + move[0], column + move[1]
        if not (0 <= r < size and 0 <= c < size) or cells[r * size + c] == board.WALL:
            break
        row, column = r, c
    return row * size + column


def moves_needed(cells, size, at):
    """Breadth first from one cell forward, where the library goes backwards from the exit."""
    seen, queue = {at}, deque([(at, 0)])
    while queue:
        at, count = queue.popleft()
        if cells[at] == board.EXIT:
            return count
        for after in {slid(cells, size, at, move) for move in board.MOVES} - seen:
            seen.add(after)
            queue.append((after, count + 1))
    return board.LOST


def test_boards_are_what_is_asked_for():
    counts = [(SOLVED.boards == kind).sum(1) for kind in (board.WALL, board.TRAP, board.EXIT)]
    assert all((count == n).all() for count, n in zip(counts, (3, 2, 1), strict=True))
    assert (SOLVED.boards[:, GAME.start] == board.FREE).all()
    assert len(np.unique(SOLVED.boards, axis=0)) > 290


def test_labels_are_those_of_a_search():
    """Distances and optimal moves of 60 boards, all cells."""
    for n in range(60):
        cells, best = SOLVED.boards[n], board.optimal(SOLVED)[n]
        for at in np.flatnonzero(cells == board.FREE):
            ends = [slid(cells, 4, at, move) for move in board.MOVES]
            np.testing.assert_array_equal(SOLVED.following[n, at], ends)
            needed = [moves_needed(cells, 4, end) for end in ends]
            assert SOLVED.distance[n, at] == min(1 + min(needed), board.LOST)
            right = np.array(needed) == min(needed) if min(needed) < board.LOST else np.zeros(4, bool)
            np.testing.assert_array_equal(best[at], right)


def test_boards_of_other_sizes_are_solved():
    """A corridor: right to the exit, and a trap the other way."""
    cells = np.array([[board.TRAP, 0, board.EXIT, 1, 1, 1, 1, 1, 1]], np.int8)
    found = board.solve(cells)
    assert found.distance[0, :3].tolist() == [board.LOST, 1, 0]
    assert board.optimal(found)[0, 1].tolist() == [False, False, False, True]
    with pytest.raises(UserError, match="boards of 8 cells are no squares"):
        board.slides(cells[:, :8])


def test_futures_are_played_and_read_back():
    """Each place is where its move ends, each move one step nearer, and the end lasts."""
    tokens = board.futures(SOLVED, START, 3)
    moves, places = board.read(tokens, GAME.cells)
    low, high = np.array(GAME.spans(3)).T
    assert ((tokens >= low) & (tokens < high)).all() and tokens.shape[1] == len(low)
    rows, at = np.arange(300), START
    for step in range(4):
        distance, over = SOLVED.distance[rows, at], moves[:, step] == board.END
        np.testing.assert_array_equal(over, (distance == 0) | (distance == board.LOST))
        if step < 3:
            ends = SOLVED.following[rows, at, np.minimum(moves[:, step], 3)]
            np.testing.assert_array_equal(places[:, step], np.where(over, at, ends))
            nearer = SOLVED.distance[rows, places[:, step]] == distance - 1
            assert (nearer | over).all()
            at = places[:, step]
    np.testing.assert_array_equal(board.futures(SOLVED, START, 0), tokens[:, :1])
    shown = board.shown(SOLVED.boards, START)
    assert shown.shape == (300, GAME.present)
    np.testing.assert_array_equal(shown[:, :64].reshape(300, 16, 4).argmax(-1), SOLVED.boards)
    np.testing.assert_array_equal(shown[:, 64:].argmax(-1), START)


def test_one_step_of_foresight_is_not_enough():
    """Where three moves are needed and all else is the same, going towards the exit is often wrong."""
    found = board.puzzles(np.random.default_rng(1), board.Game(), 400, (3, 4))
    assert set(found.distance[:, board.Game().start]) == {3, 4}
    assert len(np.unique(found.boards, axis=0)) == 400
    best, simple = (of(found)[:, board.Game().start] for of in (board.optimal, board.towards))
    share = ((best & simple).sum(1) / simple.sum(1)).mean()
    assert best.mean() < share < 0.75


def test_what_a_game_cannot_be():
    with pytest.raises(UserError, match=r"Game\.traps is 9; it must lie between 0 and 6"):
        board.Game(3, walls=1, traps=9)
    with pytest.raises(UserError, match=r"at distances \(11,\) in 40 draws, not 5"):
        board.puzzles(np.random.default_rng(0), board.Game(2, 0, 0), 5, (11,))
