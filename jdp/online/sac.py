"""SAC (Haarnoja et al. 2018, arXiv 1812.05905) that acts: the losses are those of `jdp.agents.sac`."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from jdp.agents.sac import SACConfig, sac
from jdp.learning.acting import OffPolicyConfig
from jdp.online.presets import off_policy_presets
from jdp.registry import Preset, Task, register
from jdp.types import Method, Spec


@dataclass(frozen=True)
class OnlineSACConfig(SACConfig):
    """Settings of SAC; the defaults are those of the paper (table 1)."""

    acting: OffPolicyConfig = field(default_factory=OffPolicyConfig)
    """Steps, buffer and updates."""


def presets(task: Task) -> Mapping[str, Preset]:
    """The paper's, and smaller ones."""
    rates = ("actor_learning_rate", "critic_learning_rate", "alpha_learning_rate")
    return off_policy_presets(OnlineSACConfig(), task, rates)


@register(
    "online",
    "sac",
    OnlineSACConfig,
    presets,
    title="SAC",
    paper="arXiv 1812.05905",
    idea="maximises return and entropy from a buffer of all that it has done",
)
def online_sac(config: OnlineSACConfig, spec: Spec) -> Method:
    """SAC, whose `update` takes a minibatch of transitions. Equal arguments give the same method."""
    return sac(config, spec)
