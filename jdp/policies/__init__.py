"""Diffusion policies, one a file, each a `jdp.types.Method` of segments with goals in hindsight.

`jdp.registry.entries("policy")` lists them.

    from jdp.policies.idql import IDQLConfig

    method = jdp.policies.make(IDQLConfig(), episodes.spec)

Those that draw chunks of actions are also played warm, or in real time, once they are trained:

    policy = jdp.policies.rti.warm(method.policy, levels=3)
    policy = jdp.policies.real_time.real_time(method.policy, delay=2)

A trained `diffusion_policy` learns to do with fewer blocks: `jdp.policies.pruned.pruned`.
"""

from typing import Any

from jdp import registry
from jdp.errors import UserError
from jdp.learning.guides import checked, cost_guide, logic_guide, optimise_guide
from jdp.types import Guide, Method, Spec

__all__ = ["cost_guide", "logic_guide", "make", "optimise_guide"]


def make(config: Any, spec: Spec, *, guide: Guide | None = None, history: int | None = None) -> Method:
    """The policy that the type of `config` names.

    Args:
        guide: steers the actions that are drawn, in closed loop, but not those that critics learn from;
            `cost_guide` makes one of a cost.
        history: observations that the guide sees (1); see `jdp.types.Context`.

    Raises:
        UserError: if no policy has this type of config, or it has no denoiser to guide.
    """
    guide, found = checked(guide, history), registry.entry_of("policy", config)
    if guide is not None and not registry.takes(found, "guide"):
        those = [name for name, e in registry.entries("policy").items() if registry.takes(e, "guide")]
        raise UserError(
            f"{found.name} has no denoiser to guide: leave the guide out, or choose one of {', '.join(those)}"
        )
    return registry.make("policy", config, spec, guide=guide)
