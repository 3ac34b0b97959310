"""Graph-guided planning (the idea of XDiffuser): a search over dataset states guides one denoising.

A shortest path through landmarks of the dataset stitches pieces of different episodes together; its
waypoints stand at the rows of the plan while that is denoised, so the plan is one trajectory that goes
the way the search found. Own design from the idea alone. The graph is
`jdp.planners.graph`; the rest is longer by the two ways in which waypoints guide.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.tree_util import Partial

from jdp.data.segments import SegmentRows
from jdp.errors import UserError
from jdp.learning.averaged import Averaged
from jdp.learning.fitting import falling_rates
from jdp.learning.inverse import inverse
from jdp.learning.plan_models import model
from jdp.learning.scale import Scale, fit_scale
from jdp.planners import presets
from jdp.planners.assembly import Parts, PlannerConfig, first_weights, method, plan_of, study
from jdp.planners.following import Planned
from jdp.planners.graph import Graph, Path, build_graph, route
from jdp.planners.levels import Lesson, Level, draw_best
from jdp.planners.trajectory import Previous, later, planned
from jdp.registry import Preset, Task, register
from jdp.types import Context, Denoiser, Guide, Method, Metrics, Segments, Spec, bind, named_keys


@dataclass(frozen=True)
class GraphGuidedConfig(PlannerConfig):
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

    def __post_init__(self) -> None:
        super().__post_init__()
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


GraphParts = Parts[GraphGuidedConfig]


def entries(spec: Spec) -> Array:
    """`[P]`, the entries of an observation that are its position: the goal's, or all."""
    return jnp.array(spec.goal or range(spec.observation_dim), jnp.int32)


def init(key: Array, data: SegmentRows, *, parts: GraphParts) -> GraphGuidedState:
    """The graph of the dataset, and the state of the networks before training."""
    keys, scale = named_keys(key, "graph", "model", "inverse"), fit_scale(data)
    position = scale.observation(jnp.asarray(data.observation))[:, entries(parts.spec)]
    graph = build_graph(keys["graph"], data, position, parts.config.landmarks, parts.config.reach)
    learned, _, control = first_weights(parts, keys)
    return GraphGuidedState(scale, graph, learned, control)


def update(
    key: Array, state: GraphGuidedState, batch: Segments, *, parts: GraphParts
) -> tuple[GraphGuidedState, Metrics]:
    """One step of the denoiser and of the inverse model."""
    keys = named_keys(key, "known", "model", "pair", "inverse")
    x0 = state.scale.observation(batch.observation[:, jnp.array(parts.at)])
    given = parts.config.waypoints == "given"
    known = shown(keys["known"], x0.shape[0], parts) if given else parts.level.mask()[None]
    return study(parts, keys, state, Lesson(x0, known), batch)


def shown(key: Array, batch: int, parts: GraphParts) -> Array:
    """`[B, T, O]`: the present, and the goal's entries of some rows, a share that differs by segment."""
    keys, (rows, dim) = named_keys(key, "share", "rows"), parts.level.mask().shape
    share = 0.5 * jnp.square(jax.random.uniform(keys["share"], (batch, 1)))
    drawn = jax.random.bernoulli(keys["rows"], share, (batch, rows))
    known = jnp.zeros((batch, rows, dim), bool).at[:, :, entries(parts.spec)].set(drawn[:, :, None])
    return known | parts.level.mask()[None]


def routes(graph: Graph, here: Array, aim: Array, parts: GraphParts) -> tuple[Path, Array, Array, Array]:
    """`(paths, target [B, T, O], guided [B, T, O], value [B])`: where plans from `here` `[B, O]` shall be."""
    config, rows, at = parts.config, parts.level.rows, entries(parts.spec)

    def one(here: Array, aim: Array) -> tuple[Path, Array, Array, Array]:
        sizes = {"horizon": config.horizon, "rows": rows, "stride": config.stride}
        return route(graph, here, aim, spacing=config.spacing, **sizes)

    path, points, given, value = jax.vmap(one)(here[:, at], aim)
    target = jnp.zeros((here.shape[0], rows, here.shape[1])).at[:, :, at].set(points)
    target = target.at[:, 0].set(here)
    return path, target, jnp.zeros(target.shape, bool).at[:, :, at].set(given[:, :, None]), value


def plan(
    key: Array, state: GraphGuidedState, memory: Previous, context: Context, *, parts: GraphParts
) -> Planned:
    """One plan along the waypoints of the shortest path."""
    (config, spec, level), scale = (parts.config, parts.spec, parts.level), state.scale
    here = scale.observation(context.observation)
    aim = scale.goal(context.goal, spec) if spec.goal else jnp.zeros((here.shape[0], 0))
    path, target, guided, value = routes(state.graph, here, aim, parts)
    known, denoiser = (
        jnp.broadcast_to(level.mask()[None], guided.shape),
        level.model.denoiser(state.model, aim[:, :0]),
    )
    if config.waypoints == "given":
        known = known | guided
    else:
        denoiser = pulled(denoiser, target, config.strength * guided.astype(target.dtype))
    previous = later(memory, config.replan_every / config.stride)
    x0, _, chain = draw_best(key, level, denoiser, None, (target, known), previous, context)
    return Planned(planned(x0), plan_of(scale, x0, value, state.graph.observation[path.node]), chain)


def _presets(task: Task) -> Mapping[str, Preset]:
    warm = GraphGuidedConfig(sampling=presets.WARM)
    if task.horizon is None:
        cpu = replace(warm, horizon=32, stride=4, replan_every=4, model=presets.SMALL)
    else:
        cpu = replace(warm, horizon=128, stride=8, replan_every=16, model=presets.LARGER)
    return presets.presets_of(task, cpu)


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
    paths; a decision looks its path up. The denoiser is that of Diffuser for plans of states, but for the
    goal: the goal stands where the path arrives, not in the last row, and no row is required to be there
    after. `Plan.subgoal` holds the landmarks of the path (the last one repeated), `Plan.value` minus the
    steps of the path; on tasks without goals the path leads to the landmark of highest mean return to go
    within the horizon, which is the value.

    Args:
        guide: acts on the denoiser that the waypoints pull already.
        trace: whether decisions hold the chain out of noise.
    """
    rows, net = config.horizon // config.stride, model(config.model)
    level = Level(replace(spec, goal=()), rows, 0, net, config.sampling, guide=guide, trace=trace)
    control = inverse(config.inverse, spec.action_dim, config.stride, spec.goal)
    parts = Parts(config, spec, level, control, config.stride)
    return method(parts, init, update, plan, lengths=(rows, 0, min(config.landmarks, config.horizon)))
