"""Block-wise adaptive caching (BAC, arXiv 2506.13456): residual branches of a trained network are reused.

Along a chain of n steps the output of a branch changes slowly. `profile` measures how slowly, `adaptive` says
from it which steps compute which branch, and a cached sampler takes the others from the step before:

    found = profile(denoiser, x, sigmas)
    schedule = adaptive(found, budget=4)
    x0 = sample_cached(denoiser, x, sigmas, schedule=schedule)

The schedule is static and the chain is unrolled under `jit`, so a branch that is not due is not in the
program. Nothing is trained, and the denoiser is any whose network has marked branches
(`jdp.networks.branches`): of the transformer and of the conditional MLP; also one that classifier-free
guidance or held entries wrap, but not one that a guide differentiates. A branch is cached before its gate,
which is cheap and sees the present level (the paper's transformer has no gates).
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jdp.diffusion import transitions
from jdp.diffusion.chains import split
from jdp.diffusion.denoiser import network_levels
from jdp.diffusion.samplers import Sampler
from jdp.diffusion.sampling import Sampling
from jdp.diffusion.transitions import Scalar, Step
from jdp.distributions import Distribution
from jdp.errors import UserError, check_settings
from jdp.networks.branches import branches
from jdp.types import Bound, Denoiser, PyTree

Rows = tuple[tuple[bool, ...], ...]


@dataclass(frozen=True)
class CacheSchedule:
    """Which steps of a chain compute which branch; hashable, and static under `jit`.

    Raises:
        UserError: unless the first step computes all, and all steps have as many branches.
    """

    fresh: Rows  # [n][N]

    def __post_init__(self) -> None:
        widths = {len(row) for row in self.fresh}
        if len(widths) != 1 or not all(self.fresh[0]):
            raise UserError(
                "a cache schedule has a row of as many branches for each step, and its first computes all: "
                f"not {self.fresh}"
            )

    def last(self, steps: int) -> "CacheSchedule":
        """That of a chain of the last `steps` alone, a warm start: it begins with an empty cache.

        Raises:
            UserError: if there are fewer.
        """
        if steps > len(self.fresh):
            raise UserError(
                f"the cache schedule is of {len(self.fresh)} steps, and the sampler takes {steps}: profile "
                "the levels that are sampled"
            )
        rows = self.fresh[len(self.fresh) - steps :]
        return CacheSchedule(((True,) * len(rows[0]), *rows[1:]))

    @property
    def share(self) -> float:
        """Branches that are computed, of all."""
        return float(np.mean(self.fresh))


class Profile(NamedTuple):
    """How the N branches of a network change along chains of n steps."""

    similarity: Array  # [N, n, n], cosine of a branch's outputs at two steps, the mean over rows
    volatility: Array  # [N], mean absolute difference of its outputs over all pairs of steps
    feeds: Array  # [N] bool, whether it is a feed-forward branch


def profile(
    denoiser: Denoiser,
    x: Array,
    sigmas: Array,
    *,
    key: Array | None = None,
    step: Step = transitions.ddim,
    eta: Scalar = 0.0,
) -> Profile:
    """Of the chains that `sample_cached` draws from `x` `[B, ...]` down `sigmas` `[n + 1]`; jittable.

    A few dozen rows do, from observations of the data. The key of a stochastic sampler is consumed.
    """
    with branches() as met:
        # A function that was never traced: the Python within runs.
        jax.eval_shape(lambda x: denoiser(x, network_levels(sigmas[0], x)), x)
    if not met.kinds:
        raise UserError(
            "the denoiser's network has no branches to cache: take network.kind transformer, or a policy, "
            "whose network is a residual MLP"
        )
    steps = [cached(step, None)] * (sigmas.shape[0] - 1)
    outputs = [memory[1] for _, memory in _unrolled(steps, denoiser, x, sigmas, key, eta, 0.0)]
    outputs = [[o.reshape(o.shape[0], -1).astype(jnp.float32) for o in row] for row in outputs]
    stacked = [jnp.stack([row[b] for row in outputs]) for b in range(len(met.kinds))]  # [n, B, F] each
    feeds = jnp.array([kind == "feed_forward" for kind in met.kinds])
    return Profile(
        jnp.stack([_cosines(f) for f in stacked]), jnp.stack([_volatility(f) for f in stacked]), feeds
    )


def _cosines(features: Array) -> Array:
    """`[n, n]` of `[n, B, F]`; a branch that is 0 is like itself."""
    norm = jnp.linalg.norm(features, axis=-1, keepdims=True)
    unit = features / jnp.where(norm > 0, norm, 1.0)
    found = jnp.einsum("ibf,jbf->bij", unit, unit, precision="highest")
    zero = (norm[..., 0] == 0).T  # [B, n]
    return jnp.mean(jnp.where(zero[:, :, None] & zero[:, None], 1.0, found), axis=0)


def _volatility(features: Array) -> Array:
    """`[]` of `[n, B, F]`."""
    n = features.shape[0]
    gaps = jnp.stack([jnp.mean(jnp.abs(features - other[None])) for other in features])
    return jnp.sum(gaps) / max(n - 1, 1)


def best_steps(similarity: np.ndarray, budget: int) -> tuple[int, ...]:
    """The `budget` steps that recompute a branch with the greatest `total_similarity`; 0 is one of them.

    By dynamic programming (section 4.1): `best[m][j]` is the most that steps before `j` give with `m`
    updates, O(budget n^2). Of equal ones the earlier updates.
    """
    n = similarity.shape[0]
    reuse = np.cumsum(np.triu(similarity, 1), axis=1)  # reuse[i, j]: what i gives to i + 1 .. j
    best = np.full((budget + 1, n + 1), -np.inf)
    came, best[0, 0] = np.zeros((budget + 1, n + 1), int), 0.0
    for m in range(1, budget + 1):
        for end in range(m, n + 1):
            options = best[m - 1, :end] + reuse[:end, end - 1]
            came[m, end] = int(np.argmax(options))
            best[m, end] = options[came[m, end]]
    steps, end = [], n
    for m in range(budget, 0, -1):
        end = int(came[m, end])
        steps.append(end)
    return tuple(steps[::-1])


def total_similarity(similarity: np.ndarray, steps: Sequence[int]) -> float:
    """`sum_k S[c(k), k]` over the steps k that reuse what was computed at `c(k)`, the last update before."""
    ends = (*steps[1:], similarity.shape[0])
    return float(sum(similarity[c, c + 1 : end].sum() for c, end in zip(steps, ends, strict=True)))


def bubbled(
    steps: Sequence[Sequence[int]], feeds: np.ndarray, volatility: np.ndarray, upstream: int
) -> list[tuple[int, ...]]:
    """The bubbling union (section 4.2): `steps` of each branch, against surges of error.

    A feed-forward branch that is computed anew from stale inputs passes their error on, enlarged. So the
    `upstream` most volatile of them are also computed at all steps at which any later one is, the last first.
    """
    found, order = [set(s) for s in steps], [int(b) for b in np.flatnonzero(feeds)]
    worst = sorted(order, key=lambda b: -volatility[b])[:upstream]
    for b in sorted(worst, reverse=True):
        found[b] = found[b].union(*(found[later] for later in order if later > b))
    return [tuple(sorted(s)) for s in found]


def _schedule(steps: Sequence[Sequence[int]], n: int) -> CacheSchedule:
    return CacheSchedule(tuple(tuple(k in s for s in steps) for k in range(n)))


def adaptive(found: Profile, budget: int, *, upstream: int = 2) -> CacheSchedule:
    """Each branch is computed at its `best_steps`, `budget` of n, and the `upstream` at those of `bubbled`.

    Raises:
        UserError: unless the budget is from 1 to n.
    """
    similarity = np.asarray(found.similarity, np.float64)
    n = similarity.shape[1]
    check_settings("adaptive", budget=(budget, 1, n), upstream=(upstream, 0, 1 << 20))
    steps = [best_steps(s, budget) for s in similarity]
    return _schedule(bubbled(steps, np.asarray(found.feeds), np.asarray(found.volatility), upstream), n)


def uniform(branch_count: int, steps: int, budget: int) -> CacheSchedule:
    """All branches are computed at the same `budget` steps of `steps`, evenly spaced; all steps: no cache."""
    check_settings("uniform", budget=(budget, 1, steps))
    at = {k * steps // budget for k in range(budget)}
    return CacheSchedule(tuple((k in at,) * branch_count for k in range(steps)))


def _cached(
    denoiser: Denoiser,
    memory: tuple[PyTree, tuple[Array, ...]] | None,
    x: Array,
    sigma: Array,
    sigma_next: Array,
    *,
    eta: Scalar,
    std_floor: Scalar,
    step: Step,
    fresh: tuple[bool, ...] | None,
) -> tuple[Distribution, tuple[PyTree, tuple[Array, ...]]]:
    inner, kept = (None, ()) if memory is None else memory
    with branches(fresh, kept) as met:
        drawn, inner = step(denoiser, inner, x, sigma, sigma_next, eta=eta, std_floor=std_floor)
    return drawn, (inner, tuple(met.outputs))


def cached(step: Step, fresh: tuple[bool, ...] | None) -> Step:
    """`step`, whose memory is its own and the branches' outputs; computes those branches that are `fresh`.

    None: all. Of a network call or more, as many as there were when it was profiled.
    """
    return Bound(_cached, (("step", step), ("fresh", fresh)))


def _unrolled(
    steps: Sequence[Step],
    denoiser: Denoiser,
    x: Array,
    sigmas: Array,
    key: Array | None,
    eta: Scalar,
    std_floor: Scalar,
) -> list[tuple[Array, Any]]:
    """The state and the memory after each of `steps`: draws, of means without a key."""
    keys, found, memory = None if key is None else split(key, sigmas), [], None
    for k, step in enumerate(steps):
        drawn, memory = step(denoiser, memory, x, sigmas[k], sigmas[k + 1], eta=eta, std_floor=std_floor)
        x = drawn.mean if keys is None else drawn.sample(keys[k])
        found.append((x, memory))
    return found


def sample_cached(
    denoiser: Denoiser,
    x: Array,
    sigmas: Array,
    *,
    schedule: CacheSchedule,
    step: Step = transitions.ddim,
    key: Array | None = None,
    eta: Scalar = 0.0,
    std_floor: Scalar = 0.0,
    trace: bool = False,
) -> Array:
    """A chain of `step`, unrolled, whose branches are computed by `schedule`: draws, of means without a key.

    `sigmas` `[n + 1]` may be the last levels of the schedule's chain. The key is consumed.

    Raises:
        UserError: for a schedule of another network, or of fewer steps.
    """
    steps = [cached(step, fresh) for fresh in schedule.last(sigmas.shape[0] - 1).fresh]
    states = [state for state, _ in _unrolled(steps, denoiser, x, sigmas, key, eta, std_floor)]
    return jnp.stack([x, *states]) if trace else states[-1]


_STEPS: dict[str, tuple[Any, float, bool]] = {  # step, eta, whether it draws
    "euler": (transitions.ddim, 0.0, False),
    "dpmpp_2m": (transitions.dpmpp_2m, 0.0, False),
    "dpmpp_2m_sde": (transitions.dpmpp_2m, 1.0, True),
    "ddpm": (transitions.ddpm, 1.0, True),
    "flow_sde": (transitions.flow_sde, 0.7 / 2**0.5, True),
}


def _sampler(denoiser: Denoiser, x: Array, sigmas: Array, *, key: Array | None = None, draws: bool, **rest):
    return sample_cached(denoiser, x, sigmas, key=key if draws else None, **rest)


def cached_sampler(name: str, schedule: CacheSchedule, eta: float | None = None) -> Sampler:
    """One of `samplers.SAMPLERS` that makes one network call a step, unrolled and cached.

    Raises:
        UserError: for any other.
    """
    if name not in _STEPS:
        raise UserError(f"sampler {name} is not cached: choose one of {', '.join(_STEPS)}")
    step, usual, draws = _STEPS[name]
    return partial(_sampler, schedule=schedule, step=step, eta=usual if eta is None else eta, draws=draws)


def _function(sampling: Any) -> Sampler:
    eta = sampling.eta if sampling.sampler == "dpmpp_2m_sde" else None
    return cached_sampler(sampling.sampler, sampling.cache, eta)


@cache
def _cached_type(kind: type[Sampling]) -> type[Sampling]:
    """Of settings with a schedule besides; one for each kind, so that equal settings are of equal types."""
    fields = [("cache", CacheSchedule | None, dataclasses.field(default=None))]
    return dataclasses.make_dataclass(
        f"Cached{kind.__name__}", fields, bases=(kind,), namespace={"function": _function}, frozen=True
    )


def with_cache(sampling: Sampling, schedule: CacheSchedule) -> Sampling:
    """`sampling`, whose sampler is cached: the same settings, levels and draws.

    A planner is one of `dataclasses.replace(config, sampling=with_cache(config.sampling, schedule))`; for
    policies see `jdp.policies.cached`.

    Raises:
        UserError: if its sampler cannot be.
    """
    kind: Any = _cached_type(type(sampling))
    found = kind(**vars(sampling), cache=schedule)
    found.function()
    return found
