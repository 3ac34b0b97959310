"""(N-)HARPG (Fatkhullin et al. 2023, arXiv 2302.01734): momentum that a product with the Hessian corrects."""

from dataclasses import dataclass, replace
from functools import lru_cache

import jax
import jax.numpy as jnp
import optax
from jax import Array

from jdp.alignment import advantages
from jdp.alignment.chain import chain_learner, density, divergence, drawn, judged, sample
from jdp.alignment.learner import Aligned, each
from jdp.alignment.models import Model
from jdp.alignment.n_pg_igt import NormalisedConfig
from jdp.alignment.presets import presets_of
from jdp.errors import check_settings
from jdp.finetune.chain import Moves, moves
from jdp.learning import policy_gradients
from jdp.learning.ppo import flat
from jdp.registry import register
from jdp.types import Bound, Learner, Metrics, Params, Update, named_keys


@dataclass(frozen=True)
class HARPGConfig(NormalisedConfig):
    """Settings of (N-)HARPG."""

    normalise: bool = True
    """N-HARPG: steps of one length; else as long as the estimate of the gradient."""
    between: int = 8
    """Conditions of a batch whose chains, drawn between the last parameters and these, give the Hessian."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_settings(type(self).__name__, between=(self.between, 1, 1_000_000))

    def optimiser(self) -> optax.GradientTransformation:
        """Plain momentum: its memory is corrected before each step."""
        return policy_gradients.momentum(self.length(), self.share(), normalise=self.normalise)


def gradient(
    params: Params,
    weight: Array,
    found: Moves,
    reward: Array,
    *,
    reference: Params,
    config: HARPGConfig,
    model: Model,
) -> Params:
    """That of `chain.loss` in chains that `params` drew, of which chain `b` counts `weight[b]` times.

    Args:
        weight: `[B]`.
        found: their moves, `[n, B, ...]`.
        reward: `[B]`.
    """
    own = {"reference": reference, "config": config, "model": model}
    rows, _ = judged(params, found, reward, advantage=advantages.centred, **own)
    counts = jnp.tile(weight, len(found.step))

    def objective(at: Params) -> Array:
        ours, theirs = (drawn(p, rows.moves, config, model) for p in (at, reference))
        surprise = -rows.advantage * density(ours, rows.moves.following, config, model)
        return jnp.mean(counts * (surprise + config.kl_weight * divergence(ours, theirs, config, model)))

    return jax.grad(objective)(params)


def log_prob(params: Params, found: Moves, config: HARPGConfig, model: Model) -> Array:
    """`[B]`, log densities of the chains whose moves `[n, B, ...]` were `found`."""
    every, whole = flat(found), replace(config, log_prob="sum")
    terms = density(drawn(params, every, config, model), every.following, whole, model)
    return jnp.sum(terms.reshape(found.step.shape), axis=0)


def _change(key: Array, state: Aligned, batch: Array, config: HARPGConfig, model: Model) -> Params:
    """An estimate of how the gradient changed with the last step of the parameters."""
    keys, (params, memory) = named_keys(key, "place", "chain"), state.trained
    share = jax.random.uniform(keys["place"])
    between = jax.tree.map(lambda x, v: x - share * v, params, memory.moved)
    condition = each(batch[: config.between], config)
    states = sample(keys["chain"], between, condition, config, model)
    reward, found = state.judge(states[-1], condition), moves(states, condition)

    def weighted(at: Params, weight: Array) -> Params:
        own = {"reference": state.reference, "config": config, "model": model}
        return gradient(at, weight, found, reward, **own)

    def probable(at: Params) -> Array:
        return log_prob(at, found, config, model)

    return policy_gradients.hessian_vector(weighted, probable, between, memory.moved)


def _update(
    key: Array, state: Aligned, batch: Array, *, update: Update, config: HARPGConfig, model: Model
) -> tuple[Aligned, Metrics]:
    keys = named_keys(key, "change", "update")
    change = _change(keys["change"], state, batch, config, model)
    memory = policy_gradients.corrected(state.trained.optimiser, change)
    return update(keys["update"], state._replace(trained=state.trained._replace(optimiser=memory)), batch)


@register(
    "alignment",
    "harpg",
    HARPGConfig,
    presets_of(HARPGConfig(), 300, 16),
    title="(N-)HARPG",
    paper="arXiv 2302.01734",
    idea="the mean of past policy gradients is moved with the parameters, by a product with the Hessian",
    departures="on denoising chains, a batch for each step, a smaller one for the Hessian; slower decays",
)
@lru_cache
def harpg(config: HARPGConfig, model: Model) -> Learner:
    """(N-)HARPG of `model`. Equal arguments give the same learner."""
    found = chain_learner(config, model, advantages.centred)
    own = (("config", config), ("model", model), ("update", found.update))
    return found._replace(update=Bound(_update, own))
