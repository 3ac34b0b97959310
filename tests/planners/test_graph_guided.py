"""Graph-guided planning: the graph against scipy and loops, waypoints, and two rooms crossed in pieces."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.sparse.csgraph import dijkstra
from two_rooms import (
    CELLS,
    DISTANCE,
    DOOR,
    PAIRS,
    SPEC,
    counted,
    exact_model,
    move,
    rows_of_walks,
    wandering,
)

from jdp.data import batches
from jdp.diffusion.guidance import pulled
from jdp.errors import UserError
from jdp.learning.inverse import Inverse, InverseConfig
from jdp.planners import SamplingConfig, parts
from jdp.planners.graph import Graph, build_graph, episode_ends, farthest_points, nearest
from jdp.planners.graph_guided import GraphGuidedConfig, graph_guided
from jdp.planners.routes import route, tour, walk, waypoints
from jdp.types import Spec, bind

V, H = len(CELLS), 6  # episodes of H rows: none spans both rooms from end to end
WALKS = np.array([wandering(np.random.default_rng(i), CELLS[i % V], H) for i in range(6000)])
BUILD = jax.jit(build_graph, static_argnums=(3, 4))
ROUTE = jax.jit(route, static_argnames=("horizon", "rows", "stride", "spacing"))


@pytest.fixture(scope="module")
def cells():
    """The graph whose landmarks are all cells, and the number of each cell in it."""
    rows, _ = rows_of_walks(WALKS, H)
    graph = BUILD(jax.random.key(0), rows, jnp.asarray(rows.observation), V, 3)
    number = {tuple(c): i for i, c in enumerate(np.asarray(graph.observation).astype(int))}
    assert set(number) == set(CELLS)
    return graph, number


def test_costs_are_steps_around_the_wall(cells):
    graph, number = cells
    for a, b in PAIRS:
        assert graph.cost[number[a], number[b]] == pytest.approx(DISTANCE[b][a], abs=1e-4)
    assert graph.pace == pytest.approx(1, rel=1e-5)


def lines(rng, episodes, length):
    """Noisy straight walks in a square, `[E, L, 2]`."""
    begin, end = rng.uniform(-1, 1, (2, episodes, 1, 2))
    share = np.linspace(0, 1, length)[None, :, None]
    return begin + (end - begin) * share + 0.02 * rng.normal(size=(episodes, length, 2))


def test_edges_are_mean_steps_between_passages():
    """A reference in loops: visits of cells, each passed where it is nearest; too slow ones do not count."""
    episodes, length, count, reach = 40, 30, 12, 8
    walks = lines(np.random.default_rng(0), episodes, length)
    rows, _ = rows_of_walks(walks, length)
    # Starts only where ten rows fit: the rest of the episode still belongs to it.
    rows = rows._replace(
        starts=(np.arange(episodes * 21) // 21 * length + np.arange(episodes * 21) % 21).astype(np.int32),
        last=(np.arange(episodes * 21) // 21 * length + length - 1).astype(np.int32),
    )
    graph = jax.device_get(BUILD(jax.random.key(1), rows, jnp.asarray(rows.observation), count, reach))
    gap = np.linalg.norm(rows.observation[:, None] - graph.position[None], axis=-1)
    cell, gap = gap.argmin(1), gap.min(1)
    found = {}
    for e in range(episodes):
        visits = []
        for i in range(e * length, (e + 1) * length):
            if not visits or cell[i] != cell[visits[-1][-1]]:
                visits.append([])
            visits[-1].append(i)
        passed = [v[int(np.argmin(gap[v]))] for v in visits]
        for i, j in itertools.pairwise(passed):
            if j - i <= reach:
                found.setdefault((cell[i], cell[j]), []).append(j - i)
    expected = np.full((count, count), np.inf)
    for pair, steps in found.items():
        expected[pair] = np.mean(steps)
    np.fill_diagonal(expected, 0)
    np.testing.assert_allclose(graph.edge, expected, rtol=1e-5)
    assert len(found) > count


@pytest.mark.parametrize("reach", [4, 30])
def test_costs_are_those_of_dijkstra_and_hops_follow_them(reach):
    walks = lines(np.random.default_rng(1), 60, 30)
    rows, _ = rows_of_walks(walks, 30)
    graph = jax.device_get(BUILD(jax.random.key(2), rows, jnp.asarray(rows.observation), 25, reach))
    np.testing.assert_allclose(
        graph.cost, dijkstra(np.where(np.isfinite(graph.edge), graph.edge, 0)), rtol=1e-5
    )
    u, v = np.indices(graph.cost.shape)
    reachable = np.isfinite(graph.cost) & (u != v)
    first = graph.edge[u, graph.hop] + graph.cost[graph.hop, v]
    np.testing.assert_allclose(first[reachable], graph.cost[reachable], rtol=1e-5)
    assert (graph.hop[reachable] != u[reachable]).all()
    assert (graph.hop[~reachable] == u[~reachable]).all()
    if reach == 4:
        assert not np.isfinite(graph.cost).all()  # slow steps were left out


def test_farthest_points_cover_the_data():
    points = jax.random.normal(jax.random.key(0), (500, 2))
    chosen = np.asarray(points)[
        np.asarray(jax.jit(farthest_points, static_argnums=2)(jax.random.key(1), points, 20))
    ]
    apart = np.linalg.norm(chosen[:, None] - chosen[None], axis=-1)[np.triu_indices(20, 1)]
    cover = np.linalg.norm(np.asarray(points)[:, None] - chosen[None], axis=-1).min(1)
    assert cover.max() <= apart.min()
    at, gap = nearest(points, jnp.asarray(chosen))
    np.testing.assert_allclose(np.sqrt(gap), cover, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(np.asarray(points) - chosen[at], axis=-1), cover, atol=1e-5)


def test_rows_of_episodes_without_a_start_belong_to_none():
    rows, _ = rows_of_walks(WALKS[:3], H)
    rows = rows._replace(starts=rows.starts[[0, 2]], last=rows.last[[0, 2]])
    ends = np.asarray(episode_ends(rows)).reshape(3, H)
    assert (ends == [[5] * H, [5] * H, [17] * H]).all()  # the second lies beyond what was known to end at 5


def crossing(graph, number, start, goal, rows, spacing=1, stride=1):
    """The route from cell to cell as (row, cell) of its waypoints, its path, and its value."""
    here, aim = jnp.array(start, jnp.float32), jnp.array(goal, jnp.float32)
    sizes = {"horizon": 40, "rows": rows, "stride": stride, "spacing": spacing}
    path, points, given, value = ROUTE(graph, here, aim, **sizes)
    at = np.flatnonzero(given)
    return [(int(r), tuple(np.asarray(points[r]).astype(int))) for r in at], path, float(value)


def test_waypoints_go_through_the_door_at_their_steps(cells):
    graph, number = cells
    start, goal = (0, 0), (6, 2)
    found, path, value = crossing(graph, number, start, goal, 20)
    assert value == -8 and [r for r, _ in found] == list(range(1, 9))
    assert found[-1][1] == goal and DOOR in dict(found).values()
    assert [DISTANCE[goal][c] for _, c in found] == list(range(7, -1, -1))
    np.testing.assert_allclose(path.time[:8], np.arange(1, 9), atol=1e-4)
    # A plan too short for the path ends as far along it as its time goes.
    short, _, _ = crossing(graph, number, start, goal, 5)
    assert short == found[:4]
    # Waypoints 3 steps apart, and the end of the path.
    sparse, _, _ = crossing(graph, number, start, goal, 20, spacing=3)
    assert sparse == [found[2], found[5], found[7]]
    # Every second step is a row: of two waypoints in a row's time, the later.
    strided, _, _ = crossing(graph, number, start, goal, 10, stride=2)
    assert [r for r, _ in strided] == [1, 2, 3, 4] and strided[-1][1] == goal


def test_between_landmarks_time_is_a_share_of_the_edge(cells):
    graph, number = cells
    here, goal = jnp.array([0.25, 0.0]), jnp.array([2.0, 0.25])
    path = jax.jit(walk, static_argnums=5)(
        graph, jnp.int32(number[0, 0]), jnp.int32(number[2, 0]), here, goal, 4
    )
    np.testing.assert_allclose(path.time, [0.75, *[0.75 + np.hypot(1, 0.25)] * 3], atol=1e-4)
    np.testing.assert_allclose(path.point[1:], jnp.broadcast_to(goal[None], (3, 2)))
    # Of one cell: straight, at the pace of the data. And a first waypoint beyond the plan's end still is one.
    path = jax.jit(walk, static_argnums=5)(
        graph, jnp.int32(number[0, 0]), jnp.int32(number[0, 0]), here, jnp.array([0.0, 0.4]), 2
    )
    np.testing.assert_allclose(path.time, [np.hypot(0.25, 0.4)] * 2, atol=1e-4)
    points, given = waypoints(path._replace(time=path.time + 50), 4, 1, 1)
    assert given.tolist() == [False, False, False, True]
    np.testing.assert_allclose(points[3], [0.0, 0.4], atol=1e-6)


def test_without_a_way_the_nearest_landmark_that_can_be_reached_is_the_end():
    one_room = [w for w in WALKS if (w[:, 0] < 3).all() or (w[:, 0] > 3).all()]
    rows, _ = rows_of_walks(one_room, H)
    graph = BUILD(jax.random.key(0), rows, jnp.asarray(rows.observation), V - 1, 3)
    number = {tuple(c): i for i, c in enumerate(np.asarray(graph.observation).astype(int))}
    found, _, value = crossing(graph, number, (0, 0), (6, 1), 20)
    assert found[-1] == (3, (2, 1)) and value == -3


def test_without_goals_the_way_leads_to_the_highest_value_within_the_horizon():
    rows, _ = rows_of_walks(WALKS, H)
    worth = {c: float(7 * c[0] + c[1]) for c in CELLS}
    rows = rows._replace(value=np.array([worth[tuple(c)] for c in rows.observation.astype(int)], np.float32))
    graph = BUILD(jax.random.key(0), rows, jnp.asarray(rows.observation), V, 3)
    for horizon in (1, 3, 6):
        sizes = {"rows": 9, "stride": 1, "spacing": 1}
        _, points, given, value = ROUTE(graph, jnp.zeros(2), jnp.zeros(0), horizon=horizon, **sizes)
        best = max((c for c in CELLS if DISTANCE[c][0, 0] <= horizon), key=lambda c: worth[c])
        assert value == worth[best]
        assert tuple(np.asarray(points)[np.flatnonzero(given)[-1]].astype(int)) == best


def test_the_pull_is_a_share_of_the_way():
    denoiser = bind(lambda x, sigma: 0.5 * x)
    x, target = jnp.ones((2, 3, 1)), 2 * jnp.ones((2, 3, 1))
    share = jnp.array([0.0, 0.5, 1.0])[None, :, None] * jnp.ones((2, 1, 1))
    out = pulled(denoiser, target, share)(x, jnp.ones(2))
    np.testing.assert_allclose(out[0, :, 0], [0.5, 1.25, 2.0])


def exact_inverse(config, action_dim, stride, relative):
    """Its state is `(std of states, mean and std of actions)`."""
    del config, action_dim, stride, relative

    def act(key, state, observation, target, ahead):
        std, mean, spread = state
        return ((target - observation) * std[None] - mean[None]) / spread[None]

    return Inverse(lambda *args: jnp.zeros(()), lambda *args: args[1], act)


def arrivals(**settings):
    """Share of pairs of cells that plans followed for two steps connect; how often they were compiled."""
    config = GraphGuidedConfig(
        horizon=H,
        stride=1,
        replan_every=2,
        landmarks=V,
        reach=3,
        spacing=1,
        sampling=SamplingConfig(steps=8),
        **settings,
    )
    rows, _ = rows_of_walks(WALKS, H)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parts, "model", exact_model)
        patch.setattr(parts, "inverse", exact_inverse)
        planner = graph_guided.__wrapped__(config, SPEC)
    state = jax.jit(planner.learner.init)(jax.random.key(0), rows)
    scale = state.scale
    bank = scale.observation(jnp.asarray(np.unique(WALKS, axis=0), jnp.float32))
    tools = scale.observation.std, scale.action.mean, scale.action.std
    state = state._replace(model=bank, inverse=tools)
    position, goal = (np.array(x, np.float32) for x in zip(*PAIRS[::3], strict=True))
    run, traces = counted(planner.policy.act)
    carry, arrived = planner.policy.init(position), np.zeros(len(goal), bool)
    for step in range(16):
        carry, decision = run(jax.random.key(step), state, carry, position, goal)
        position, legal = move(position, np.asarray(decision.action))
        assert (legal | arrived).all()  # nobody rests in the data: from the goal they can only go on
        arrived |= (position == goal).all(1)
    return arrived.mean(), len(traces)


@pytest.mark.parametrize("waypoints", ["pull", "given"])
def test_two_rooms_are_crossed_in_pieces_of_short_episodes(waypoints):
    share, traces = arrivals(waypoints=waypoints)
    assert share == 1.0 and traces == 1


def test_without_the_pull_few_arrive():
    assert arrivals(strength=0.0)[0] < 0.6


@pytest.mark.parametrize("waypoints", ["pull", "given"])
def test_what_the_denoiser_is_shown_in_training(waypoints, monkeypatch):
    """pull: the present. given: the goal's entries of some rows too, which differ by segment."""
    spec, (rows, _) = Spec(2, 2, goal=(1,)), rows_of_walks(WALKS[:50], H)
    fake = exact_model(None)._replace(
        update=lambda key, state, x0, none, known, weight: (state, {"known": known})
    )
    monkeypatch.setattr(parts, "model", lambda config: fake)
    planner = graph_guided.__wrapped__(
        GraphGuidedConfig(
            horizon=6,
            stride=2,
            replan_every=2,
            landmarks=4,
            waypoints=waypoints,
            inverse=InverseConfig(hidden=(8,)),
        ),
        spec,
    )
    state = jax.eval_shape(planner.learner.init, jax.random.key(0), rows)
    assert state.graph.cost.shape == (4, 4)
    state = jax.jit(planner.learner.init)(jax.random.key(0), rows)
    batch = jax.jit(batches(planner.learner.draws, 64))(jax.random.key(1), rows)
    known = np.asarray(jax.jit(planner.learner.update)(jax.random.key(2), state, batch)[1]["known"])
    assert known[:, 0].all() and not known[:, 1:, 0].any()
    shown = known[:, 1:, 1].mean(1)
    assert (
        (shown.max() == 0)
        if waypoints == "pull"
        else (0.05 < shown.mean() < 0.4 and (shown == 0).mean() > 0.3)
    )


