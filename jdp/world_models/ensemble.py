"""An ensemble of probabilistic dynamics (PETS, arXiv 1805.12114; MBPO, arXiv 1906.08253).

Longer than other files, for it has many settings and is a simulator; `jdp.world_models.members` has the
networks and their loss, `jdp.world_models.training` trains.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array

from jdp.data.checks import check_fits
from jdp.data.normalise import Affine, fit_affine
from jdp.devices.mesh import spread_rows
from jdp.errors import UserError, check_settings
from jdp.learning.optimiser import step as descend
from jdp.networks.mlp import mlp
from jdp.registry import Preset, Task, register
from jdp.types import (
    Bound,
    Learner,
    Metrics,
    Network,
    Normal,
    Params,
    PyTree,
    Spec,
    Transition,
    WorldModel,
    named_keys,
)
from jdp.world_models import members
from jdp.world_models.bootstrap import BootstrapDraw
from jdp.world_models.history import present
from jdp.world_models.termination import Rule


@dataclass(frozen=True)
class EnsembleConfig:
    """Settings of the ensemble and of its training; the defaults are MBPO's for locomotion."""

    members: int = 7
    """Networks, each trained on a bootstrap of its own."""
    elites: int = 5
    """The members of lowest holdout error, the only ones that predict."""
    hidden: tuple[int, ...] = (200, 200, 200, 200)
    """Widths of a member's hidden layers."""
    learning_rate: float = 1e-3
    """Of Adam."""
    decay: tuple[float, ...] = (2.5e-5, 5e-5, 7.5e-5, 7.5e-5, 1e-4)
    """Weight decay of each layer, or one value for all: `decay / 2 * |W|^2` is added to the loss."""
    bound_weight: float = 0.01
    """What the width of the learned range of log-variances costs."""
    batch_size: int = 256
    """Rows of one update, for each member."""
    holdout_share: float = 0.2
    """Share of the rows that choose snapshots and elites, and train nothing."""
    holdout_limit: int = 5_000
    """The most rows held out."""
    patience: int = 5
    """Training ends after so many epochs in which no member improved."""
    improvement: float = 0.01
    """By what share of its best holdout error a member must fall below it."""
    epochs: int = 400
    """The most epochs; one is as many updates as give a member its number of rows once."""
    noise: bool = True
    """Whether a step is drawn from the predicted Gaussian, or is its mean."""
    termination: str = "auto"
    """What ends episodes: auto, learned, never, or a task (see `jdp.world_models.termination.choose`)."""

    def __post_init__(self) -> None:
        counts = ("members", "elites", "batch_size", "holdout_limit", "patience", "epochs")
        check_settings("ensemble", **{name: (getattr(self, name), 1, math.inf) for name in counts})
        sizes = {name: (getattr(self, name), 0, math.inf) for name in ("learning_rate", "bound_weight")}
        check_settings("ensemble", elites=(self.elites, 1, self.members), **sizes)
        check_settings("ensemble", improvement=(self.improvement, 0, 1))
        if not 0 < self.holdout_share < 1:
            raise UserError(f"ensemble.holdout_share is {self.holdout_share}: it must lie between 0 and 1")
        layers = len(self.hidden) + 1
        if len(self.decay) not in (1, layers):
            raise UserError(
                f"ensemble.decay has {len(self.decay)} values, but members have {layers} layers: "
                f"give {layers} values, or one for all layers"
            )


class EnsembleState(NamedTuple):
    """What training changes, what it has found so far, and the statistics of the data.

    Nothing else is needed to go on at the beginning of an epoch.
    """

    params: Params  # [M, ...]: {"network": MLP, "low" and "high": [M, O + 1] log-variances}
    optimiser: PyTree
    best: Params  # [M, ...]: of every member as it was when it last improved; these predict
    best_error: Array  # [M], their holdout errors; infinite before the first validation
    elites: Array  # [E] int32, the members of lowest `best_error`
    stale: Array  # [] int32, epochs since any member improved
    epoch: Array  # [] int32, epochs completed
    inputs: Affine  # [O + A]
    targets: Affine  # [O + 1]: change of the observation, reward


def member_network(config: EnsembleConfig, spec: Spec, rule: Rule | None) -> Network:
    """One member: standardised inputs `[..., O + A]` to means, log-variances and perhaps a logit."""
    width = 2 * (spec.observation_dim + 1) + (rule is None)
    return mlp((*config.hidden, width), activation="silu")


def _optimiser(config: EnsembleConfig) -> optax.GradientTransformation:
    return optax.adam(config.learning_rate)


def standardised(state: EnsembleState, batch: Transition) -> tuple[Array, Array]:
    """Inputs `[..., O + A]` and targets `[..., O + 1]` of the networks."""
    x = jnp.concatenate([batch.observation, batch.action], axis=-1)
    change = batch.next_observation - batch.observation
    y = jnp.concatenate([change, batch.reward[..., None]], axis=-1)
    return state.inputs(x), state.targets(y)


def _init(
    key: Array, transitions: Transition, *, config: EnsembleConfig, spec: Spec, rule: Rule | None
) -> EnsembleState:
    check_fits(transitions.observation, transitions.action, spec, "ensemble")
    x = jnp.zeros(spec.observation_dim + spec.action_dim)
    network, dim = member_network(config, spec, rule), spec.observation_dim + 1
    params = members.begin(key, network, x, config.members, dim)
    observation, action, reward, following = (jnp.asarray(field) for field in transitions[:4])
    return EnsembleState(
        params=params,
        optimiser=_optimiser(config).init(params),
        # A copy: the fit loop donates the state, and one buffer cannot be donated twice.
        best=jax.tree.map(jnp.copy, params),
        best_error=jnp.full(config.members, jnp.inf, jnp.float32),
        elites=jnp.arange(config.elites, dtype=jnp.int32),
        stale=jnp.zeros((), jnp.int32),
        epoch=jnp.zeros((), jnp.int32),
        inputs=fit_affine(jnp.concatenate([observation, action], axis=-1)),
        targets=fit_affine(jnp.concatenate([following - observation, reward[:, None]], axis=-1)),
    )


