"""A2PR (Liu et al. 2024, arXiv 2405.19909): TD3 that is pulled to the better of two actions.

Its actor imitates the data's action or one that a model of good actions proposes, whichever has the larger
advantage, and neither of them where it is worse than what V expects.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from typing import Any, Literal, NamedTuple

import jax.numpy as jnp
from jax import Array

from jdp.agents import td3, td3_bc
from jdp.agents.presets import presets_of
from jdp.agents.proposals import Proposal, VAEConfig, diffusion, vae
from jdp.agents.td3 import TD3Config, TD3State
from jdp.data.normalise import Affine
from jdp.errors import check_choices
from jdp.learning.actors import actor_method, deterministic
from jdp.learning.critics import critic, critic_loss, first, td_target, value_loss
from jdp.learning.fitting import falling_rates
from jdp.learning.observations import standardised
from jdp.learning.optimiser import Trained, begin, constant_adam, descend
from jdp.learning.vector_diffusion import VectorDiffusionConfig
from jdp.networks.mlp import mlp
from jdp.registry import Preset, Task, register
from jdp.types import Method, Metrics, Network, Normal, PyTree, Spec, Transition, named_keys

# What the authors' README gives for the sets that it names.
A2PR_SETTINGS: dict[str, dict[str, Any]] = {
    "halfcheetah-medium-v2": {"alpha": 40.0},
    "hopper-medium-v2": {"mask": 0.4, "discount": 0.995},
    "walker2d-medium-v2": {"vae": VAEConfig(reconstruction_weight=1.5)},
}


@dataclass(frozen=True)
class A2PRConfig(TD3Config):
    """Settings of A2PR; the defaults are those of the authors' code."""

    alpha: float = 2.5  # weight of Q against the pull
    mask: float = 1.0  # weight of the pull
    proposal: Literal["vae", "diffusion"] = "vae"  # what proposes the other action
    vae: VAEConfig = field(default_factory=VAEConfig)  # of "vae"
    denoiser: VectorDiffusionConfig = field(default_factory=VectorDiffusionConfig)  # of "diffusion"
    hidden: tuple[int, ...] = (256, 256, 256)  # widths of the actor
    critic_hidden: tuple[int, ...] = (256, 256, 256, 256)  # widths of the critics and of V
    normalise_observations: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choices(self)


class A2PRState(NamedTuple):
    """TD3's, V, and the model of good actions."""

    td3: TD3State
    value: Trained
    proposal: PyTree

    @property
    def standardise(self) -> Affine:
        """Of observations, `[O]`."""
        return self.td3.standardise


def _networks(config: A2PRConfig, spec: Spec) -> tuple[td3.Networks, Network, Proposal]:
    """Actor and critics, V, and the model of good actions."""
    judges = critic(config.critic_hidden, size=config.critics)
    own = vae(config.vae) if config.proposal == "vae" else diffusion(config.denoiser, td3.CRITIC_STEPS)
    networks = td3.Networks(mlp((*config.hidden, spec.action_dim)), judges)
    return networks, mlp((*config.critic_hidden, 1)), own


def better_action(
    proposed: Array, data: Array, q_proposed: Array, q_data: Array, v: Array, mask: float
) -> tuple[Array, Array]:
    """What the actor is pulled to `[B, A]`, and how strongly `[B]`.

    Of the actions `proposed` and `data` `[B, A]` the one of larger advantage `q - v` (all `[B]`); `mask`
    times how many of the two are no worse than V.
    """
    chosen = jnp.where((q_proposed >= q_data)[:, None], proposed, data)
    good = (q_proposed >= v).astype(v.dtype) + (q_data > v).astype(v.dtype)
    return chosen, mask * good


def _init(key: Array, transitions: Transition, *, config: A2PRConfig, spec: Spec) -> A2PRState:
    keys = named_keys(key, "td3", "value", "proposal")
    networks, value, own = _networks(config, spec)
    return A2PRState(
        td3=td3.init(keys["td3"], transitions, networks, config, spec),
        value=begin(constant_adam(config), value.init(keys["value"], jnp.zeros(spec.observation_dim))),
        proposal=own.init(keys["proposal"], spec.observation_dim, spec.action_dim),
    )


