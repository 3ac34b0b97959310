"""What benchmarks share: a clock, and the speed of this machine at the moment of the run."""

import os
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

MATMUL_SIZE = 2048


def seconds(fn: Callable[[], Any]) -> float:
    """Wall time of one call, its arrays computed."""
    start = time.perf_counter()
    jax.block_until_ready(fn())
    return time.perf_counter() - start


def median_seconds(fn: Callable[[], Any], repeats: int = 5) -> float:
    """Median wall time of `fn()` after one call for compilation; `fn` returns its arrays."""
    return interleaved({"fn": fn}, repeats)["fn"]


def interleaved(fns: Mapping[str, Callable[[], Any]], repeats: int = 5) -> dict[str, float]:
    """Median wall time of every function, timed in turns: a busy machine disturbs all alike."""
    for fn in fns.values():
        jax.block_until_ready(fn())
    times: dict[str, list[float]] = {name: [] for name in fns}
    for _ in range(repeats):
        for name, fn in fns.items():
            times[name].append(seconds(fn))
    return {name: statistics.median(values) for name, values in times.items()}


def matmul(repeats: int = 4) -> Callable[[], jax.Array]:
    """A function that multiplies two float32 matrices of 2048 x 2048 `repeats` times."""
    a = jax.random.normal(jax.random.key(0), (MATMUL_SIZE, MATMUL_SIZE)) / MATMUL_SIZE**0.5
    multiply = jax.jit(lambda x: x @ a)

    def run() -> jax.Array:
        x = a
        for _ in range(repeats):
            x = multiply(x)
        return x

    return run


def gflops(seconds: float, repeats: int = 4) -> float:
    """The rate of `matmul(repeats)` that took `seconds`."""
    return repeats * 2 * MATMUL_SIZE**3 / seconds / 1e9


def matmul_gflops(repeats: int = 5) -> float:
    """GFLOP/s of a float32 matrix product, 2048 x 2048: what this machine gives us now."""
    return gflops(median_seconds(matmul(), repeats))


def machine() -> dict[str, Any]:
    """What a number must be read with."""
    return {
        "device": jax.devices()[0].device_kind,
        "backend": jax.default_backend(),
        "devices": jax.device_count(),
        "cpus": os.cpu_count(),
        "load": round(os.getloadavg()[0], 2),
        "jax": jax.__version__,
        "x64": bool(jnp.zeros(1).dtype == jnp.float64),
    }
