"""Data of scenes: made where they are missing, equal bytes for equal seeds, laid out as the scene says."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jdp.data
from jdp.data.recipes import Making
from jdp.data.recipes.scenes import EPISODES, collect, planner_of, recipe_of
from jdp.errors import UserError
from jdp.evaluation import check_task, score_name
from jdp.tasks.scenes import SCENES, Planner, scene
from jdp.types import Stepped

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


def _begin(key):
    return jax.random.uniform(key, (2,), minval=-0.5, maxval=0.5)


def _walk(key, state, action):
    """From where it is in strides of .3; the right edge is the goal, and all beyond 1 up or down fails."""
    state = state + 0.3 * action
    return state, state[0] > 1.0, jnp.abs(state[1]) > 1.0


def _told(key, state, action):
    after, success, failed = _walk(key, state, action)
    reward = after[0] - state[0]
    return after, Stepped(after, reward, success | failed, success)


SMALL = (("horizon", 2), ("samples", 16), ("elites", 4), ("iterations", 2))
TOY = scene(
    "jdp/Toy-v0",
    12,
    (("position", 2),),
    reset=_begin,
    observe=jnp.asarray,
    move=_walk,
    expert=Planner("cem", SMALL, _told),
    noise=0.4,
    state_of=jnp.asarray,
)


def test_a_clone_of_a_planner_is_told_what_was_planned_where_noise_led():
    noisy, again = collect(TOY, 0, 600), collect(TOY, 0, 600)
    quiet = collect(TOY._replace(noise=0.0), 0, 600)
    for name, column in noisy.items():
        assert column.tobytes() == again[name].tobytes()
    added = noisy["executed"] - noisy["actions"]
    inside = np.abs(noisy["executed"]) < 1
    assert 0.3 < added[:, 1][inside[:, 1]].std() < 0.45
    np.testing.assert_array_equal(quiet["executed"], quiet["actions"])
    moved = noisy["observations"] + np.float32(0.3) * noisy["executed"]
    np.testing.assert_allclose(noisy["next_observations"], moved, atol=1e-6)
    # In the first step of an episode nothing has been executed: there the plans are the same, bit by bit.
    plans = {
        row.tobytes(): action for row, action in zip(quiet["observations"], quiet["actions"], strict=True)
    }
    known = [i for i, row in enumerate(noisy["observations"]) if row.tobytes() in plans]
    assert len(known) > 30
    for i in known:
        np.testing.assert_array_equal(noisy["actions"][i], plans[noisy["observations"][i].tobytes()])
    ends = noisy["terminals"] | noisy["timeouts"]
    np.testing.assert_array_equal(noisy["rewards"] > 0, ends)  # failures are left out


def test_the_file_of_a_planner_says_so_and_a_functions_scene_has_none():
    facts = recipe_of(TOY).facts
    assert str(facts["planner"]).startswith("cem (horizon 2") and str(facts["actions"]).startswith(
        "as planned"
    )
    assert "planner" not in recipe_of(SCENES[NAME]).facts
    with pytest.raises(UserError, match="expert of jdp/Hidden-v0 is a function"):
        planner_of(SCENES[NAME])


def test_the_same_name_is_asked_of_minari_where_there_is_no_scene(load):
    with pytest.raises(UserError, match="Minari"):
        load("jdp/Nothing-v0")
    with pytest.raises(UserError, match=r"no recipe makes 'jdp/DoubleIntegrator-v0'.*jdp/Cue-v0"):
        load("jdp/DoubleIntegrator-v0", source="recipe")