def _update(
    key: Array, state: A2PRState, batch: Transition, *, config: A2PRConfig, spec: Spec
) -> tuple[A2PRState, Metrics]:
    """Twice the critics, V and the proposal, then the actor and the targets: the authors' order."""
    keys = named_keys(key, "next", "first", "second", "propose")
    networks, value, own = _networks(config, spec)
    batch, adam = standardised(batch, state.standardise), constant_adam(config)
    following, next_q = td3.smoothed(keys["next"], state.td3, batch.next_observation, networks, config)
    target = td_target(batch.reward, batch.terminal, next_q, config.discount)
    judges, values, proposal, told = state.td3.critic, state.value, state.proposal, {}
    v = q = target
    for half, (batch, action, wanted) in zip(  # noqa: B020 (the second half is what the actor sees)
        ("first", "second"), td3.minibatches((batch, following, target)), strict=True
    ):
        judges, critic_metrics = descend(adam, judges, critic_loss, networks.critic, batch, wanted)
        online = jnp.min(networks.critic.apply(judges.params, batch.next_observation, action), axis=0)
        online = td_target(batch.reward, batch.terminal, online, config.discount)
        v = value.apply(values.params, batch.observation)[:, 0]  # before its step, as in the authors' code
        regression = partial(value_loss, value=value, expectile=0.5)  # half the squared error
        values, value_metrics = descend(
            adam, values, regression, batch.observation, jnp.minimum(wanted, online)
        )
        q = networks.critic.apply(first(judges.params), batch.observation, batch.action)[0]
        good = (q > v).astype(q.dtype)
        proposal, metrics = own.update(keys[half], proposal, batch.observation, batch.action, good)
        told = {**critic_metrics, **value_metrics, **metrics, "good_share": jnp.mean(good)}
    pi = deterministic(state.td3.actor.params, networks.actor, batch.observation).mean
    proposed = own.draw(keys["propose"], proposal, batch.observation, pi)
    q_proposed = networks.critic.apply(first(judges.params), batch.observation, proposed)[0]
    chosen, pull = better_action(proposed, batch.action, q_proposed, q, v, config.mask)
    loss = partial(td3_bc.actor_loss, networks=networks, alpha=config.alpha, pull=pull)
    found, metrics = td3.follow(state.td3, judges, batch._replace(action=chosen), loss, config)
    return A2PRState(found, values, proposal), {**told, **metrics}


def _target(state: A2PRState, observation: Array, *, config: A2PRConfig, spec: Spec) -> Normal:
    return td3.target(state.td3, observation, _networks(config, spec)[0])


def presets(task: Task) -> Mapping[str, Preset]:
    """What the authors tuned for the dataset, where they say so; half as many updates as their steps."""
    config = A2PRConfig(**A2PR_SETTINGS.get(task.name, {}))
    smaller = {
        "hidden": (256, 256),
        "critic_hidden": (256, 256),
        "vae": replace(config.vae, hidden=(256, 256)),
    }
    found = presets_of(config, smaller=smaller, updates=500_000)
    least = replace(found["smoke"].settings, critic_hidden=(64, 64), vae=VAEConfig(hidden=(64, 64)))
    return {**found, "smoke": replace(found["smoke"], settings=least)}


@register(
    "agent",
    "a2pr",
    A2PRConfig,
    presets,
    title="A2PR",
    paper="arXiv 2405.19909, on TD3 arXiv 1802.09477",
    idea="TD3 pulled to the better of the data's action and one of a VAE (or a denoiser) of good actions",
    departures="the actor is pulled to a fixed action: no gradient flows through the VAE; an update is two "
    "critic steps and one actor step, so `paper` makes 500,000 updates; `proposal: diffusion` is our own",
    fit=falling_rates,
)
@lru_cache
def a2pr(config: A2PRConfig, spec: Spec) -> Method:
    """A2PR, whose `update` takes a batch of `2 B` rows: one minibatch a critic step.

    Its actor is deterministic: `target` gives a `Normal` with `std` zero. Equal arguments give the same
    method.
    """
    return actor_method(_init, _update, _target, config, spec, minibatches=td3.CRITIC_STEPS)
