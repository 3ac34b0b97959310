"""Diffusion policies, one a file, each as a `PolicyLearner` of segments with goals in hindsight."""

from typing import Any

from jdp.data.segments import Hindsight
from jdp.errors import UserError
from jdp.policies.actor_critic import CriticConfig
from jdp.policies.beso import BESOConfig, beso
from jdp.policies.closed_loop import Following, follow
from jdp.policies.diffusion_policy import DiffusionPolicyConfig, diffusion_policy
from jdp.policies.dql import DQL_SETTINGS, DQLConfig, dql
from jdp.policies.edp import EDPConfig, edp
from jdp.policies.fql import FQL_SETTINGS, FQLConfig, fql
from jdp.policies.idql import IDQL_SETTINGS, IDQLConfig, idql
from jdp.types import PolicyLearner, Spec

__all__ = [
    "DQL_SETTINGS",
    "FQL_SETTINGS",
    "IDQL_SETTINGS",
    "POLICIES",
    "SETTINGS",
    "BESOConfig",
    "DQLConfig",
    "DiffusionPolicyConfig",
    "EDPConfig",
    "FQLConfig",
    "Following",
    "IDQLConfig",
    "beso",
    "diffusion_policy",
    "dql",
    "edp",
    "follow",
    "fql",
    "hindsight",
    "idql",
    "make",
    "tuned",
]

POLICIES: dict[str, type] = {
    "diffusion_policy": DiffusionPolicyConfig,
    "beso": BESOConfig,
    "dql": DQLConfig,
    "idql": IDQLConfig,
    "edp": EDPConfig,
    "fql": FQLConfig,
}
_FACTORIES: dict[str, Any] = {
    "diffusion_policy": diffusion_policy,
    "beso": beso,
    "dql": dql,
    "idql": idql,
    "edp": edp,
    "fql": fql,
}
SETTINGS: dict[str, dict[str, dict[str, Any]]] = {
    "dql": DQL_SETTINGS,
    "idql": IDQL_SETTINGS,
    "fql": FQL_SETTINGS,
}  # by policy and D4RL's name of the dataset: the fields that differ from the defaults


def make(config: Any, spec: Spec) -> PolicyLearner:
    """The policy that the type of `config` names, one of `POLICIES`.

    Raises:
        UserError: if no policy has this type of config.
    """
    for name, kind in POLICIES.items():
        if type(config) is kind:
            return _FACTORIES[name](config, spec)
    known = ", ".join(kind.__name__ for kind in POLICIES.values())
    raise UserError(f"no policy is made from a {type(config).__name__}; give one of {known}")


def tuned(policy: str, dataset: str) -> Any:
    """The config that the authors tuned for D4RL's `dataset`; the defaults where they tuned none.

    Raises:
        UserError: for an unknown policy.
    """
    if policy not in POLICIES:
        raise UserError(f"unknown policy {policy!r}; one of {', '.join(POLICIES)}")
    return POLICIES[policy](**SETTINGS.get(policy, {}).get(dataset, {}))


def hindsight(config: Any) -> Hindsight:
    """How the goals of this policy's batches should be drawn, for `jdp.data.draw_segments`.

    Critics see next rows, later rows and rows anywhere, in the shares of GCIQL in OGBench (arXiv
    2410.20092; there the first kind is the present row). Policies that only imitate see later rows.
    """
    if isinstance(config, CriticConfig):
        return Hindsight(next=0.2, later=0.5, anywhere=0.3)
    return Hindsight(later=1.0)
