"""Any trained policy that samples a denoiser, with block-wise caching (BAC, `jdp.diffusion.caching`)."""

from dataclasses import dataclass
from typing import Any

from jdp import registry
from jdp.diffusion.caching import CacheSchedule, with_cache
from jdp.diffusion.sampling import Sampling
from jdp.errors import UserError
from jdp.types import Guide, Method, Spec


@dataclass(frozen=True)
class _Cached:
    """Settings that say another sampling, and all else as `config` does."""

    config: Any
    schedule: CacheSchedule

    def __getattr__(self, name: str) -> Any:
        return getattr(self.config, name)

    def sampling(self) -> Sampling:
        return with_cache(self.config.sampling(), self.schedule)


def cached(config: Any, spec: Spec, schedule: CacheSchedule, *, guide: Guide | None = None) -> Method:
    """The policy of `config`, which learns as ever and acts with the cache: trained states serve as they are.

    The schedule comes from a profile of its denoiser, for instance of diffusion policy's, `seen`
    (`jdp.policies.chunks.condition`) being of observations of the data:

        own = jdp.policies.actions.denoiser(state.actor.ema, seen, config)
        sigmas = config.sampling().sigmas()
        x = sigmas[0] * jax.random.normal(key, (seen.shape[0], config.chunk * spec.action_dim))
        schedule = adaptive(profile(own, x, sigmas), budget=4)

    A guide may steer it unless it differentiates the denoiser.

    Raises:
        UserError: for policies without a denoiser, and samplers that are not cached.
    """
    entry = registry.entry_of("policy", config)
    if not hasattr(config, "sampling"):
        raise UserError(f"{entry.name} acts without a sampler: it has nothing to cache")
    plain = registry.make("policy", config, spec, guide=guide)
    parts = {} if guide is None else {"guide": guide}
    return plain._replace(policy=entry.make(_Cached(config, schedule), spec, **parts).policy)
