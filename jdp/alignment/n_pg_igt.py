"""N-PG-IGT (Fatkhullin et al. 2023, arXiv 2302.01734): policy gradients ahead of the parameters."""

from dataclasses import dataclass
from functools import lru_cache

import optax
from jax import Array

from jdp.alignment import advantages
from jdp.alignment.chain import ChainConfig, chain_learner
from jdp.alignment.learner import Aligned
from jdp.alignment.models import Model
from jdp.alignment.presets import presets_of
from jdp.errors import check_settings
from jdp.learning import policy_gradients
from jdp.registry import register
from jdp.types import Bound, Learner, Metrics, PyTree, Update


@dataclass(frozen=True)
class NormalisedConfig(ChainConfig):
    """Settings of policy gradients of one length; their momentum takes one step an update."""

    learning_rate: float = 0.1
    """Length of the first step, in the units of the parameters; `grad_norm` says nothing here."""
    step_decay: float = 0.5
    """Step `t` is `(2 / (t + 2))^step_decay` times as long; in the paper 1."""
    share_decay: float = 0.5
    """The share of the newest gradient in the mean is `(2 / (t + 2))^share_decay`; in the paper 0.8."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_settings(
            type(self).__name__,
            epochs=(self.epochs, 1, 1),
            minibatches=(self.minibatches, 1, 1),
            step_decay=(self.step_decay, 0, 10),
            share_decay=(self.share_decay, 0, 10),
        )

    def length(self) -> optax.Schedule:
        """Of steps."""
        return policy_gradients.decayed(self.learning_rate, self.step_decay)

    def share(self) -> optax.Schedule:
        """Of new gradients."""
        return policy_gradients.decayed(1.0, self.share_decay)


@dataclass(frozen=True)
class NPGIGTConfig(NormalisedConfig):
    """Settings of N-PG-IGT."""

    def optimiser(self) -> optax.GradientTransformation:
        """Momentum that moves the parameters ahead."""
        return policy_gradients.transported(self.length(), self.share())


def _update(
    key: Array, state: Aligned, batch: PyTree, *, update: Update, config: NPGIGTConfig
) -> tuple[Aligned, Metrics]:
    """One update of what lies ahead of the parameters; the state has the parameters themselves."""
    share, (params, memory) = config.share(), state.trained
    before = policy_gradients.ahead(params, memory, share)
    state, metrics = update(key, state._replace(trained=state.trained._replace(params=before)), batch)
    params = policy_gradients.themselves(*state.trained, share)
    return state._replace(trained=state.trained._replace(params=params)), metrics


@register(
    "alignment",
    "n_pg_igt",
    NPGIGTConfig,
    presets_of(NPGIGTConfig(), 300, 16),
    title="N-PG-IGT",
    paper="arXiv 2302.01734",
    idea="policy gradients so far ahead that their mean is of the present parameters; steps of a set length",
    departures="on denoising chains, a batch for each step; slower decays",
)
@lru_cache
def n_pg_igt(config: NPGIGTConfig, model: Model) -> Learner:
    """N-PG-IGT of `model`. Equal arguments give the same learner."""
    found = chain_learner(config, model, advantages.centred)
    return found._replace(update=Bound(_update, (("config", config), ("update", found.update))))
