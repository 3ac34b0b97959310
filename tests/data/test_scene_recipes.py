"""Data of scenes: made where they are missing, equal bytes for equal seeds, laid out as the scene says."""

import numpy as np
import pytest

import jdp.data
from jdp.data.recipes import Making
from jdp.data.recipes.scenes import EPISODES, collect
from jdp.errors import UserError
from jdp.evaluation import check_task, score_name
from jdp.tasks.scenes import SCENES

NAME, ROWS = "jdp/Hidden-v0", 400


@pytest.fixture
def load(tmp_path, monkeypatch):
    """Loads few rows of a scene out of an empty folder, or the one of this name."""

    def loaded(name=NAME, folder="cache", seed=0, **asked):
        monkeypatch.setenv("JDP_DATA_DIR", str(tmp_path / folder))
        return jdp.data.load(name, making=Making(seed=seed, rows=ROWS), **asked)

    return loaded


def test_equal_seeds_give_equal_bytes_and_a_name_that_says_who_made_them(load):
    first, again, other = load(), load(folder="again"), load(seed=1)
    assert first.origin.sha256 == again.origin.sha256 != other.origin.sha256
    assert first.origin.name == "jdp/Hidden-v0 (made by jdp's expert, seed 0, 400 rows)"
    assert (first.origin.kind, first.spec.score_range) == ("recipe", (0.0, 1.0))
    assert "cache/jdp/Hidden-v0-recipe-seed0" in first.origin.path
    assert load().origin == first.origin  # out of the cache
    check_task(first)
    assert score_name(first.spec) == "normalised score"


def test_rows_lead_to_their_next_rows_and_experts_are_rewarded(load):
    data = load()
    inside = np.setdiff1d(np.arange(len(data)), data.stops - 1)
    np.testing.assert_array_equal(data.next_observations[inside], data.observations[inside + 1])
    np.testing.assert_array_equal(data.rewards, data.terminals)
    assert data.terminated[:-1].all() and data.stops[-1] == ROWS  # the last episode is cut
    assert 0.05 < np.abs(data.actions).mean() <= 1.0 == np.abs(data.actions).max()


def test_more_rows_begin_with_fewer_also_over_batches_of_episodes(load):
    few, many = load(), collect(SCENES[NAME], 0, 6_000)
    np.testing.assert_array_equal(many["observations"][:ROWS], few.observations)
    starts = many["observations"][1:][many["terminals"][:-1]]
    assert len(starts) > EPISODES and len(np.unique(starts, axis=0)) == len(starts)


def test_a_variation_is_played_with_the_data_of_its_scene(load):
    with pytest.raises(UserError, match="give --env jdp/Clean-v0 --env-id jdp/Corrupted-v0"):
        load("jdp/Corrupted-v0")
    played = load("jdp/Clean-v0", env_id="jdp/Corrupted-v0")
    assert (played.spec.env_id, played.spec.score_range) == ("jdp/Corrupted-v0", (0.0, 1.0))
    check_task(played)


def test_the_same_name_is_asked_of_minari_where_there_is_no_scene(load):
    with pytest.raises(UserError, match="Minari"):
        load("jdp/Nothing-v0")
    with pytest.raises(UserError, match=r"no recipe makes 'jdp/DoubleIntegrator-v0'.*jdp/Cue-v0"):
        load("jdp/DoubleIntegrator-v0", source="recipe")
