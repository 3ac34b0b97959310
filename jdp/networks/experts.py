"""A transformer whose experts are chosen by the noise level alone (MoDE, arXiv 2412.12953).

For one level the experts and their weights are known before anything is seen. So `fuse` joins those of every
level that a sampler visits to one wide layer, and the rest is neither computed nor routed there; and the
balance of their loads is a function of levels, which any loss may add: `load_balance(*routes(...))`.
"""

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from jdp.networks.branches import branch
from jdp.networks.layers import NoiseEmbedding
from jdp.networks.transformer import positions
from jdp.types import Bound, Params

LEVEL_TOLERANCE = 1e-4  # of c_noise, by which a fused network knows a level


class Router(nn.Module):
    """Weights of the `top_k` experts, that sum to 1, and the probabilities of all; `[B, L, E]` both.

    It sees an embedded level `[B, L, F]`. With a random stream "router" the experts are drawn without
    replacement, each time by the probabilities of those that are left (section 4.2); else the best are taken.
    """

    experts: int
    top_k: int

    @nn.compact
    def __call__(self, embedding: Array) -> tuple[Array, Array]:
        seen = embedding.astype(jnp.float32)
        small = nn.initializers.normal(0.02)
        hidden = nn.gelu(nn.Dense(2 * seen.shape[-1], kernel_init=small)(seen))
        scores = nn.Dense(self.experts, kernel_init=small)(hidden)
        probabilities = nn.softmax(scores)
        if self.has_rng("router"):  # the k largest of scores with Gumbel noise are such a draw
            scores = scores + jax.random.gumbel(self.make_rng("router"), scores.shape)
        best = jax.lax.top_k(scores, self.top_k)[1]
        chosen = jnp.sum(jax.nn.one_hot(best, self.experts), axis=-2) * probabilities
        return chosen / jnp.sum(chosen, axis=-1, keepdims=True), probabilities


class Experts(nn.Module):
    """`sum_e w_e (v_e * silu(g_e)) down_e` with `(v_e, g_e) = x up_e`: gated layers side by side."""

    experts: int
    hidden: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array, weights: Array) -> Array:
        """`[B, T, F]` of `x` of that shape and weights `[B, T or 1, E]`."""
        features = x.shape[-1]
        scaled = nn.initializers.variance_scaling(1.0, "fan_in", "truncated_normal", batch_axis=(0,))
        up = self.param("up", scaled, (self.experts, features, 2 * self.hidden))
        down = self.param("down", scaled, (self.experts, self.hidden, features))
        value, gate = jnp.split(jnp.einsum("btf,efh->bteh", x, up.astype(self.dtype)), 2, axis=-1)
        wide = value * nn.silu(gate) * weights[..., None].astype(self.dtype)
        return jnp.einsum("bteh,ehf->btf", wide, down.astype(self.dtype))


class ExpertTransformer(nn.Module):
    """One token a time step, one of the level and one of the condition; noise-conditioned attention.

    Every block attends to tokens to which the embedded level is added, and passes each through the experts
    that its level chooses. Of levels of single steps or entries, each step has its own, and the level's token
    their mean. With one expert there is nothing to choose, and no router.
    """

    features: int = 128
    blocks: int = 3
    heads: int = 4
    experts: int = 4
    top_k: int = 2
    hidden: int | None = None  # of an expert; None: 4 * features
    dtype: Any = jnp.float32

    def setup(self) -> None:
        self.embed = NoiseEmbedding(self.features, dtype=self.dtype)
        count = self.blocks if self.experts > 1 else 0
        self.routers = [Router(self.experts, self.top_k) for _ in range(count)]

    @nn.compact
    def __call__(self, x: Array, c_noise: Array, condition: Array | None = None) -> Array:
        (length, channels), dtype = x.shape[1:], self.dtype
        level = self.embed(c_noise)  # [B, 1 or T, F]
        tokens = nn.Dense(self.features, dtype=dtype, name="entries")(x)
        tokens = tokens + positions(length, self.features).astype(dtype)[None]
        of_all = jnp.mean(level, axis=1, keepdims=True)
        given = [nn.Dense(self.features, dtype=dtype, name="level")(of_all)]
        if condition is not None and condition.shape[-1]:
            given.append(nn.Dense(self.features, dtype=dtype, name="condition")(condition)[:, None])
        hidden = jnp.concatenate([*given, tokens], axis=1)
        if level.shape[1] > 1:  # the tokens in front have the level of all
            level = jnp.concatenate([jnp.repeat(of_all, len(given), axis=1), level], axis=1)
        for i in range(self.blocks):
            norms = [nn.RMSNorm(dtype=dtype) for _ in range(2)]
            attention = nn.MultiHeadDotProductAttention(self.heads, dtype=dtype, normalize_qk=True)
            experts = Experts(self.experts, self.hidden or 4 * self.features, dtype)
            hidden = hidden + self.attend(hidden, level, norms[0], attention)
            hidden = hidden + self.think(hidden, level, norms[1], experts, i)
        last = nn.RMSNorm(dtype=dtype)(hidden[:, len(given) :])
        zeros = nn.initializers.zeros
        return nn.Dense(channels, dtype=jnp.float32, kernel_init=zeros, name="out")(last)

    @branch("attention")
    def attend(self, hidden: Array, level: Array, norm: nn.RMSNorm, attention: nn.Module) -> Array:
        """`[B, L, F]`, what the tokens tell one another at their level."""
        return attention(norm(hidden) + level)  # type: ignore[operator]

    @branch("feed_forward")
    def think(self, hidden: Array, level: Array, norm: nn.RMSNorm, experts: Experts, block: int) -> Array:
        """`[B, L, F]`, what the chosen experts make of every token."""
        one = jnp.ones((1, 1, 1))
        return experts(norm(hidden), self.routers[block](level)[0] if self.experts > 1 else one)

    def routes(self, c_noise: Array) -> tuple[Array, Array]:
        """`(weights, probabilities)` of the experts at levels `[B]`, both `[blocks, B, E]`."""
        level = self.embed(c_noise)
        found = [router(level) for router in self.routers]
        return jnp.stack([w[:, 0] for w, _ in found]), jnp.stack([p[:, 0] for _, p in found])