@pytest.mark.parametrize("count", [1, 5, 7])
def test_tours_are_the_cheapest_of_all_orders(count):
    """Of costs that differ by direction, against every permutation; goals that are out of reach cost inf."""
    find, rng = jax.jit(tour), np.random.default_rng(count)
    shell = Graph(*[jnp.zeros(())] * 7)
    for trial in range(4):
        cost = rng.uniform(1, 9, (9, 9)).astype(np.float32)
        np.fill_diagonal(cost, 0)
        cost = cost if trial else np.where(rng.random((9, 9)) < 0.3, np.inf, cost)
        source, goals = 0, rng.permutation(np.arange(1, 9))[:count]
        found = find(shell._replace(cost=jnp.asarray(cost)), jnp.int32(source), jnp.asarray(goals))
        sums = {
            order: sum(cost[a, b] for a, b in itertools.pairwise([source, *goals[list(order)]]))
            for order in itertools.permutations(range(count))
        }
        np.testing.assert_allclose(found.cost, min(sums.values()), rtol=1e-5)
        if np.isfinite(found.cost):
            assert sums[tuple(np.asarray(found.order).tolist())] == pytest.approx(float(found.cost), rel=1e-5)
    with pytest.raises(UserError, match="13 goals"):
        tour(shell, jnp.int32(0), jnp.arange(13))


def test_a_tour_of_two_rooms_visits_all_five_goals(cells):
    graph, number = cells
    goals = [(0, 0), (6, 2), (4, 0), (2, 2), DOOR]
    found = jax.jit(tour)(graph, jnp.int32(number[0, 2]), jnp.array([number[g] for g in goals]))
    order = [goals[i] for i in np.asarray(found.order)]
    assert sorted(order) == sorted(goals)
    legs = [DISTANCE[b][a] for a, b in itertools.pairwise([(0, 2), *order])]
    best = min(
        sum(DISTANCE[b][a] for a, b in itertools.pairwise([(0, 2), *way]))
        for way in itertools.permutations(goals)
    )
    assert sum(legs) == best and found.cost == pytest.approx(best, abs=1e-3)


def test_mistakes_are_told_in_one_line():
    for settings, word in (
        ({"horizon": 30, "stride": 4}, "multiple of"),
        ({"landmarks": 1}, "landmarks is 1"),
        ({"strength": 2.0}, "strength"),
    ):
        with pytest.raises(UserError, match=word) as error:
            GraphGuidedConfig(**settings)
        assert "\n" not in str(error.value)
