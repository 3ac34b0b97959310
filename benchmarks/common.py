"""What benchmarks share: a clock, a count of operations, and the speed of this machine in the run.

Of each work they print seconds, GFLOP/s done, and its share of the rate of a matrix product that is timed in
turns with it: machines differ, and so does one machine from hour to hour, so shares are what compares. Other
people's times are in no benchmark: they mean something only beside ours in one run (docs/performance.md).
"""

import os
import statistics
import time
from collections.abc import Callable, Iterable, Mapping
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
    return {name: statistics.median(values) for name, values in turns(fns, repeats).items()}


def turns(fns: Mapping[str, Callable[[], Any]], repeats: int = 5) -> dict[str, list[float]]:
    """Wall times of every function after one call for compilation, one of each in every turn."""
    for fn in fns.values():
        jax.block_until_ready(fn())
    times: dict[str, list[float]] = {name: [] for name in fns}
    for _ in range(repeats):
        for name, fn in fns.items():
            times[name].append(seconds(fn))
    return times


def counted(jitted: Any, *args: Any) -> tuple[Callable[[], Any], float]:
    """The compiled program as a function to time, and `operations` of it."""
    compiled = jitted.lower(*args).compile()
    return (lambda: compiled(*args)), float(compiled.cost_analysis()["flops"])


def operations(fn: Callable[..., Any], *args: Any) -> float:
    """Floating-point operations of one call, by XLA's cost analysis of the compiled program.

    XLA counts the body of a loop ONCE, whatever its trip count. So a program that makes updates in a loop
    counts as one of them, and of a sampler one counts the step alone and multiplies. What is no product
    (norms, Adam) is counted too, exponentials and the like are not. `args` may be shapes.
    """
    return counted(jax.jit(fn), *args)[1]


def work(name: str, seconds: float, flop: float, rate: float) -> dict[str, Any]:
    """A line of results: `flop` operations took `seconds`, beside a matrix product of `rate` GFLOP/s."""
    done = flop / seconds / 1e9
    return {
        "work": name,
        "seconds": round(seconds, 4),
        "gflop": round(flop / 1e9, 3),
        "gflops": round(done, 1),
        "share_of_matmul": round(done / rate, 3),
    }


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


def rounded(values: Iterable[Any], digits: int = 3) -> list[float]:
    """Numbers, or an estimate and its bounds, as they are printed."""
    return [round(float(x), digits) for x in values]


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
