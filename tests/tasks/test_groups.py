"""Named groups of an observation's entries."""

import dataclasses

import pytest

from jdp.errors import UserError
from jdp.runs.settings import from_dict
from jdp.tasks import groups
from jdp.tasks.simulators import observed_goal, simulator
from jdp.types import Spec


@pytest.mark.parametrize(
    "env_id, width, position, velocity",
    [
        ("PointMaze_Large-v3", 4, range(2), range(2, 4)),
        ("jdp/DoubleIntegrator-v0", 4, range(2), range(2, 4)),
        ("Hopper-v5", 11, range(5), range(5, 11)),
        ("HalfCheetah-v4", 17, range(8), range(8, 17)),
        ("Ant-v5", 105, range(13), range(13, 27)),
    ],
)
def test_mazes_and_bodies_have_positions_and_velocities(env_id, width, position, velocity):
    known = dict(groups.groups_of(Spec(width, 2, env_id)))
    assert known["position"] == tuple(position) and known["velocity"] == tuple(velocity)
    assert sorted(sum(known.values(), ())) == list(range(width))


def test_other_tasks_have_one_group_of_everything():
    assert groups.groups_of(Spec(3, 1, "Pendulum-v1")) == (("observation", (0, 1, 2)),)
    with pytest.raises(UserError, match="Pendulum-v1 has no group 'position', but observation: choose"):
        groups.group(Spec(3, 1, "Pendulum-v1"), "position")


def test_what_a_user_names_beats_what_is_known():
    spec = Spec(4, 2, "PointMaze_Large-v3", groups=groups.parse(["a:0,2-3", "b:1"], 4))
    assert groups.group(spec, "a") == (0, 2, 3) and groups.group(spec, "b") == (1,)
    assert from_dict(Spec, dataclasses.asdict(spec)) == spec


@pytest.mark.parametrize(
    "told, match",
    [
        (["a"], "--groups a: write each group once"),
        (["a:"], "write each group once"),
        (["a:x"], "write each group once"),
        (["a:0-1", "a:2-3"], "--groups a:2-3: write each group once"),
        (["a:0-4"], "--groups a:0-4: the observation has the entries 0 to 3"),
        (["a:3-2"], "--groups a:3-2: .* entries from low to high"),
    ],
)
def test_groups_that_cannot_be_read_are_refused(told, match):
    with pytest.raises(UserError, match=match):
        groups.parse(told, 4)


@pytest.mark.parametrize("named", [(("a", (0, 1)),), (("a", (0, 1)), ("b", (1, 2)))])
def test_groups_must_cover_the_observation_once(named):
    with pytest.raises(UserError, match="must name each of the observation's entries 0 to 2 once"):
        Spec(3, 1, groups=named)


def test_an_observed_goal_is_a_group_of_its_own():
    task = simulator("PointMaze_UMaze-v3")
    named = task._replace(spec=dataclasses.replace(task.spec, groups=groups.groups_of(task.spec)))
    assert groups.group(observed_goal(named).spec, "goal") == (4, 5)
    assert groups.group(observed_goal(named).spec, "velocity") == (2, 3)
