"""A D4RL-style family: which policies it is of, what its sets are made of, and what they are called."""

import numpy as np
import pytest

import jdp.data
from jdp.data.d4rl import read
from jdp.data.export import save_d4rl
from jdp.data.family import Snapshot, check_task, choose, facts_of, joined, made_by
from jdp.errors import UserError
from jdp.types import Spec, Transition

SPEC = Spec(3, 2, "Hopper-v5", 1000)


def test_the_expert_is_the_best_and_medium_at_a_third_before_it():
    returns = [20.0, 400.0, 1300.0, 1100.0, 3000.0, 980.0, 3000.0]
    medium, expert = choose([Snapshot(100 * i, r) for i, r in enumerate(returns)], random_return=0.0)
    assert expert == (400, 3000.0)  # the first of two equals
    assert medium == (300, 1100.0)  # 980 at 500 is nearer to 1000, and of a policy after the expert


def test_a_third_is_measured_from_the_random_policy():
    halfway = [Snapshot(1, -200.0), Snapshot(2, 0.0), Snapshot(3, 600.0)]
    assert choose(halfway, random_return=-300.0).medium == (2, 0.0)  # -300 + 900 / 3
    assert choose(halfway, random_return=-600.0).medium == (1, -200.0)
    assert choose(halfway[:1], random_return=0.0) == ((1, -200.0), (1, -200.0))


def test_the_earlier_of_two_policies_as_near_is_medium():
    found = choose([Snapshot(3, 9.0), Snapshot(1, 2.0), Snapshot(2, 4.0)], random_return=0.0)
    assert found.medium == (1, 2.0)


def test_what_was_never_scored_is_no_policy_of_a_family():
    with pytest.raises(UserError, match="no snapshot"):
        choose([Snapshot(1, float("nan"))], 0.0)


def rows(count: int, seed: int) -> Transition:
    rng = np.random.default_rng(seed)
    seen = rng.normal(size=(count + 1, 3)).astype(np.float32)
    action = rng.uniform(-1, 1, (count, 2)).astype(np.float32)
    reward = rng.normal(size=count).astype(np.float32)
    terminal = (np.arange(count) % 5 == 4).astype(np.float32)
    return Transition(seen[:-1], action, reward, seen[1:], terminal)  # type: ignore[arg-type]


def test_medium_expert_is_both_sets_one_after_the_other(tmp_path):
    paths = [tmp_path / "medium.hdf5", tmp_path / "expert.hdf5", tmp_path / "both.hdf5"]
    for i, path in enumerate(paths[:2]):
        save_d4rl(path, rows(12 + i, i), spec=SPEC)
    save_d4rl(paths[2], *joined(*(jdp.data.load(str(path)) for path in paths[:2])), spec=SPEC)
    medium, expert, both = map(read, paths)
    for name in ("observations", "actions", "rewards", "next_observations", "terminals", "timeouts"):
        parts = [getattr(medium, name), getattr(expert, name)]
        np.testing.assert_array_equal(getattr(both, name), np.concatenate(parts))
    assert both.timeouts is not None and both.timeouts[11]  # where the first set was cut


def test_a_set_says_what_it_is_and_never_that_it_is_d4rls(tmp_path):
    told = made_by("medium", "SAC", 3, medium=46_000, expert=120_000)
    save_d4rl(tmp_path / "x.hdf5", rows(12, 0), spec=SPEC, metadata=facts_of("medium", SPEC, told))
    origin = jdp.data.load(str(tmp_path / "x.hdf5")).origin
    assert origin.name == "hopper-medium (d4rl-style: SAC of jdp, seed 3, 46,000 steps)"
    assert "only if these are D4RL's data" in origin.notice
    assert made_by("medium-replay", "SAC", 0, 7, 9) == "SAC of jdp, seed 0, the first 7 steps"
    assert made_by("medium-expert", "SAC", 0, 7, 9) == "SAC of jdp, seed 0, 7 and 9 steps"
    with pytest.raises(UserError, match="made of Hopper-v5, HalfCheetah-v5, Walker2d-v5"):
        check_task("Ant-v5")
