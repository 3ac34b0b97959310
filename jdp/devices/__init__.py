"""Device meshes, many hosts, and the count of compilations: what every room above may use."""

from jdp.devices import distributed
from jdp.devices.compilations import Compilations, count_compilations, use_compilation_cache
from jdp.devices.mesh import (
    check_divisible,
    data_mesh,
    expert_mesh,
    gathered,
    multiple,
    on_one,
    over,
    padded,
    replicate,
    split_batch,
    split_experts,
    split_rows,
    spread_rows,
)
from jdp.devices.quick import compile_quickly

__all__ = [
    "Compilations",
    "check_divisible",
    "compile_quickly",
    "count_compilations",
    "data_mesh",
    "distributed",
    "expert_mesh",
    "gathered",
    "multiple",
    "on_one",
    "over",
    "padded",
    "replicate",
    "split_batch",
    "split_experts",
    "split_rows",
    "spread_rows",
    "use_compilation_cache",
]
