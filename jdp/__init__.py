"""jdp: offline reinforcement learning with diffusion models in JAX.

    import jdp
    data = jdp.data.load("hopper-medium")

Rooms are imported when first used, so that `import jdp` costs little.
"""

import importlib
from typing import TYPE_CHECKING, Any

from jdp._version import __version__
from jdp.errors import UserError

if TYPE_CHECKING:
    from jdp import (
        agents,
        alignment,
        data,
        devices,
        diffusion,
        evaluation,
        finetune,
        learning,
        loops,
        networks,
        online,
        planners,
        plotting,
        policies,
        registry,
        runs,
        synthesis,
        tasks,
        types,
        world_models,
    )
    from jdp.runs.load import load_pretrained, load_run

__all__ = [
    "UserError",
    "__version__",
    "agents",
    "alignment",
    "data",
    "devices",
    "diffusion",
    "evaluation",
    "finetune",
    "learning",
    "load_pretrained",
    "load_run",
    "loops",
    "networks",
    "online",
    "planners",
    "plotting",
    "policies",
    "registry",
    "runs",
    "synthesis",
    "tasks",
    "types",
    "world_models",
]


def __getattr__(name: str) -> Any:
    if name in ("load_run", "load_pretrained"):
        return getattr(importlib.import_module("jdp.runs.load"), name)
    if name in __all__:
        return importlib.import_module(f"jdp.{name}")
    raise AttributeError(f"module 'jdp' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
