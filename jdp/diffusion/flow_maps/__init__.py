"""Flow maps: networks that learn whole steps of a sampler, `(x, sigma, sigma_next) -> x_next`.

A consistency model jumps from any level to the data: it has the shape of a denoiser, so `guidance.hold` and
`inpaint` apply to it, and `samplers.consistency` samples from it. A shortcut model jumps by any step: a
`FlowMap`, for `samplers.flow_map`; `hold_map` holds its known entries.
"""

from jdp.diffusion.flow_maps.consistency import consistency, consistency_distillation
from jdp.diffusion.flow_maps.maps import FlowMap, hold_map
from jdp.diffusion.flow_maps.shortcut import shortcut, shortcut_matching

__all__ = [
    "FlowMap",
    "consistency",
    "consistency_distillation",
    "hold_map",
    "shortcut",
    "shortcut_matching",
]
