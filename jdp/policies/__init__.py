"""Diffusion policies, one a file, each a `jdp.types.Method` of segments with goals in hindsight.

`jdp.registry.entries("policy")` lists them.

    from jdp.policies.idql import IDQLConfig

    method = jdp.policies.make(IDQLConfig(), episodes.spec)
"""

from typing import Any

from jdp import registry
from jdp.types import Method, Spec

__all__ = ["make"]


def make(config: Any, spec: Spec) -> Method:
    """The policy that the type of `config` names.

    Raises:
        UserError: if no policy has this type of config.
    """
    return registry.make("policy", config, spec)
