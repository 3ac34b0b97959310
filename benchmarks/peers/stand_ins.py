"""What peers import and need not be installed: empty modules, and the few distributions they use."""

import importlib.util
import sys
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp

EMPTY = ("d4rl", "gym", "wandb", "pyrallis", "torchvision", "torchvision.models", "torchvision.transforms")
EMPTY += ("torchvision.transforms.functional",)


class Deterministic:
    def __init__(self, loc: jax.Array):
        self.loc = loc

    def sample(self, seed: Any = None) -> jax.Array:
        return self.loc


class Normal:
    def __init__(self, loc: jax.Array, scale: jax.Array):
        self.loc, self.scale = loc, scale

    def sample(self, seed: Any) -> jax.Array:
        return self.loc + self.scale * jax.random.normal(seed, self.loc.shape)

    def log_prob(self, x: jax.Array) -> jax.Array:
        z = (x - self.loc) / self.scale
        return -0.5 * z**2 - jnp.log(self.scale) - 0.5 * jnp.log(2 * jnp.pi)


class Tanh:
    pass


class Transformed:
    """Of a `Deterministic` by a `Tanh`."""

    def __init__(self, inner: Deterministic, bijector: Tanh):
        self.inner = inner

    def sample(self, seed: Any = None) -> jax.Array:
        return jnp.tanh(self.inner.sample(seed))


def install() -> None:
    """Puts a stand-in where a module is not installed."""
    distributions = ModuleType("distrax")
    for kind in (Deterministic, Normal, Tanh, Transformed):
        setattr(distributions, kind.__name__, kind)
    for found in (distributions, *(ModuleType(name) for name in EMPTY)):
        name, (parent, _, child) = found.__name__, found.__name__.rpartition(".")
        if name not in sys.modules and _absent(name):
            found.__path__ = []  # type: ignore[attr-defined]
            sys.modules[name] = found
            if parent:
                setattr(sys.modules[parent], child, found)
    gym = sys.modules.get("gym")
    if gym is not None and not hasattr(gym, "Env"):
        gym.Env = object  # type: ignore[attr-defined]
    options = sys.modules.get("pyrallis")
    if options is not None and not hasattr(options, "wrap"):
        options.wrap = lambda: lambda function: function  # type: ignore[attr-defined]


def _absent(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is None
    except (ModuleNotFoundError, ValueError):
        return True
