"""ReBRAC (Tarasov et al. 2023, arXiv 2305.09836): TD3+BC with a penalty each for actor and critic."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache, partial

import jax
import jax.numpy as jnp
from jax import Array

from jdp.agents import td3
from jdp.agents.presets import presets_of
from jdp.agents.td3 import TD3Config, TD3State
from jdp.errors import UserError, check_settings
from jdp.learning.actors import actor_method, deterministic
from jdp.learning.critics import critic, td_target
from jdp.learning.observations import standardised
from jdp.networks.mlp import mlp
from jdp.registry import Preset, Task, register
from jdp.types import Method, Metrics, Normal, Params, Spec, Transition

# (beta_actor, beta_critic) of D4RL's locomotion sets: the authors' search, in the paper's appendix. The paper
# has no maze2d: those are CORL's.
REBRAC_BETAS: dict[str, tuple[float, float]] = {
    "halfcheetah-random-v2": (0.001, 0.1),
    "halfcheetah-medium-v2": (0.001, 0.01),
    "halfcheetah-medium-replay-v2": (0.01, 0.001),
    "halfcheetah-medium-expert-v2": (0.01, 0.1),
    "hopper-random-v2": (0.001, 0.01),
    "hopper-medium-v2": (0.01, 0.01),
    "hopper-medium-replay-v2": (0.05, 0.5),
    "hopper-medium-expert-v2": (0.1, 0.01),
    "walker2d-random-v2": (0.01, 0.0),
    "walker2d-medium-v2": (0.05, 0.1),
    "walker2d-medium-replay-v2": (0.05, 0.01),
    "walker2d-medium-expert-v2": (0.01, 0.01),
    **{f"maze2d-{maze}-v1": (0.003, 0.001) for maze in ("umaze", "medium", "large")},
}


@dataclass(frozen=True)
class ReBRACConfig(TD3Config):
    """Settings of ReBRAC; the defaults are those for locomotion, the weights those of hopper-medium.

    `REBRAC_BETAS` has the weights of the other sets. The batch size is the experiment's: the authors
    take 1024 with this learning rate.
    """

    beta_actor: float = 0.01  # weight of behaviour cloning in the actor's loss
    beta_critic: float = 0.01  # weight of the distance to the next action in the critics' target
    learning_rate: float = 1e-3
    hidden: tuple[int, ...] = (256, 256, 256)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_settings(
            "ReBRACConfig", beta_actor=(self.beta_actor, 0, 1e9), beta_critic=(self.beta_critic, 0, 1e9)
        )


def _networks(config: ReBRACConfig, spec: Spec) -> td3.Networks:
    """Layer norm in the critics is the paper's; where weights begin is the choice of its code."""
    actor = mlp((*config.hidden, spec.action_dim), initialiser="edac", last_limit=1e-3)
    options = {"initialiser": "edac", "layer_norm": True, "last_limit": 3e-3}
    return td3.Networks(actor, critic(config.hidden, size=config.critics, **options))


def _distance(action: Array, data: Array) -> Array:
    """`[B]`, squared and summed over action dimensions, where TD3+BC takes the mean."""
    return jnp.sum(jnp.square(action - data), axis=-1)


def actor_loss(
    params: Params, q_params: Params, batch: Transition, *, networks: td3.Networks, beta: float
) -> tuple[Array, Metrics]:
    """`beta |pi(s) - a|^2 - lambda min_j Q_j(s, pi(s))` with `lambda = 1 / mean |min_j Q_j|`."""
    action = deterministic(params, networks.actor, batch.observation).mean
    q = jnp.min(networks.critic.apply(q_params, batch.observation, action), axis=0)  # [B]
    weight = 1 / jax.lax.stop_gradient(jnp.mean(jnp.abs(q)))
    bc = jnp.mean(_distance(action, batch.action))
    loss = beta * bc - weight * jnp.mean(q)
    return loss, {"actor_loss": loss, "bc_loss": bc, "q_weight": weight}


def _init(key: Array, transitions: Transition, *, config: ReBRACConfig, spec: Spec) -> TD3State:
    return td3.init(key, transitions, _networks(config, spec), config, spec)


def _update(
    key: Array, state: TD3State, batch: Transition, *, config: ReBRACConfig, spec: Spec
) -> tuple[TD3State, Metrics]:
    """See `td3.learn`; `key` is consumed."""
    data_action = batch.next_action
    if data_action is None:
        raise UserError(
            "ReBRAC needs the dataset's next actions: "
            "make the batches from jdp.data.transitions(data, next_actions=True)"
        )
    networks = _networks(config, spec)
    batch = standardised(batch, state.standardise)
    action, next_q = td3.smoothed(key, state, batch.next_observation, networks, config)
    next_q = next_q - config.beta_critic * _distance(action, data_action)
    target = td_target(batch.reward, batch.terminal, next_q, config.discount)
    loss = partial(actor_loss, networks=networks, beta=config.beta_actor)
    return td3.learn(state, batch, target, loss, networks, config)


def _target(state: TD3State, observation: Array, *, config: ReBRACConfig, spec: Spec) -> Normal:
    return td3.target(state, observation, _networks(config, spec))


def presets(task: Task) -> Mapping[str, Preset]:
    """The betas that were tuned for the dataset, and the minibatches: 1024, in maze2d 256."""
    config = ReBRACConfig()
    if task.name in REBRAC_BETAS:
        actor, critic = REBRAC_BETAS[task.name]
        config = replace(config, beta_actor=actor, beta_critic=critic)
    rows = 256 if task.stays else 1024
    return presets_of(config, smaller={"hidden": (256, 256)}, updates=500_000, batch_size=rows)


@register(
    "agent",
    "rebrac",
    ReBRACConfig,
    presets,
    title="ReBRAC",
    paper="arXiv 2305.09836",
    idea="TD3+BC with a penalty each for actor and critic",
    departures="an update is two critic steps and one actor step, so `paper` makes 500,000 updates",
)
@lru_cache
def rebrac(config: ReBRACConfig, spec: Spec) -> Method:
    """ReBRAC, whose `update` takes a batch of `2 B` rows, each with its `next_action`.

    An update is two critic steps and an actor step, as in `td3_bc`. Its actor is deterministic: `target`
    gives a `Normal` with `std` zero. Equal arguments give the same method.
    """
    steps = td3.CRITIC_STEPS
    return actor_method(_init, _update, _target, config, spec, minibatches=steps, next_actions=True)
