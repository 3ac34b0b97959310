"""DiffuSearch (arXiv 2502.19805): search without a tree, by imagining what follows a move before choosing it.

Masked diffusion draws `[a, s', a', s'', a'', ...]` for a state, what follows it under optimal play, and the
first token is the move. With a horizon of 0 nothing follows, and this is one-step cloning. Where a network
must find the best move at once, here it may first find what is easy to see, near the end of the game.

It is for moves and states that are tokens, so it is none of the registered planners, whose actions are
continuous. Against the authors' code: the present is a condition, not a part of the sequence; the surest
tokens are taken without Gumbel noise, and what is shown stays; a token means what its place allows.
"""

from dataclasses import dataclass
from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from jdp import networks
from jdp.diffusion.discrete import denoiser as tokens_of
from jdp.diffusion.discrete.losses import linear_cross_entropy
from jdp.diffusion.discrete.samplers import Unmasked, Unmasking, unmask
from jdp.errors import check_settings
from jdp.learning.optimiser import Trained, adam, begin, descend
from jdp.networks import NetworkConfig
from jdp.networks.conditional_mlp import conditional_mlp
from jdp.networks.flat import joined
from jdp.types import Bound, Metrics, Network, Params, TokenDenoiser, bind


@dataclass(frozen=True)
class SearchConfig:
    """How a model of futures is trained."""

    levels: int = 20
    """T, the levels of masking that are trained, and the steps of a drawing."""
    network: NetworkConfig | None = None
    """What sees the tokens: a network of sequences, one token a step; None: a residual MLP of all of them."""
    features: int = 256
    """Width of the residual MLP."""
    blocks: int = 2
    """Blocks of the residual MLP."""
    learning_rate: float = 1e-3
    """The peak of Adam's; the authors' large networks have 3e-4."""
    steps: int = 1000
    """Updates over which the learning rate falls."""

    def __post_init__(self) -> None:
        check_settings(
            type(self).__name__,
            levels=(self.levels, 1, 1_000_000),
            learning_rate=(self.learning_rate, 0, 1),
            steps=(self.steps, 1, 1e12),
        )

    def made(self) -> Network:
        """The network, of one-hot tokens `[B, L, V + 1]` and states `[B, C]`."""
        if self.network is not None:
            return networks.make(self.network)
        return joined(conditional_mlp(self.features, self.blocks))

    def sampling(self, steps: int | None = None) -> Unmasking:
        """How a future is drawn, by default in T steps: the most likely tokens, the surest first."""
        return Unmasking(steps or self.levels, "confidence", greedy=True)


class Layout(NamedTuple):
    """What the tokens of a future mean, place by place; see `jdp.tasks.board.Game.spans`."""

    spans: tuple[tuple[int, int], ...]  # [L] of (first, last + 1), the tokens that may stand at each place

    @property
    def vocabulary(self) -> int:
        """V: all tokens are below it, and it is the mask."""
        return max(end for _, end in self.spans)

    def allowed(self) -> Array:
        """`[L, V]` bool, the tokens that may stand at each place."""
        first, end = jnp.asarray(self.spans, jnp.int32).T[..., None]
        token = jnp.arange(self.vocabulary, dtype=jnp.int32)[None]
        return (token >= first) & (token < end)


class Played(NamedTuple):
    """B states and what follows them."""

    state: Array  # [B, C]
    future: Array  # [B, L] int32


def _restricted(learned: TokenDenoiser, tokens: Array, level: Array, *, layout: Layout) -> Array:
    return jnp.where(layout.allowed()[None], learned(tokens, level), -1e9)


def denoiser(params: Params, state: Array, layout: Layout, config: SearchConfig) -> TokenDenoiser:
    """Of futures `[B, L]` of states `[B, C]`; no place takes a token that means nothing there."""
    learned = tokens_of.of_network(config.made(), params, layout.vocabulary, state)
    return bind(_restricted, learned, layout=layout)


def first_state(key: Array, state: Array, layout: Layout, config: SearchConfig) -> Trained:
    """What training begins with, for states `[B, C]` of this width; the key is consumed."""
    length = len(layout.spans)
    return begin(adam(config), tokens_of.init(key, config.made(), length, layout.vocabulary, state[:1]))


def _apply(both: Params, tokens: Array, level: Array, *, layout: Layout, config: SearchConfig) -> Array:
    params, state = both
    return denoiser(params, state, layout, config)(tokens, level)


def update(
    key: Array, state: Trained, batch: Played, *, layout: Layout, config: SearchConfig
) -> tuple[Trained, Metrics]:
    """A step of Adam on optimal play; the key is consumed."""
    apply = Bound(_apply, (("layout", layout), ("config", config)))

    def loss(params: Params, batch: Played) -> tuple[Array, Metrics]:
        both, settings = (params, batch.state), {"levels": config.levels, "mask": layout.vocabulary}
        return linear_cross_entropy(key, apply, both, batch.future, **settings)

    return descend(adam(config), state, loss, batch)


def imagine(key: Array, denoiser: TokenDenoiser, rows: int, layout: Layout, sampling: Unmasking) -> Unmasked:
    """What follows the `rows` B states of a denoiser, from all hidden to all drawn; the key is consumed."""
    hidden = jnp.full((rows, len(layout.spans)), layout.vocabulary, jnp.int32)
    return unmask(key, denoiser, hidden, sampling, layout.vocabulary)


def choose(
    key: Array,
    params: Params,
    state: Array,
    *,
    layout: Layout,
    config: SearchConfig,
    steps: int | None = None,
) -> Array:
    """`[B]` int32, for states `[B, C]` the moves that imagined futures begin with, counted from 0.

    Drawn in one step, a move has seen nothing of its future. The key is consumed.
    """
    found, sampling = denoiser(params, state, layout, config), config.sampling(steps)
    return imagine(key, found, state.shape[0], layout, sampling).tokens[:, 0] - layout.spans[0][0]