def _update(
    key: Array,
    state: EnsembleState,
    batch: Transition,
    *,
    config: EnsembleConfig,
    spec: Spec,
    rule: Rule | None,
) -> tuple[EnsembleState, Metrics]:
    """One step of every member on its own rows of `batch` `[M, B, ...]`. `key` is unused."""
    del key
    x, y = standardised(state, batch)
    settings = {"bound_weight": config.bound_weight, "decay": config.decay}
    gradient, metrics = jax.grad(members.loss, has_aux=True)(
        state.params, x, y, batch.terminal, network=member_network(config, spec, rule), **settings
    )
    params, optimiser = descend(_optimiser(config), gradient, state.optimiser, state.params)
    return state._replace(params=params, optimiser=optimiser), metrics


def _elites(state: EnsembleState) -> Params:
    return jax.tree.map(lambda p: p[state.elites], state.best)


def _in_units(state: EnsembleState, out: members.Outputs, observation: Array) -> Normal:
    """Next observation and reward, `[..., O + 1]`, from what `out` says of an `observation` `[..., O]`."""
    here = jnp.concatenate([observation, jnp.zeros_like(observation[..., :1])], axis=-1)
    here = jnp.expand_dims(here, tuple(range(out.mean.ndim - here.ndim)))
    std = jnp.expand_dims(state.targets.std, tuple(range(out.mean.ndim - 1)))
    return Normal(here + state.targets.inverse(out.mean), std * jnp.exp(0.5 * out.log_variance))


def _predict(
    state: EnsembleState,
    observation: Array,
    action: Array,
    *,
    config: EnsembleConfig,
    spec: Spec,
    rule: Rule | None,
) -> Normal:
    x = state.inputs(jnp.concatenate([observation, action], axis=-1))
    out = members.forward(_elites(state), x, member_network(config, spec, rule))
    return _in_units(state, out, observation)


def _step(
    key: Array,
    state: EnsembleState,
    carry: Array,
    action: Array,
    *,
    config: EnsembleConfig,
    spec: Spec,
    rule: Rule | None,
) -> tuple[Array, Array, Array, Array]:
    """From observations `carry` `[B, O]`: every row's next state is drawn from an elite drawn for it.

    A learned terminal is drawn too, so episodes end as often as the data say, even where the head
    cannot tell when.
    """
    keys = named_keys(key, "member", "noise", "terminal")
    x = state.inputs(jnp.concatenate([carry, action], axis=-1))
    x, place = members.dealt(keys["member"], x, config.elites)
    out = members.forward(_elites(state), spread_rows(x, 1), member_network(config, spec, rule))
    out = jax.tree.map(lambda o: o[:, : x.shape[1]].reshape(-1, *o.shape[2:])[place], out)  # [B, ...] again
    prediction = _in_units(state, out, carry)
    drawn = prediction.sample(keys["noise"]) if config.noise else prediction.mean
    following, reward = drawn[:, :-1], drawn[:, -1]
    if rule is None:
        terminal = jax.random.bernoulli(keys["terminal"], jax.nn.sigmoid(out.logit))
    else:
        terminal = rule(carry, action, following)
    return following, following, reward, terminal.astype(jnp.float32)


def presets(task: Task) -> Mapping[str, Preset]:
    """The same for all datasets; `updates` stands for nothing, for training ends by itself (`epochs`)."""
    del task
    smoke = EnsembleConfig(members=3, elites=2, hidden=(32, 32), decay=(0.0,), epochs=2)
    found = {"smoke": smoke, "cpu": EnsembleConfig(epochs=20), "paper": EnsembleConfig()}
    return {name: Preset(config, 0, config.batch_size) for name, config in found.items()}


@register(
    "world_model",
    "ensemble",
    EnsembleConfig,
    presets,
    title="Probabilistic ensemble",
    paper="PETS arXiv 1805.12114, MBPO arXiv 1906.08253",
    idea="probabilistic networks, bootstraps, elites by holdout",
    departures="targets are standardised too; every member has bounds of its own",
    predicts_members=True,
)
@lru_cache
def ensemble(config: EnsembleConfig, spec: Spec, rule: Rule | None = None) -> WorldModel:
    """Probabilistic networks as a world model; equal arguments give the same model.

    Every member maps standardised (observation, action) to mean and variance of the change of the
    observation and the reward. `rule` decides where episodes end; with None a further output learns
    it. Batches of `update` have leading axes `[M, B]`, one bootstrap for each member. `step` and
    `predict` use the elites' best snapshots, so train it with `jdp.world_models.training`, which
    validates: before that, they are the untrained networks.

    Members of `predict` are the `E = config.elites` elites, in order of their holdout errors.

    Departures from MBPO: targets are standardised too (a constant one only shifted), so losses, bounds
    and holdout errors mean the same for every task; initial weights are uniform in +-1/sqrt(fan-in).
    """
    settings = (("config", config), ("rule", rule), ("spec", spec))
    draw = BootstrapDraw(spec.observation_dim, spec.action_dim, config.members)
    return WorldModel(
        learner=Learner(Bound(_init, settings), Bound(_update, settings), draw),
        start=present,
        step=Bound(_step, settings),
        predict=Bound(_predict, settings),
    )
