"""SAC-N (An et al. 2021, arXiv 2110.01548): pessimism by the minimum of many critics, and nothing else."""

from collections.abc import Mapping
from dataclasses import dataclass

from jdp.agents.presets import presets_of
from jdp.agents.sac import SACConfig, sac
from jdp.registry import Preset, Task, register
from jdp.types import Method, Spec

# The number of critics that the paper (appendix) takes for D4RL's v2 locomotion sets
SAC_N_CRITICS: dict[str, int] = {
    "halfcheetah-medium-v2": 10,
    "halfcheetah-medium-replay-v2": 10,
    "halfcheetah-medium-expert-v2": 10,
    "hopper-medium-v2": 500,
    "hopper-medium-replay-v2": 200,
    "hopper-medium-expert-v2": 200,
    "walker2d-medium-v2": 20,
    "walker2d-medium-replay-v2": 20,
    "walker2d-medium-expert-v2": 20,
}


@dataclass(frozen=True)
class SACNConfig(SACConfig):
    """Settings of SAC-N. The number of critics is what the paper tunes: `SAC_N_CRITICS`."""

    critics: int = 10
    hidden: tuple[int, ...] = (256, 256, 256)
    initialiser: str = "edac"


def presets(task: Task) -> Mapping[str, Preset]:
    """As many critics as the authors took for the dataset; 10 on two cores."""
    config = SACNConfig(critics=SAC_N_CRITICS.get(task.name, SACNConfig.critics))
    return presets_of(config, smaller={"hidden": (256, 256), "critics": 10}, updates=3_000_000)


@register(
    "agent",
    "sac_n",
    SACNConfig,
    presets,
    title="SAC-N",
    paper="arXiv 2110.01548",
    idea="pessimism by the minimum of many critics",
)
def sac_n(config: SACNConfig, spec: Spec) -> Method:
    """SAC-N; one minibatch an update. Equal arguments give the same method."""
    return sac(config, spec)
