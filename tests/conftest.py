"""Eight virtual devices, strict dtypes, quick compilation; before JAX is imported."""

import os
import tempfile
from pathlib import Path

os.environ["JAX_PLATFORMS"] = os.environ.get("JDP_TEST_PLATFORM", "cpu")
os.environ["XLA_FLAGS"] = " ".join(
    [
        os.environ.get("XLA_FLAGS", ""),
        "--xla_force_host_platform_device_count=8",
        "--xla_backend_optimization_level=0",  # results of the tests do not depend on it
    ]
)
os.environ.setdefault("MUJOCO_GL", "disabled")

import jax

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")
cache = os.environ.get("JAX_COMPILATION_CACHE_DIR") or str(Path(tempfile.gettempdir()) / "jdp-test-cache")
jax.config.update("jax_compilation_cache_dir", cache)
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
