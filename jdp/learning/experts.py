"""Training of experts that never speak to each other, and of their router (arXiv 2501.05450).

An expert is an ordinary training: any learner with a `jdp.learning.clusters.PartDraw`, in a process of its
own. Here is the router, and many experts in one program, for one machine with several devices.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax import Array
from jax.sharding import Mesh

from jdp.data.draws import WindowDraw
from jdp.devices.mesh import split_experts
from jdp.diffusion import experts
from jdp.diffusion.experts import Router
from jdp.learning.averaged import Averaged, begin, descend
from jdp.learning.clusters import LabelledDraw
from jdp.learning.optimiser import adam
from jdp.networks.mlp import mlp
from jdp.types import Bound, Learner, Metrics, Network, Params, PyTree, Update


@dataclass(frozen=True)
class RouterConfig:
    """How the router of experts is trained: a small classifier of noised plans."""

    hidden: tuple[int, ...] = (256, 256)
    """Widths of its layers."""
    steps: int = 5_000
    """Gradient steps."""
    learning_rate: float = 1e-3
    """Peak of the schedule: linear warm-up over the first tenth, then a cosine to 0."""
    ema: float = 0.999
    """Decay of the averaged weights that route, per step."""
    p_mean: float = -1.2
    """Mean of ln sigma in training."""
    p_std: float = 1.2
    """Standard deviation of ln sigma in training."""


def router_network(count: int, config: RouterConfig) -> Network:
    """`init(key, [B, N])` and `apply(params, [B, N]) -> [B, count]`."""
    return mlp((*config.hidden, count), activation="silu")


def router_learner(draw: LabelledDraw | None, count: int, config: RouterConfig) -> Learner:
    """Trains a router of `count` experts on batches `(x0 [B, T, D], cluster [B])`; see `routes`.

    Args:
        draw: None for batches of another origin, drawn by the caller.
    """
    network, optimiser = router_network(count, config), adam(config)

    def init(key: Array, data: tuple[Array, Array]) -> Averaged:
        first = experts.router_input(data[0][:1], jnp.ones((1,), data[0].dtype))
        return begin(optimiser, network.init(key, first))

    def update(key: Array, state: Averaged, batch: tuple[Array, Array]) -> tuple[Averaged, Metrics]:
        def loss(params: Params) -> tuple[Array, Metrics]:
            return experts.routing(
                key, network.apply, params, *batch, p_mean=config.p_mean, p_std=config.p_std
            )

        return descend(optimiser, state, loss, config.ema)

    return Learner(init, update, LabelledDraw(WindowDraw(1), count) if draw is None else draw)


def routes(state: Averaged, count: int, config: RouterConfig) -> Router:
    """The router that was learned, of the averaged weights."""
    return experts.router(router_network(count, config).apply, state.ema)


def _side_by_side(
    key: Array, states: PyTree, batches: PyTree, *, update: Update, mesh: Mesh | None
) -> tuple[PyTree, Metrics]:
    count = jax.tree.leaves(states)[0].shape[0]
    keys, states = split_experts((jax.random.split(key, count), states), mesh)
    found = jax.vmap(update)(keys, states, split_experts(batches, mesh, rows=True))
    return split_experts(found, mesh)


def side_by_side(update: Update, mesh: Mesh | None = None) -> Bound:
    """`update` of K experts: states `[K, ...]`, batches `[K, B, ...]`, metrics `[K]`; consumes the key.

    Expert k has the k-th of `jax.random.split(key, K)`, and does what it would do alone. On a mesh of
    `jdp.devices.expert_mesh` each lies on devices of its own, and the compiled program has nothing that goes
    from one to another: K machines would do as well.
    """
    return Bound(_side_by_side, (("mesh", mesh), ("update", update)))
