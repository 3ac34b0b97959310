"""Kinodynamic trees of a pushed point among discs: what they are, what paths keep, what is told."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from two_rooms import counted

from jdp.errors import UserError
from jdp.planners.edges import Problem, System, TreeConfig, led, uniform
from jdp.planners.tree import NONE, plan
from jdp.tasks.scenes.point import TIME_STEP, pushed, steer

MARGIN, REACHED = 0.02, 0.2
SHARES = np.arange(1, 6) / 5  # of a step, at which `step` looks


def between(position, velocity, after, share):
    """Where a pushed point is within a step: its acceleration is constant."""
    time = TIME_STEP * share[:, None]
    return position + time * velocity + time**2 * (after - velocity) / (2 * TIME_STEP)


def apart(world, points):
    """`[N]`, m from points `[N, 2]` to the nearest of the discs `[K, 3]`, and to the edge of the square."""
    discs = jnp.linalg.norm(points[:, None] - world[None, :, :2], axis=-1) - world[None, :, 2]
    return jnp.minimum(discs.min(1), 1.0 - jnp.abs(points).max(1))


def step(world, state, action):
    position, velocity = pushed(state[:2], state[2:], action)
    points = between(state[:2][None], state[2:][None], velocity[None], jnp.asarray(SHARES, jnp.float32))
    return jnp.concatenate([position, velocity]), jnp.all(apart(world, points) > MARGIN)


def free(world, state):
    return apart(world, state[None, :2])[0] > MARGIN


def position(state):
    return state[..., :2]


def sample(key, world):
    return jax.random.uniform(key, (2,), minval=-1.0)


def law(state, place):
    return steer(state[:2], state[2:], place, 0.8)


POINT = System(step, free, position, sample, REACHED)
CONFIG = TreeConfig(expansions=250, piece=5, durations=(2, 1), collision="cut", goal_bias=0.85)
RING = [(0.4 + 0.3 * np.cos(a), 0.3 * np.sin(a), 0.13) for a in np.arange(8) * np.pi / 4]
AWAY = [(9.0, 9.0, 0.1)]
FEASIBLE, RINGED, IN_DISC, THERE, OPEN = slice(0, 4), 4, 5, 6, 7


def problems(seed):
    """Four with discs at random, a goal in a ring, a start in a disc, a start at its goal, and none."""
    rng = np.random.default_rng(seed)
    some = [[(0.0, rng.uniform(-0.1, 0.1), 0.15), (0.0, 0.9, 0.2), *AWAY * 6] for _ in range(4)]
    worlds = [*some, RING, [(-0.4, 0.0, 0.2), *AWAY * 7], AWAY * 8, AWAY * 8]
    start = np.tile([-0.4, 0.0, 0.0, 0.0], (8, 1))
    goal = np.tile([0.4, 0.0], (8, 1))
    goal[THERE] = -0.4, 0.1
    return Problem(*(jnp.asarray(x, jnp.float32) for x in (np.array(worlds), start, goal)))


PLAN, TRACES = counted(
    lambda key, problem, proposer: plan(key, problem, proposer, system=POINT, config=CONFIG)
)


@pytest.fixture(scope="module")
def found():
    """A search with actions at random."""
    problem = problems(0)
    return problem, jax.tree.map(np.asarray, PLAN(jax.random.key(0), problem, uniform(2, 5)))


def replayed(start, actions):
    """States after each action, in numpy."""
    state = np.array(start, np.float32)
    for a in actions:
        after = np.clip(state[2:] + TIME_STEP * a, -1, 1)
        state = np.concatenate([state[:2] + TIME_STEP * (state[2:] + after) / 2, after])
        yield state


def test_what_is_there_is_a_tree_from_the_start_and_its_edges_are_the_dynamics(found):
    problem, search = found
    tree = search.tree
    for b, count in enumerate(tree.count):
        parent, length = tree.parent[b], tree.length[b]
        assert parent[0] == NONE and (parent[count:] == NONE).all() and length[0] == 0
        inside = np.arange(1, count)
        assert ((parent[inside] >= 0) & (parent[inside] < inside)).all()  # so all lead to the start
        np.testing.assert_array_equal(tree.state[b, 0], problem.start[b])
        for node in inside[:40]:
            rows = tree.action[b, node, : length[node]]
            states = list(replayed(tree.state[b, parent[node]], rows))
            np.testing.assert_allclose(tree.passed[b, node, : length[node]], states, atol=2e-6)
            np.testing.assert_array_equal(tree.passed[b, node, length[node] - 1], tree.state[b, node])
        assert tree.visits[b].sum() == search.expansions[b] >= count - 1
    assert tree.count.max() > 40 and (tree.length[FEASIBLE] % CONFIG.piece == 0).mean() > 0.9


def test_paths_are_what_their_actions_lead_to_and_touch_nothing_at_fifty_places_a_step(found):
    problem, search = found
    assert search.path.found[FEASIBLE].sum() >= 3 and search.path.found[OPEN]
    fine = np.arange(51) / 50
    for b in np.flatnonzero(search.path.found):
        length, states = search.path.length[b], search.path.state[b]
        actions = search.path.action[b]
        np.testing.assert_array_equal(states[0], problem.start[b])
        if length:
            np.testing.assert_allclose(
                states[1 : length + 1], list(replayed(states[0], actions[:length])), atol=1e-4
            )
        np.testing.assert_array_equal(states[length:], np.broadcast_to(states[length], states[length:].shape))
        assert (actions[length:] == 0).all() and (np.abs(actions) <= 1).all()
        assert np.linalg.norm(states[length, :2] - np.asarray(problem.goal[b])) <= REACHED
        world = np.asarray(problem.world[b])
        for now, after in itertools.pairwise(states[: length + 1]):
            points = between(now[None, :2], now[None, 2:], after[None, 2:], fine)
            gaps = np.linalg.norm(points[:, None] - world[None, :, :2], axis=-1) - world[None, :, 2]
            assert gaps.min() > 0 and np.abs(points).max() < 1


def test_what_has_no_path_is_told(found):
    _, search = found
    assert (
        not search.path.found[[RINGED, IN_DISC]].any() and (search.path.length[[RINGED, IN_DISC]] == 0).all()
    )
    assert search.tree.goal[RINGED] == NONE
    np.testing.assert_array_equal(search.expansions[[RINGED, IN_DISC, THERE]], [CONFIG.expansions, 0, 0])
    assert search.path.found[THERE] and search.path.length[THERE] == 0


def test_who_knows_the_way_needs_few_expansions_and_other_worlds_compile_nothing(found):
    before = len(TRACES)
    search = PLAN(jax.random.key(3), problems(1), led(law, POINT, 5))
    assert search.path.found[OPEN] and search.expansions[OPEN] <= 3 < found[1].expansions[OPEN]
    for seed in (2, 3):
        other = PLAN(jax.random.key(seed), problems(seed), led(law, POINT, 5))
    assert len(TRACES) == before + 1 and other.path.found[FEASIBLE].any()


def test_what_cannot_be_grown_is_told():
    with pytest.raises(
        UserError, match=r"the proposer gives \(8, 3, 2\): needed are \[B, T, A\], T at least"
    ):
        plan(jax.random.key(0), problems(0), uniform(2, 3), system=POINT, config=CONFIG)
    with pytest.raises(UserError, match=r"TreeConfig\.durations is \(\): give one number of pieces or more"):
        TreeConfig(durations=())
    with pytest.raises(UserError, match=r"TreeConfig\.collision is 'stop': choose one of drop, cut"):
        TreeConfig(collision="stop")
