"""Offline to online: an agent that was trained on a dataset goes on where it acts.

What it goes on with are the parameters and targets of its offline training; the online losses have no term
that holds it to the data. Rows of a dataset in every minibatch are another matter (`OffPolicyConfig`).
"""

from collections.abc import Collection
from dataclasses import replace
from typing import TypeVar

from jdp.agents.sac import SACConfig
from jdp.agents.td3 import TD3Config
from jdp.errors import UserError
from jdp.types import PyTree

C = TypeVar("C")
# Settings that say what the parameters mean, by the family of agents.
NETWORKS: dict[type, tuple[str, ...]] = {
    SACConfig: ("hidden", "critics", "initialiser", "log_std_range", "normalise_observations"),
    TD3Config: ("hidden", "critics", "normalise_observations"),
}


def continued(config: C, offline: object, given: Collection[str] = ()) -> C:
    """The settings `config` of an online agent, with networks as those of the agent of settings `offline`.

    Args:
        given: names of settings that a user gave, which are not changed.

    Raises:
        UserError: if the agents are of two families, or a setting that was given is another.
    """
    family = next((kind for kind in NETWORKS if isinstance(config, kind)), None)
    if family is None or not isinstance(offline, family):
        raise UserError(
            f"{type(config).__name__} cannot go on from {type(offline).__name__}: sac does from sac_n, edac, "
            "cql and their kin, td3 from td3_bc"
        )
    theirs = {name: getattr(offline, name) for name in NETWORKS[family]}
    for name, value in theirs.items():
        if name in given and (own := getattr(config, name)) != value:
            raise UserError(f"--settings.{name} is {own}, the policy has {value}: leave it out")
    return replace(config, **theirs)  # type: ignore[type-var]


def core(state: PyTree) -> PyTree:
    """The state of SAC or TD3 within that of an offline agent, which may hold more."""
    return getattr(state, "sac", state)
