"""TQ and SACo on datasets whose values are known."""

import dataclasses

import numpy as np
import pytest
from data_files import ORIGIN, columns, random_episodes

from jdp.data.card import dataset_card, state_action_coverage
from jdp.data.episodes import make_episodes
from jdp.errors import UserError
from jdp.types import Spec

SIDE = 10


def grid(cells: np.ndarray):
    """A dataset that visits the cells `[N, 2]` (observation, action) of a grid."""
    n = len(cells)
    values = columns(n)
    values["observations"] = cells[:, :1].astype(np.float32)
    values["next_observations"] = np.roll(values["observations"], -1, axis=0)
    values["actions"] = (2 * cells[:, 1:] / (SIDE - 1) - 1).astype(np.float32)
    return make_episodes(**values, spec=Spec(1, 1), origin=ORIGIN)


ALL = np.stack(np.meshgrid(np.arange(SIDE), np.arange(SIDE)), -1).reshape(-1, 2)


def test_saco_of_a_grid():
    reference = grid(ALL)
    assert state_action_coverage(reference) == 1.0
    assert state_action_coverage(grid(np.repeat(ALL, 4, axis=0))) == 0.25
    assert state_action_coverage(grid(ALL[::2]), reference) == 0.5
    assert state_action_coverage(grid(np.tile(ALL, (3, 1))), reference) == 1.0
    uniform = ALL[np.random.default_rng(0).integers(len(ALL), size=1000)]
    assert state_action_coverage(grid(uniform), reference) > 0.97
    assert state_action_coverage(grid(ALL[:1].repeat(50, axis=0)), reference) == 0.01


def test_saco_grows_with_the_share_of_exploration():
    rng = np.random.default_rng(0)
    expert = ALL[:SIDE][rng.integers(SIDE, size=200)]
    explorer = ALL[rng.integers(len(ALL), size=200)]
    values = [
        state_action_coverage(grid(np.concatenate([explorer[:k], expert[k:]])), grid(ALL))
        for k in (0, 50, 100, 150, 200)
    ]
    assert values == sorted(values) and values[0] == 0.1


def test_saco_counts_exactly_what_a_set_of_tuples_counts():
    data = random_episodes(0, episodes=300)
    rows = np.concatenate([data.observations, data.actions], 1)
    low, high = rows.min(0), rows.max(0)
    for bins in (2, 5, 100):
        cells = np.minimum((rows - low) / ((high - low) / bins), bins - 1).astype(int)
        assert state_action_coverage(data, bins=bins) == len(set(map(tuple, cells))) / len(data)


def test_saco_refuses_a_reference_of_another_task():
    with pytest.raises(UserError, match="same task"):
        state_action_coverage(grid(ALL), random_episodes(0))


@pytest.mark.parametrize(("reward", "tq"), [(0.0, 0.0), (0.5, 0.5), (1.0, 1.0)])
def test_tq_of_random_mixed_and_best_returns(reward, tq):
    values = columns(20, timeout_rows=[4, 9, 14, 19])
    values["rewards"][:] = reward
    data = make_episodes(**values, spec=Spec(3, 2, score_range=(0.0, 5.0)), origin=ORIGIN)
    card = dataset_card(data)
    assert card.tq == pytest.approx(tq) and card.normalised is not None
    assert (
        card.normalised.mean == pytest.approx(100 * tq)
        and card.saco_reference == "its own number of transitions"
    )


def test_the_card_of_a_small_dataset():
    values = columns(10, terminal_rows=[3], timeout_rows=[5])
    values["next_observations"] = None
    values["actions"][:] = 0.0
    values["actions"][:4, 1] = -1.0
    card = dataset_card(make_episodes(**values, spec=Spec(3, 2), origin=ORIGIN))
    assert (card.transitions, card.episodes, card.unknown_successors) == (10, 3, 2)
    assert card.terminal_share == 0.1 and card.terminated_share == pytest.approx(1 / 3)
    assert card.lengths.minimum == 2 and card.lengths.maximum == 4 and card.lengths.quantiles[2] == 4
    assert card.saturated_actions == (0.0, 0.4)
    assert card.tq is None and card.normalised is None
    assert dataclasses.asdict(card)["origin"]["name"] == "made by hand"
