"""DiTree: what its network learns from, and that its trees find ways in new mazes soon."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdp.errors import UserError
from jdp.loops.fit import fit
from jdp.planners import ditree, edges, tree
from jdp.planners.ditree import EdgeConfig
from jdp.tasks import Maze, held_ball, random_mazes
from jdp.tasks.held_ball import HOLD, Walks
from jdp.tasks.maze2d_ball import RADIUS
from jdp.tasks.simulators.point_maze import Walls, ball_step, grid_of
from jdp.types import Bound

KEY = jax.random.key(0)
SMALL = EdgeConfig(horizon=3, features=16, blocks=1, batch_size=40, sampling_steps=2)


def test_velocities_are_where_actions_lead_and_back():
    rng = np.random.default_rng(0)
    velocity = jnp.asarray(rng.uniform(-1, 1, (6, 2)), jnp.float32)
    action = jnp.asarray(rng.uniform(-0.5, 0.5, (6, 4, 2)), jnp.float32)
    found = ditree.velocities(velocity, action)
    np.testing.assert_allclose(ditree.actions(velocity, found), action, atol=1e-5)
    nowhere = grid_of(Maze(("." * 40,) * 40))  # and no wall near
    for row in range(2):
        state = jnp.concatenate([jnp.zeros(2), velocity[row]])
        for a, expected in zip(action[row], found[row], strict=True):
            state = held_ball.move(nowhere, state, a)[0]
            np.testing.assert_allclose(state[2:], expected, atol=1e-5)


def fake_walks(free, kicked, left, seed=0):
    """One walker in one maze, whose states and actions count the steps."""
    length = len(free)
    rows = np.arange(length, dtype=np.float32)
    state = np.stack([rows / 100, rows * 0, rows * 0 + 0.5, rows * 0], axis=-1)
    action = np.stack([rows / 1000, -rows / 1000], axis=-1)
    flags = (np.asarray(x, bool) for x in (free, kicked, left))
    return jax.tree.map(lambda x: jnp.asarray(x)[None, None], Walks(state, action, *flags))


GRIDS = random_mazes.grids_of([random_mazes.corridors(np.random.default_rng(0), 3)])


def fake_data():
    rng = np.random.default_rng(2)
    free, kicked, left = rng.random(60) < 0.9, rng.random(60) < 0.1, rng.random(60) < 0.1
    return free, kicked, left, ditree.pieces(fake_walks(free, kicked, left), GRIDS, SMALL.horizon)


def test_pieces_are_without_kicks_and_walls_and_on_the_way_to_one_goal():
    free, kicked, left, data = fake_data()
    expected = [
        t
        for t in range(60 - 2)
        if free[t : t + 3].all() and not kicked[t + 1 : t + 3].any() and not left[t : t + 2].any()
    ]
    np.testing.assert_array_equal(data.rows, [[0, 0, t] for t in expected])
    ends = [next((u for u in range(t, 60) if left[u]), 59) for t in range(60)]
    np.testing.assert_array_equal(data.end[0, 0], ends)
    with pytest.raises(UserError, match="no walk has 3 actions without a kick or a wall: make longer walks"):
        ditree.pieces(fake_walks(free * 0, kicked, left), GRIDS, 3)


def test_a_batch_shows_the_way_to_a_later_place_of_the_same_walk_and_hides_its_actions_in_velocities():
    *_, data = fake_data()
    batch = jax.tree.map(np.asarray, jax.jit(Bound(ditree.draw, (("config", SMALL),)))(KEY, data))
    assert batch.seen.shape == (40, 25 + 2 + 2 + 3)
    ends = np.asarray(data.end[0, 0])
    velocity = jnp.tile(jnp.array([0.5, 0.0]), (40, 1))
    action = np.asarray(ditree.actions(velocity, velocity[:, None] + batch.change))
    steps = np.rint(action[:, 0, 0] * 1000).astype(int)  # the actions count them
    np.testing.assert_allclose(action[:, :, 0], (steps[:, None] + np.arange(3)) / 1000, atol=2e-5)
    np.testing.assert_allclose(action[:, :, 1], -action[:, :, 0], atol=2e-5)
    assert set(steps) <= set(np.asarray(data.rows)[:, 2].tolist()) and len(set(steps)) > 5
    later = np.rint(batch.seen[:, -1] * 4.0 * 100).astype(int)  # m of the way, of .01 m a step
    assert ((later >= 2) & (steps + later <= ends[steps])).all() and (later > 2).any()
    way = np.maximum(later / 100, 1e-9) / np.maximum(later / 100, 0.05)
    np.testing.assert_allclose(batch.seen[:, -3], way, atol=1e-4)


def test_proposals_are_actions_and_other_weights_compile_nothing():
    *_, data = fake_data()
    traces = []

    @jax.jit
    def propose(proposer, key, grid, state, target):
        traces.append(1)
        return proposer(key, grid, state, target)

    state = ditree.first_state(KEY, data, SMALL)
    args = (
        KEY,
        jax.tree.map(lambda x: jnp.concatenate([x, x]), GRIDS),
        jnp.array([[-2.0, 2.0, 0.0, 4.0]] * 2),
        jnp.zeros((2, 2)),
    )
    found = propose(ditree.proposer(state, SMALL), *args)
    other = propose(ditree.proposer(state._replace(std=3.0 * state.std), SMALL), *args)
    assert found.shape == (2, 3, 2) and (np.abs(found) <= 1).all() and (np.abs(other) <= 1).all()
    assert len(traces) == 1 and not np.allclose(found, other)


@pytest.mark.slow
@pytest.mark.optimised
def test_diffusion_needs_fewer_expansions_than_random_edges_in_new_mazes_and_no_path_touches_a_wall():
    config, rng = EdgeConfig(steps=2500, features=128), np.random.default_rng(0)
    grids = random_mazes.grids_of([random_mazes.corridors(rng, 3, 3) for _ in range(32)])
    cells, steps = (jnp.asarray(x) for x in random_mazes.ways(np.asarray(grids.blocked)))
    walk = jax.jit(held_ball.walks, static_argnames=("walkers", "length"))
    data = ditree.pieces(walk(KEY, grids, cells, steps, walkers=8, length=300), grids, config.horizon)
    update, draw = (Bound(f, (("config", config),)) for f in (ditree.update, ditree.draw))
    state = fit(update, draw, ditree.first_state(KEY, data, config), data, key=KEY, stop=config.steps)
    mazes = [random_mazes.corridors(np.random.default_rng(100 + i), 4, 4) for i in range(24)]  # larger ones
    at = random_mazes.places(rng, mazes, 6)
    problem = edges.Problem(random_mazes.grids_of(mazes), jnp.asarray(at.start), jnp.asarray(at.goal))
    plan = jax.jit(tree.plan, static_argnames=("system", "config", "longest"))
    found = {}
    for name, proposer, grow in (
        ("diffusion", ditree.proposer(state, config), edges.TreeConfig(expansions=100)),
        ("random", edges.uniform(2, 8), edges.TreeConfig(expansions=100, piece=8, durations=(1,))),
    ):
        search = plan(KEY, problem, proposer, system=ditree.system(), config=grow, longest=600)
        found[name] = jax.tree.map(np.asarray, search)
    success = {name: search.path.found.mean() for name, search in found.items()}
    tried = {name: search.expansions.mean() for name, search in found.items()}
    assert success["diffusion"] > success["random"] + 0.3 and 2 * tried["diffusion"] < tried["random"], (
        success,
        tried,
    )
    replay = jax.jit(replayed)
    for i in np.flatnonzero(found["diffusion"].path.found):
        path = jax.tree.map(lambda x, i=i: x[i], found["diffusion"].path)
        way = np.asarray(replay(jax.tree.map(lambda x, i=i: x[i], problem.world), path.state[0], path.action))
        way = np.concatenate([path.state[:1, :2], way])[: HOLD * path.length + 1]
        np.testing.assert_allclose(way[::HOLD], path.state[: path.length + 1, :2], atol=1e-3)
        parts = np.linspace(0, 1, 20)[:, None] * np.diff(way, axis=0)[:, None]
        fine = (way[:-1, None] + parts).reshape(-1, 2)
        walls = mazes[i].cell_to_xy(np.argwhere(~mazes[i].free))
        gap = np.maximum(np.abs(fine[:, None] - walls) - 0.5, 0)
        assert np.linalg.norm(gap, axis=-1).min() > RADIUS


def replayed(grid, start, actions):
    """Positions after every step of .01 s, by PointMaze's own step with its contacts."""

    def step(state, action):
        state = jnp.concatenate(ball_step(state[:2], state[2:], action, grid=grid, walls=Walls()))
        return state, state[:2]

    return jax.lax.scan(step, start, jnp.repeat(actions, HOLD, axis=0))[1]
