"""Graph-guided planning (the idea of XDiffuser): a search over dataset states guides one denoising.

A shortest path through landmarks of the dataset stitches pieces of different episodes together; its
waypoints stand at the rows of the plan while that is denoised, so the plan is one trajectory that goes
the way the search found. Own design from the idea alone.
"""

from dataclasses import dataclass, field
from functools import lru_cache
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.tree_util import Partial

from jdp.data.segments import SegmentRows
from jdp.errors import UserError, check_choices
from jdp.learning.averaged import Averaged
from jdp.planners import states
from jdp.planners.diffuser import check_horizon
from jdp.planners.graph import Graph, Path, build_graph, nearest, nearest_reachable, walk, waypoints
from jdp.planners.inverse import InverseConfig, inverse, near_pair
from jdp.planners.models import ModelConfig, model
from jdp.planners.scale import Scale, fit_scale
from jdp.planners.trajectory import Previous, SamplingConfig, draw_plan, plan_schedule, shifted
from jdp.types import Denoiser, Plan, Planner, Segments, Spec, bind, named_keys


@dataclass(frozen=True)
class GraphGuidedConfig:
    """Settings of graph-guided planning."""

    horizon: int = 128
    """Steps that a plan spans (a multiple of `stride`); the path may be longer."""
    stride: int = 4
    """Steps between two rows of a plan, which hold states; an inverse model finds the actions."""
    replan_every: int = 8
    """Steps that a plan is followed."""
    landmarks: int = 128
    """States of the dataset that are the nodes of the graph."""
    reach: int = 32
    """Steps within which an episode that passes one landmark and then another makes an edge."""
    spacing: int = 16
    """Least steps between two waypoints; the end of the path within the horizon always is one."""
    waypoints: Literal["pull", "given"] = "pull"
    """pull: the denoised rows are moved towards their waypoints; given: the network is trained with the
    goal's entries of random rows shown without noise, and waypoints are shown so (not diffuser_unet,
    which cannot tell which rows are)."""
    strength: float = 0.8
    """Of "pull": the share of the way to the waypoint, at every noise level; at 1 it is inpainting. (With an
    exact denoiser in two rooms .25, .5, .8 arrive from 68, 95, 100 % of the starts, without pull 45 %.)"""
    model: ModelConfig = field(default_factory=ModelConfig)
    inverse: InverseConfig = field(default_factory=InverseConfig)
    sampling: SamplingConfig = field(default_factory=SamplingConfig)

    def __post_init__(self) -> None:
        check_choices(self)
        check_horizon(self.horizon, self.stride, self.replan_every)
        if self.landmarks < 2 or self.reach < 1:
            raise UserError(
                f"a graph needs landmarks >= 2 and reach >= 1, not landmarks {self.landmarks}, "
                f"reach {self.reach}"
            )
        if not 0 <= self.strength <= 1:
            raise UserError(
                f"the pull to waypoints is a share: choose strength from 0 to 1, not {self.strength}"
            )


class GraphGuidedState(NamedTuple):
    """What graph-guided planning learned."""

    scale: Scale
    graph: Graph  # positions are the goal's entries of standardised observations (all, without goals)
    model: Averaged
    inverse: Averaged


def _pulled(denoiser: Denoiser, target: Array, share: Array, x: Array, sigma: Array) -> Array:
    denoised = denoiser(x, sigma)
    return denoised + share * (target - denoised)


def pulled(denoiser: Denoiser, target: Array, share: Array) -> Partial:
    """`D + share (target - D)`, entry by entry: the denoised plan moved towards `target`, of its shape."""
    return bind(_pulled, denoiser, target, share)


def route(
    graph: Graph, here: Array, goal: Array, *, horizon: int, rows: int, stride: int, spacing: int
) -> tuple[Path, Array, Array, Array]:
    """`(path, points [R, P], given [R], value [])` of one environment at `here` `[P]`, for `goal` `[P]`.

    Without a goal (`[0]`) the path leads to the landmark of highest mean value that is at most `horizon`
    steps away, and `value` is its; with one, to the nearest landmark that can be reached and, if that is
    the nearest of all, to the goal itself; `value` is then minus the steps.
    """
    length = min(graph.position.shape[0], horizon)
    source = nearest(here[None], graph.position)[0][0]
    if goal.shape[0]:
        target, arrives = nearest_reachable(graph, source, goal)
        end = jnp.where(arrives, goal, graph.position[target])
        path = walk(graph, source, target, here, end, length)
        value = -graph.cost[source, target]
    else:
        within = graph.cost[source] <= horizon
        target = jnp.argmax(jnp.where(within, graph.value, -jnp.inf)).astype(jnp.int32)
        path = walk(graph, source, target, here, graph.position[target], length)
        value = graph.value[target]
    return path, *waypoints(path, rows, stride, spacing), value


