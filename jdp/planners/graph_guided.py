"""Graph-guided planning (the idea of XDiffuser): a search over dataset states guides one denoising.

A shortest path over landmarks of the dataset joins pieces of episodes; its waypoints stand in the plan.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jdp import planners
from jdp.data.segments import SegmentRows
from jdp.diffusion.guidance import pulled
from jdp.errors import check_settings
from jdp.learning.averaged import Averaged
from jdp.learning.fitting import falling_rates
from jdp.learning.scale import Scale, fit_scale, position
from jdp.planners import presets
from jdp.planners.graph import Graph, build_graph
from jdp.planners.routes import routes
from jdp.planners.trajectory import Previous
from jdp.registry import Preset, Task, register
from jdp.types import Context, Guide, Method, Metrics, Segments, Spec, named_keys


@dataclass(frozen=True)
class GraphGuidedConfig(planners.PlannerConfig):
    """Settings of graph-guided planning."""

    horizon: int = 128
    """Steps that a plan spans (a multiple of `stride`); the path may be longer."""
    stride: int = 4
    replan_every: int = 8
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

    def __post_init__(self) -> None:
        super().__post_init__()
        limits = {"landmarks": (self.landmarks, 2, math.inf), "reach": (self.reach, 1, math.inf)}
        check_settings("GraphGuidedConfig", **limits, strength=(self.strength, 0, 1))


class GraphGuidedState(NamedTuple):
    """What graph-guided planning learned."""

    scale: Scale
    graph: Graph  # positions are the goal's entries of standardised observations (all, without goals)
    model: Averaged
    inverse: Averaged


GraphParts = planners.Parts[GraphGuidedConfig]


def init(key: Array, data: SegmentRows, *, parts: GraphParts) -> GraphGuidedState:
    """The graph of the dataset, and the state of the networks before training."""
    keys, scale = named_keys(key, "graph", "model", "inverse"), fit_scale(data)
    places = scale.observation(jnp.asarray(data.observation))[:, position(parts.spec)]
    graph = build_graph(keys["graph"], data, places, parts.config.landmarks, parts.config.reach)
    learned, _, control = planners.first_weights(parts, keys)
    return GraphGuidedState(scale, graph, learned, control)


def update(
    key: Array, state: GraphGuidedState, batch: Segments, *, parts: GraphParts
) -> tuple[GraphGuidedState, Metrics]:
    """One step of the denoiser and of the inverse model."""
    keys = named_keys(key, "known", "model", "pair", "inverse")
    x0, given = planners.encode(parts, state.scale, batch), parts.config.waypoints == "given"
    known = shown(keys["known"], x0.shape[0], parts) if given else parts.level.mask()[None]
    return planners.study(parts, keys, state, planners.Lesson(x0, known), batch)


def shown(key: Array, batch: int, parts: GraphParts) -> Array:
    """`[B, T, O]`: the present, and the goal's entries of some rows, a share that differs by segment."""
    keys, (rows, dim) = named_keys(key, "share", "rows"), parts.level.mask().shape
    share = 0.5 * jnp.square(jax.random.uniform(keys["share"], (batch, 1)))
    drawn = jax.random.bernoulli(keys["rows"], share, (batch, rows))
    known = jnp.zeros((batch, rows, dim), bool).at[:, :, position(parts.spec)].set(drawn[:, :, None])
    return known | parts.level.mask()[None]


def plan(
    key: Array, state: GraphGuidedState, memory: Previous, context: Context, *, parts: GraphParts
) -> planners.Planned:
    """One plan along the waypoints of the shortest path."""
    config, level, scale = parts.config, parts.level, state.scale
    here, aim = scale.observation(context.observation), scale.goal(context.goal, parts.spec)
    sizes = {"horizon": config.horizon, "stride": config.stride, "spacing": config.spacing}
    way = routes(state.graph, here, aim, position(parts.spec), rows=level.rows, **sizes)
    known = jnp.broadcast_to(level.mask()[None], way.guided.shape)
    denoiser = level.model.denoiser(state.model, aim[:, :0])
    if config.waypoints == "given":
        known = known | way.guided
    else:
        denoiser = pulled(denoiser, way.target, config.strength * way.guided.astype(way.target.dtype))
    drawn = planners.draw(key, level, (denoiser, None), (way.target, known), parts.later(memory), context)
    return planners.as_planned(scale, drawn, way.value, state.graph.observation[way.path.node])


def _presets(task: Task) -> Mapping[str, Preset]:
    sizes = {"horizon": 128, "stride": 8, "replan_every": 16, "model": presets.LARGER}
    if task.horizon is None:
        sizes = {"horizon": 32, "stride": 4, "replan_every": 4, "model": presets.SMALL}
    return presets.presets_of(task, GraphGuidedConfig(sampling=presets.WARM, **sizes))


@register(
    "planner",
    "graph_guided",
    GraphGuidedConfig,
    _presets,
    title="Graph-guided planning",
    paper="after the idea of XDiffuser",
    idea="the shortest path over landmarks of the dataset guides one denoising",
    departures="own design from the idea alone",
    fit=falling_rates,
)
@lru_cache(maxsize=64)
def graph_guided(
    config: GraphGuidedConfig, spec: Spec, *, guide: Guide | None = None, trace: bool = False
) -> Method:
    """Denoises rows of states given the present, along the waypoints of a shortest path in the dataset.

    `init` picks landmarks, connects those that episodes pass one after the other, and finds all shortest
    paths; a decision looks its path up. The denoiser is that of Diffuser for plans of states, but the goal
    stands where the path arrives, not in the last row. `Plan.subgoal` holds the landmarks of the path (the
    last one repeated), `Plan.value` minus its steps; without goals it leads to the landmark of highest mean
    return to go within the horizon, which is the value. A guide acts on what the waypoints pull already.
    """
    parts = planners.parts_of(config, spec, guide, trace, goal_row=False)
    lengths = (parts.level.rows, 0, min(config.landmarks, config.horizon))
    return planners.method(parts, init, update, plan, lengths=lengths)
