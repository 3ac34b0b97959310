"""DiWA (Chandra et al. 2025, arXiv 2508.03645): DPPO in dreams, not in the environment."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache

from jdp.errors import check_settings
from jdp.finetune.chain import ChainConfig
from jdp.finetune.dppo import DPPOConfig, denoising_method
from jdp.finetune.dream import DreamConfig
from jdp.learning.acting import OnPolicyConfig
from jdp.policies.chunks import ChunkConfig
from jdp.registry import Preset, Task, register
from jdp.types import Method, Spec


@dataclass(frozen=True)
class DiWAConfig(DPPOConfig):
    """Settings of DiWA: those of DPPO, and of the dreams that it learns in."""

    dream: DreamConfig = field(default_factory=DreamConfig)
    """Episodes in the world model."""
    bc_weight: float = 0.05
    """Of the divergence of the base policy's denoising steps from those that learn."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_settings(type(self).__name__, bc_weight=(self.bc_weight, 0, 1e9))


def presets(task: Task) -> Mapping[str, Preset]:
    """Our own, for the paper's are of pictures: rollouts of two dreams of 32 steps in each place."""
    del task
    cpu = DiWAConfig(
        acting=OnPolicyConfig(256, 8), minibatches=8, clip=0.1, clip_first=0.1, learning_rate=1e-4
    )
    tiny = replace(
        cpu, acting=OnPolicyConfig(4, 4), chain=ChainConfig(4, 2), critic_hidden=(32,), minibatches=2
    )
    paper = DiWAConfig(acting=OnPolicyConfig(512, 16), chain=ChainConfig(20, 10))
    return {
        "smoke": Preset(tiny, updates=2, batch_size=0, seeds=2),
        "cpu": Preset(cpu, updates=50, batch_size=0, seeds=3),
        "paper": Preset(paper, updates=500, batch_size=0, seeds=5),
    }


@register(
    "fine_tuner",
    "diwa",
    DiWAConfig,
    presets,
    title="DiWA",
    paper="arXiv 2508.03645",
    idea="DPPO in the dreams of a learned world model, with not one step of the environment",
    departures="states in the place of recurrent latent ones; the model's learned reward in that of "
    "a classifier of success; a penalty where an ensemble's members disagree; the divergence from the base "
    "policy's steps where the current policy goes, in the place of the likelihood of its own chains",
    chunks="execute",  # an action of its behaviour is a chunk of so many
    dreams="ensemble",  # learns in a world model: this one, where no other is asked for
)
@lru_cache
def diwa(config: DiWAConfig, spec: Spec, *, base: ChunkConfig) -> Method:
    """DiWA on a `diffusion_policy` of settings `base`: DPPO, to be trained in a `jdp.finetune.dream.Dream`.

    `init` sees the state of the base policy. Equal arguments give the same method.
    """
    return denoising_method(config, spec, base)
