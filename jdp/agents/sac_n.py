"""SAC-N (An et al. 2021, arXiv 2110.01548): pessimism by the minimum of many critics, and nothing else."""

from dataclasses import dataclass

from jdp.agents.sac import SACConfig, sac
from jdp.types import Agent, Spec


@dataclass(frozen=True)
class SACNConfig(SACConfig):
    """Settings of SAC-N; the defaults are those for halfcheetah (paper, appendix).

    The number of critics is what the paper tunes:

    | dataset | `critics` |
    |---|---|
    | halfcheetah | 10 |
    | walker2d | 20 |
    | hopper-medium | 500 |
    | hopper-medium-replay, hopper-medium-expert | 200 |
    """

    critics: int = 10
    hidden: tuple[int, ...] = (256, 256, 256)
    initialiser: str = "edac"


def sac_n(config: SACNConfig, spec: Spec) -> Agent:
    """SAC-N as an agent; one minibatch an update. Equal arguments give the same agent."""
    return sac(config, spec)
