"""Multilayer perceptrons behind `init`/`apply`: actors, critics, ensembles of dynamics."""

import math
from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import DTypeLike

from jdp.types import Bound, Network, Params

INITIALISERS = ("fan_in", "orthogonal", "edac")
ACTIVATIONS = {"relu": nn.relu, "silu": nn.silu, "gelu": nn.gelu, "mish": jax.nn.mish, "tanh": jnp.tanh}
POLAR_STEPS = 40  # reaches 1e-5 from a condition number of 1e5


def orthogonal(key: Array, shape: tuple[int, int], dtype: DTypeLike = jnp.float32) -> Array:
    """A random matrix `[n, m]` with orthonormal columns (rows if `n < m`), times sqrt 2.

    The polar factor of a Gaussian matrix, which has the same (Haar) distribution as the usual Q of its
    QR factorisation, by Newton and Schulz's iteration: products only. With the batched QR that vmapped
    seeds need, IQL's initialisation often never returned on two CPU cores (jax 0.10.2).
    """
    tall = jax.random.normal(key, (max(shape), min(shape)))
    x = tall / jnp.linalg.norm(tall)  # all singular values within (0, 1]

    def step(_: int, x: Array) -> Array:
        gram = jnp.matmul(x.T, x, precision="highest")
        return 1.5 * x - 0.5 * jnp.matmul(x, gram, precision="highest")

    x = jax.lax.fori_loop(0, POLAR_STEPS, step, x)
    return math.sqrt(2) * (x if shape[0] >= shape[1] else x.T).astype(dtype)


def _uniform(limit: float):
    def initialise(key, shape, dtype):
        return jax.random.uniform(key, shape, dtype, -limit, limit)

    return initialise


def _initialisers(name: str, fan_in: int):
    """`(kernel, bias)` initialisers of one layer with `fan_in` inputs."""
    if name == "fan_in":  # U(+-1/sqrt(fan_in)) for both, PyTorch's default: TD3 and TD3+BC rely on it
        return nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform"), _uniform(1 / math.sqrt(fan_in))
    if name == "edac":  # of SAC-N, EDAC and ReBRAC: fan-in kernels, biases of 0.1
        return _initialisers("fan_in", fan_in)[0], nn.initializers.constant(0.1)
    if name == "orthogonal":  # the choice of IQL's code
        return orthogonal, nn.initializers.zeros
    raise ValueError(f"unknown initialiser {name!r}; one of {', '.join(INITIALISERS)}")


class MLP(nn.Module):
    """Layers of the widths in `features`; the last layer is linear."""

    features: tuple[int, ...]
    initialiser: str = "fan_in"
    activation: str = "relu"
    layer_norm: bool = False
    last_limit: float | None = None

    @nn.compact
    def __call__(self, x: Array) -> Array:
        for width in self.features[:-1]:
            kernel, bias = _initialisers(self.initialiser, x.shape[-1])
            x = ACTIVATIONS[self.activation](nn.Dense(width, kernel_init=kernel, bias_init=bias)(x))
            x = nn.LayerNorm()(x) if self.layer_norm else x
        kernel, bias = _initialisers(self.initialiser, x.shape[-1])
        if self.last_limit is not None:
            kernel = bias = _uniform(self.last_limit)
        return nn.Dense(self.features[-1], kernel_init=kernel, bias_init=bias)(x)


def _init(key: Array, x: Array, *, module: MLP) -> Params:
    return module.init(key, x)["params"]


def _apply(params: Params, x: Array, *, module: MLP) -> Array:
    return module.apply({"params": params}, x)  # pyright: ignore[reportReturnType]


def mlp(
    features: Sequence[int],
    *,
    initialiser: str = "fan_in",
    activation: str = "relu",
    layer_norm: bool = False,
    last_limit: float | None = None,
) -> Network:
    """An MLP of two functions: `init(key, x [..., D])` and `apply(params, x) -> [..., features[-1]]`.

    Args:
        features: width of every layer, the output last.
        initialiser: "fan_in" (uniform, PyTorch's default), "orthogonal" (gain sqrt 2, zero bias) or
            "edac" (fan-in kernels, biases of 0.1).
        activation: "relu", "silu" (swish), "gelu", "mish" or "tanh".
        layer_norm: normalise the activations of every hidden layer.
        last_limit: the last layer's weights and biases begin uniform in +-`last_limit`.
    """
    module = MLP(tuple(features), initialiser, activation, layer_norm, last_limit)
    settings = (("module", module),)
    return Network(init=Bound(_init, settings), apply=Bound(_apply, settings))
