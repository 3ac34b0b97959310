"""What XLA compiles: counted, for a run should compile each program once, and kept between runs."""

import contextlib
import os
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import jax

from jdp.types import Json

_COMPILE = "/jax/core/compile/backend_compile_duration"
_HIT = "/jax/compilation_cache/cache_hits"


@dataclass
class Compilations:
    """Programs compiled (or fetched from the persistent cache) since counting began."""

    seconds: float = 0.0
    cache_hits: int = 0
    programs: Counter = field(default_factory=Counter)  # name -> how often

    @property
    def count(self) -> int:
        return sum(self.programs.values())

    def summary(self) -> Json:
        return {
            "programs": self.count,
            "seconds": round(self.seconds, 2),
            "from_cache": self.cache_hits,
            "repeated": {k: n for k, n in self.programs.items() if n > 1},
        }


def count_compilations() -> Compilations:
    """Begins counting; the returned record grows for the rest of the process."""
    record = Compilations()

    def on_duration(event: str, duration_secs: float, **kwargs: str | int) -> None:
        if event == _COMPILE:
            record.seconds += duration_secs
            record.programs[str(kwargs.get("fun_name", "unnamed"))] += 1

    def on_event(event: str, **kwargs: str | int) -> None:
        del kwargs
        record.cache_hits += event == _HIT

    jax.monitoring.register_event_duration_secs_listener(on_duration)
    jax.monitoring.register_event_listener(on_event)
    return record


def use_compilation_cache() -> None:
    """Keeps compiled programs between runs, in $JAX_COMPILATION_CACHE_DIR or ~/.cache/jdp.

    Not at all for a user without a home folder, or where that folder cannot be made.
    """
    folder = os.environ.get("JAX_COMPILATION_CACHE_DIR")
    with contextlib.suppress(RuntimeError, OSError):
        if not folder:
            folder = str(Path.home() / ".cache" / "jdp" / "xla")
            Path(folder).mkdir(parents=True, exist_ok=True)
        jax.config.update("jax_compilation_cache_dir", folder)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
        jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
