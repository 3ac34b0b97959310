"""Steps of absorbing-state diffusion as distributions over tokens `[..., L]`, the mask token V included.

`step` has the signature of `jdp.diffusion.transitions.Step`, with levels of masking in the place of noise: so
`jdp.diffusion.chains` draws its chains, and gives their log probability and divergence.
"""

import jax
import jax.numpy as jnp
from jax import Array

from jdp.diffusion.discrete.masking import predicted
from jdp.diffusion.transitions import Scalar
from jdp.distributions import Categorical
from jdp.types import PyTree, TokenDenoiser


def _certain(tokens: Array, mask: int) -> Array:
    """`[..., L, V + 1]`, logits of what stays."""
    return jnp.where(jax.nn.one_hot(tokens, mask + 1, dtype=jnp.bool_), 0.0, -jnp.inf)


def _mixed(log_tokens: Array, masked: Array) -> Array:
    """`[..., L, V + 1]`: the mask with probability `masked`, which broadcasts to `[..., L, 1]`."""
    masked = jnp.broadcast_to(masked, (*log_tokens.shape[:-1], 1))
    return jnp.concatenate([log_tokens + jnp.log1p(-masked), jnp.log(masked)], axis=-1)


def _wide(level: Array, tokens: Array) -> Array:
    """A prefix of the shape of tokens as `[..., 1, 1]`."""
    level = jnp.asarray(level, jnp.float32)
    return level.reshape(level.shape + (1,) * (tokens.ndim + 1 - level.ndim))


def forward(tokens: Array, level: Array, level_next: Array, mask: int) -> Categorical:
    """`q(x_t | x_s)` at `t = level_next >= s = level`, prefixes of the shape: what is masked stays so."""
    hidden = (_wide(level_next, tokens) - _wide(level, tokens)) / (1 - _wide(level, tokens))
    kept = _certain(tokens, mask)
    return Categorical(jnp.where((tokens == mask)[..., None], kept, _mixed(kept[..., :-1], hidden)))


def posterior(tokens: Array, x0: Array, level: Array, level_next: Array, mask: int) -> Categorical:
    """`q(x_s | x_t, x_0)` at `s = level_next <= t = level` (arXiv 2406.07524)."""
    return _back(tokens, _certain(x0, mask)[..., :-1], level, level_next, mask)


def _back(tokens: Array, logs: Array, level: Array, level_next: Array, mask: int) -> Categorical:
    masked = _wide(level_next, tokens) / _wide(level, tokens)
    return Categorical(jnp.where((tokens == mask)[..., None], _mixed(logs, masked), _certain(tokens, mask)))


def step(
    denoiser: TokenDenoiser,
    memory: PyTree,
    tokens: Array,
    level: Array,
    level_next: Array,
    *,
    mask: int,
    eta: Scalar = 1.0,
    std_floor: Scalar = 0.0,
) -> tuple[Categorical, PyTree]:
    """From `level` to `level_next`: the posterior, averaged over what the denoiser thinks of `x_0`.

    Tokens that are shown stay; each masked one is shown with probability `1 - level_next / level`. `eta` and
    `std_floor` have no meaning here.
    """
    del eta, std_floor
    logs = jax.nn.log_softmax(predicted(denoiser, tokens, mask).logits, axis=-1)
    return _back(tokens, logs, level, level_next, mask), memory
