"""Eight virtual devices, strict dtypes, quick compilation; before JAX computes anything."""

import gc
import os
import tempfile
from pathlib import Path

import pytest

os.environ["JAX_PLATFORMS"] = os.environ.get("JDP_TEST_PLATFORM", "cpu")
os.environ.setdefault("MUJOCO_GL", "disabled")

from quick_xla import QUICK  # imports JAX, which reads its platforms then, and XLA_FLAGS when it computes

os.environ["XLA_FLAGS"] = (
    f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8 "
    f"{'' if os.environ.get('JDP_TEST_OPTIMISED') else QUICK}"  # of tests marked `optimised`, which run apart
)

import jax

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")
cache = os.environ.get("JAX_COMPILATION_CACHE_DIR") or str(Path(tempfile.gettempdir()) / "jdp-test-cache")
jax.config.update("jax_compilation_cache_dir", cache)
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


@pytest.fixture(autouse=True, scope="module")
def few_mapped_programs():
    """Linux lets a process map 65,530 regions, and XLA, which maps some for every program, crashes beyond."""
    yield
    maps = Path("/proc/self/maps")
    if maps.exists() and len(maps.read_text().splitlines()) > 20_000:
        jax.clear_caches()
        gc.collect()
