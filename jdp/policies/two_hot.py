"""A policy over bins of each action entry, cloned by cross-entropy: the base that World4RL improves."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jdp.data import Hindsight, SegmentDraw, SegmentRows
from jdp.data.checks import check_fits
from jdp.data.normalise import Affine
from jdp.distributions import Categorical
from jdp.errors import check_settings
from jdp.learning.actors import decided_anew, remembers_nothing
from jdp.learning.observations import observation_affine
from jdp.learning.optimiser import Trained, begin, constant_adam, descend
from jdp.networks.mlp import mlp
from jdp.networks.two_hot import from_two_hot, two_hot
from jdp.policies import relabelled
from jdp.policies.presets import presets_of
from jdp.policies.relabelled import imitated
from jdp.registry import Preset, Task, register
from jdp.types import Bound, Decision, Learner, Method, Metrics, Network, Params, Policy, Segments, Spec


@dataclass(frozen=True)
class TwoHotConfig:
    """Settings of the policy over bins."""

    bins: int = 41
    """K, of each entry of an action, evenly spaced from -1 to 1."""
    hidden: tuple[int, ...] = (256, 256)
    """Widths of the network."""
    learning_rate: float = 3e-4
    """Of Adam."""
    adam_eps: float = 1e-8
    """Of Adam."""

    def __post_init__(self) -> None:
        check_settings(
            type(self).__name__, bins=(self.bins, 2, 10_000), learning_rate=(self.learning_rate, 0, 1)
        )


class TwoHotState(NamedTuple):
    """The network, and the units of what it sees."""

    actor: Trained
    standardise: Affine  # of observations, [O]


def network(config: TwoHotConfig, spec: Spec) -> Network:
    """Of what is shown `[..., O + G]` to logits `[..., A * K]`."""
    return mlp((*config.hidden, spec.action_dim * config.bins), activation="silu")


def over_bins(params: Params, shown: Array, config: TwoHotConfig, spec: Spec) -> Categorical:
    """The distribution of bins `[B, A]` at what is shown `[B, O + G]`."""
    logits = network(config, spec).apply(params, shown)
    return Categorical(logits.reshape(*shown.shape[:-1], spec.action_dim, config.bins))


def in_box(bins: Array, config: TwoHotConfig) -> Array:
    """Actions in the middle of `bins` `[..., A]`."""
    return jnp.linspace(-1.0, 1.0, config.bins)[bins]


def cross_entropy(of: Categorical, action: Array) -> Array:
    """`[B]`, of the two-hot weights of actions `[B, A]`: least where the mean of the bins is the action."""
    logs = jax.nn.log_softmax(of.logits, axis=-1)
    return -jnp.sum(two_hot(action, logs.shape[-1]) * logs, axis=(-2, -1))


def _init(key: Array, rows: SegmentRows, *, config: TwoHotConfig, spec: Spec) -> TwoHotState:
    check_fits(rows.observation, rows.action, spec, "policy")
    params = network(config, spec).init(key, jnp.zeros(spec.observation_dim + len(spec.goal)))
    return TwoHotState(begin(constant_adam(config), params), observation_affine(rows.observation))


def _update(
    key: Array, state: TwoHotState, batch: Segments, *, config: TwoHotConfig, spec: Spec
) -> tuple[TwoHotState, Metrics]:
    """One step of imitation; `key` is unused."""
    del key
    shown = relabelled.condition(state.standardise, batch.observation[:, 0], batch.goal, spec)
    keep = imitated(batch, spec)

    def loss(params: Params) -> tuple[Array, Metrics]:
        said = over_bins(params, shown, config, spec)
        found = relabelled.mean_of(cross_entropy(said, batch.action[:, 0]), keep)
        return found, {"loss": found}

    actor, metrics = descend(constant_adam(config), state.actor, loss)
    return state._replace(actor=actor), metrics


def _act(
    key: Array,
    state: TwoHotState,
    carry: tuple[()],
    observation: Array,
    goal: Array,
    *,
    config: TwoHotConfig,
    spec: Spec,
) -> tuple[tuple[()], Decision]:
    """The mean of the bins; nothing is drawn."""
    del key
    shown = relabelled.condition(state.standardise, observation, goal, spec)
    said = over_bins(state.actor.params, shown, config, spec)
    return carry, decided_anew(from_two_hot(said.mean))


def presets(task: Task) -> Mapping[str, Preset]:
    """The same settings for all datasets."""
    return presets_of(TwoHotConfig(), task)


@register(
    "policy",
    "two_hot",
    TwoHotConfig,
    presets,
    title="Two-hot cloning",
    paper="World4RL arXiv 2509.19080",
    idea="clones bins of each action entry by the two nearest ones, so that no digit is lost",
    departures="the paper encodes what its world model sees so, and clones by squared error",
)
@lru_cache
def two_hot_policy(config: TwoHotConfig, spec: Spec) -> Method:
    """A policy over bins, which acts by their mean. Equal arguments give the same method."""
    settings = (("config", config), ("spec", spec))
    draw = SegmentDraw((0,), spec.goal, Hindsight(later=1.0))
    learner = Learner(Bound(_init, settings), Bound(_update, settings), draw)
    return Method(learner, Policy(remembers_nothing, Bound(_act, settings)))
