"""CTRL (Zhao et al. 2024, arXiv 2406.12120): a new condition for a trained model, through its own chain."""

from dataclasses import dataclass
from functools import lru_cache

import jax
import jax.numpy as jnp
from jax import Array

from jdp.alignment.chain import DrawnConfig, divergence
from jdp.alignment.learner import NOTHING, Aligned, each, init
from jdp.alignment.models import GivenDraw, Model
from jdp.alignment.presets import presets_of
from jdp.diffusion.transitions import ddim
from jdp.errors import check_settings
from jdp.learning.optimiser import descend
from jdp.registry import register
from jdp.types import Bound, Learner, Metrics, Params, named_keys


@dataclass(frozen=True)
class CTRLConfig(DrawnConfig):
    """Settings of CTRL; a batch is of conditions, new ones among them."""

    group: int = 1
    """Samples for each condition."""
    kl_weight: float = 0.1
    """Of the divergence from the model as it was: the classifier counts `1 / kl_weight` times."""
    last: int | None = None
    """Steps through which gradients flow, the last ones; None: all."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.last is not None:
            check_settings(type(self).__name__, last=(self.last, 1, 100_000))


def objective(
    params: Params, key: Array, state: Aligned, condition: Array, config: CTRLConfig, model: Model
) -> tuple[Array, Metrics]:
    """`-E log p(y | x0) + beta KL(chain || chain as it was)`, differentiable through what was drawn.

    The judge is the classifier, `(x0, condition) -> [B]` log probabilities. The key is consumed.
    """
    keys, sigmas = named_keys(key, "start", "steps"), model.sampling.sigmas()
    ours, theirs = (model.denoiser(p, condition) for p in (params, state.reference))
    count = len(sigmas) - 1
    frozen = 0 if config.last is None else max(count - config.last, 0)

    @jax.checkpoint
    def step(x: Array, item: tuple[Array, Array, Array, Array]) -> tuple[Array, Array]:
        key, now, following, learns = item
        x = jnp.where(learns, x, jax.lax.stop_gradient(x))
        options = {"eta": config.eta, "std_floor": config.std_floor}
        found, other = (ddim(d, (), x, now, following, **options)[0] for d in (ours, theirs))
        return found.sample(key), divergence(found, other, config, model)

    inputs = jax.random.split(keys["steps"], count), sigmas[:-1], sigmas[1:], jnp.arange(count) > frozen
    x0, apart = jax.lax.scan(step, model.start(keys["start"], len(condition)), inputs)
    log_prob, kl = jnp.mean(state.judge(x0, condition)), jnp.mean(jnp.sum(apart, axis=0))
    loss = -log_prob + config.kl_weight * kl
    return loss, {"loss": loss, "reward": log_prob, "kl": kl}


def _update(
    key: Array, state: Aligned, batch: Array, *, config: CTRLConfig, model: Model
) -> tuple[Aligned, Metrics]:
    def loss(params: Params) -> tuple[Array, Metrics]:
        return objective(params, key, state, each(batch, config), config, model)

    trained, metrics = descend(config.optimiser(), state.trained, loss)
    return state._replace(trained=trained), metrics


@register(
    "alignment",
    "ctrl",
    CTRLConfig,
    presets_of(CTRLConfig(learning_rate=2e-3, kl_weight=1.0), 300, 256),
    title="CTRL",
    paper="arXiv 2406.12120",
    idea="a new condition: the gradient of a classifier of samples, through the chain that drew them",
    departures="what was drawn is differentiated through all steps, or the last ones; no adapter",
)
@lru_cache
def ctrl(config: CTRLConfig, model: Model) -> Learner:
    """CTRL of `model`. Equal arguments give the same learner."""
    own = (("config", config), ("model", model))
    return Learner(Bound(init, (*own, ("memory", NOTHING))), Bound(_update, own), GivenDraw())
