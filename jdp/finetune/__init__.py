"""Reinforcement learning that improves a trained diffusion policy; one method a file.

`jdp.registry.entries("fine_tuner")` lists them. What they start from, the state of the base policy, is what
their learners' `init` sees: `jdp.loops.train_online(method, task, acting, base=state)`.
"""

from typing import Any

from jdp import registry
from jdp.types import Method, Spec

__all__ = ["make"]


def make(config: Any, spec: Spec, *, base: Any) -> Method:
    """The fine-tuner that the type of `config` names, of a policy whose settings are `base`.

    Raises:
        UserError: if no fine-tuner has this type of config, or it cannot improve such a policy.
    """
    return registry.make("fine_tuner", config, spec, base=base)