@lru_cache(maxsize=64)
def graph_guided(config: GraphGuidedConfig, spec: Spec) -> Planner:
    """Denoises rows of states given the present, along the waypoints of a shortest path in the dataset.

    `init` picks landmarks, connects those that episodes pass one after the other, and finds all shortest
    paths; a decision looks its path up. The denoiser is that of Diffuser for plans of states, but for the
    goal: the goal stands where the path arrives, not in the last row, and no row is required to be there
    after. `Plan.subgoal` holds the landmarks of the path (the last one repeated), `Plan.value` minus the
    steps of the path; on tasks without goals the path leads to the landmark of highest mean return to go
    within the horizon, which is the value.
    """
    o, a, rows = spec.observation_dim, spec.action_dim, config.horizon // config.stride
    entries = jnp.array(spec.goal or range(o), jnp.int32)
    net = model(config.model)
    control = inverse(config.inverse, a, config.stride, spec.goal)
    offsets, at = states.row_offsets(config.horizon, config.stride)
    present = jnp.zeros((rows, o), bool).at[0].set(True)
    length = min(config.landmarks, config.horizon)

    def init(key: Array, data: SegmentRows) -> GraphGuidedState:
        keys = named_keys(key, "graph", "model", "inverse")
        scale, s = fit_scale(data), jnp.zeros((1, o))
        position = scale.observation(jnp.asarray(data.observation))[:, entries]
        return GraphGuidedState(
            scale,
            build_graph(keys["graph"], data, position, config.landmarks, config.reach),
            net.init(keys["model"], jnp.zeros((1, rows, o)), jnp.zeros((1, 0))),
            control.init(keys["inverse"], s, s, jnp.zeros((1, a))),
        )

    def update(key: Array, state: GraphGuidedState, batch: Segments):
        keys = named_keys(key, "known", "model", "pair", "inverse")
        x0 = state.scale.observation(batch.observation[:, jnp.array(at)])
        known = shown(keys["known"], x0.shape[0]) if config.waypoints == "given" else present[None]
        none, weight = jnp.zeros((x0.shape[0], 0)), jnp.ones((1, 1, 1))
        learned, metrics = net.update(keys["model"], state.model, x0, none, known, weight)
        pair = near_pair(keys["pair"], batch, state.scale, config.stride)
        followed, more = control.update(keys["inverse"], state.inverse, *pair)
        return state._replace(model=learned, inverse=followed), {**metrics, **more}

    def shown(key: Array, batch: int) -> Array:
        """`[B, T, O]`: the present, and the goal's entries of some rows, a share that differs by segment."""
        keys = named_keys(key, "share", "rows")
        share = 0.5 * jnp.square(jax.random.uniform(keys["share"], (batch, 1)))
        drawn = jax.random.bernoulli(keys["rows"], share, (batch, rows))
        known = jnp.zeros((batch, rows, o), bool).at[:, :, entries].set(drawn[:, :, None])
        return known | present[None]

    def start(observation: Array) -> tuple[Previous, Plan]:
        carry, nothing = states.start(rows, a)(observation)
        return carry, nothing._replace(subgoal=jnp.zeros((observation.shape[0], length, o)))

    def plan(key: Array, state: GraphGuidedState, carry: Previous, observation: Array, goal: Array):
        here, batch = state.scale.observation(observation), observation.shape[0]
        aim = state.scale.goal(goal, spec) if spec.goal else jnp.zeros((batch, 0))

        def one(here: Array, aim: Array) -> tuple[Path, Array, Array, Array]:
            sizes = {"horizon": config.horizon, "rows": rows, "stride": config.stride}
            return route(state.graph, here, aim, spacing=config.spacing, **sizes)

        path, points, given, value = jax.vmap(one)(here[:, entries], aim)
        target = jnp.zeros((batch, rows, o)).at[:, :, entries].set(points)
        target = target.at[:, 0].set(here)
        guided = jnp.zeros((batch, rows, o), bool).at[:, :, entries].set(given[:, :, None])
        known, denoiser = jnp.broadcast_to(present[None], guided.shape), net.denoiser(state.model, aim[:, :0])
        if config.waypoints == "given":
            known = known | guided
        else:
            denoiser = pulled(denoiser, target, config.strength * guided.astype(target.dtype))
        last = Previous(shifted(carry.plan, config.replan_every / config.stride), carry.planned)
        schedule = plan_schedule(config.sampling, config.model.formulation)
        x0 = draw_plan(key, denoiser, target, known, last, config.sampling, schedule)
        made = states.states_plan(state.scale, x0, value)
        made = made._replace(subgoal=state.graph.observation[path.node])
        return Previous(x0, jnp.ones((), bool)), made

    act = states.pursue(control, config.stride)
    return Planner(
        init, update, start, plan, act, offsets, config.horizon, config.stride, config.replan_every
    )