def routes(
    module: ExpertTransformer, params: Params, c_noise: Array, key: Array | None = None
) -> tuple[Array, Array]:
    """`(weights, probabilities)` `[blocks, B, E]` at levels `[B]`.

    Drawn with a key as the network draws in a call with `rngs={"router": key}`; the key may serve both.
    """
    rngs = None if key is None else {"router": key}
    return module.apply(params, c_noise, rngs=rngs, method="routes")  # type: ignore[return-value]


def load_balance(weights: Array, probabilities: Array) -> Array:
    """`[]`, `E / k sum_e f_e P_e`, the mean over blocks: f the rows that an expert serves, P its probability.

    1 where all are used alike, up to `E / k` where the same k serve all (arXiv 2101.03961, equation 4, which
    has k = 1). Weights and probabilities are `[blocks, B, E]`; the gradient passes the probabilities.
    """
    experts = weights.shape[-1]
    served = jax.lax.stop_gradient((weights > 0).astype(probabilities.dtype))
    k = jnp.sum(served[0, 0])
    loads = jnp.mean(served, axis=1) * jnp.mean(probabilities, axis=1)  # [blocks, E]
    return experts / k * jnp.mean(jnp.sum(loads, axis=-1))


class Fused(NamedTuple):
    """The parameters of a network whose experts are joined at n levels."""

    c_noise: Array  # [n]
    shared: Params  # of what does not depend on the level
    experts: Params  # [n, ...], of each block: one wide expert


def fuse(module: ExpertTransformer, params: Params, c_noise: Array) -> Fused:
    """The chosen experts of each level `[n]` as one of `top_k` times the width, weighted in its last layer.

    `fused(module)` applies them: the network's output, from `top_k` of `experts` parts of the arithmetic.
    """
    weights = routes(module, params, c_noise)[0]  # [blocks, n, E]
    own = dict(params["params"])
    wide = {}
    for i in range(module.blocks):
        kept, best = jax.lax.top_k(weights[i], module.top_k)  # [n, k]
        layer = own.pop(f"Experts_{i}")
        up = layer["up"][best]  # [n, k, F, 2 H]
        halves = [jnp.concatenate(jnp.unstack(half, axis=1), axis=-1) for half in jnp.split(up, 2, axis=-1)]
        down = kept[..., None, None] * layer["down"][best]  # [n, k, H, F]
        joined = jnp.concatenate(jnp.unstack(down, axis=1), axis=1)
        wide[f"Experts_{i}"] = {"up": jnp.concatenate(halves, axis=-1)[:, None], "down": joined[:, None]}
    shared = {name: leaves for name, leaves in own.items() if not name.startswith("routers")}
    return Fused(c_noise, {"params": shared}, wide)


def _apply_fused(
    params: Fused, x: Array, c_noise: Array, condition: Array | None = None, *, module: ExpertTransformer
) -> Array:
    gap = jnp.abs(params.c_noise - c_noise.reshape(-1)[0])
    at = jnp.argmin(gap)
    joined = {**params.shared["params"], **jax.tree.map(lambda leaf: leaf[at], params.experts)}
    found = module.apply({"params": joined}, x, c_noise, condition)
    same = jnp.max(jnp.abs(c_noise - params.c_noise[at])) <= LEVEL_TOLERANCE
    return jnp.where(same, found, jnp.nan)  # type: ignore[arg-type]


def fused(module: ExpertTransformer) -> Bound:
    """`apply(Fused, x [B, T, D], c_noise [B], condition)` of one level for all rows, that of `fuse`.

    Any other level gives NaN: there is no expert for it.
    """
    width = module.top_k * (module.hidden or 4 * module.features)
    return Bound(_apply_fused, (("module", module.clone(experts=1, top_k=1, hidden=width)),))
