"""Flow Q-learning (Park, Li and Levine 2025, arXiv 2502.02538): one step, distilled from a flow, climbs Q.

Longer than other files by the table of what its authors tuned, and by networks and a step of its own.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array

from jdp.data import SegmentRows
from jdp.data.checks import check_fits
from jdp.data.normalise import Affine
from jdp.errors import check_choices, check_settings
from jdp.learning.actors import decided_anew
from jdp.learning.critics import TwinCriticConfig, begin_critics, learn_critics, td_target
from jdp.learning.fitting import falling_rates
from jdp.learning.observations import observation_affine
from jdp.learning.optimiser import Trained, begin, descend
from jdp.learning.scale import clip_action
from jdp.learning.vector_flow import FLOW, matching_error, push
from jdp.networks.mlp import mlp
from jdp.policies.actor_critic import one_step_method
from jdp.policies.presets import presets_of
from jdp.policies.relabelled import condition, imitated, magnitude, mean_of, share_of, transitions
from jdp.registry import Preset, Task, register
from jdp.types import (
    Decision,
    Method,
    Metrics,
    Network,
    Params,
    Segments,
    Spec,
    Transition,
    named_keys,
)

_LOWER = {"target": "min", "normalise_q": False}
_MEAN = {"normalise_q": False, "reward_shift": -1.0}  # of the antmazes; read only by tasks without goals

# of D4RL's sets, as in the paper's appendix: with the plain Q loss
FQL_SETTINGS: dict[str, dict[str, Any]] = {
    "antmaze-umaze-v2": {"alpha": 10.0, **_MEAN},
    "antmaze-umaze-diverse-v2": {"alpha": 10.0, **_MEAN},
    "antmaze-medium-play-v2": {"alpha": 10.0, **_MEAN},
    "antmaze-medium-diverse-v2": {"alpha": 10.0, **_MEAN},
    "antmaze-large-play-v2": {"alpha": 3.0, **_MEAN},
    "antmaze-large-diverse-v2": {"alpha": 3.0, **_MEAN},
    "pen-human-v1": {"alpha": 10_000.0, **_LOWER},
    "pen-cloned-v1": {"alpha": 10_000.0, **_LOWER},
    "pen-expert-v1": {"alpha": 3_000.0, **_LOWER},
    "door-human-v1": {"alpha": 30_000.0, **_LOWER},
    "door-cloned-v1": {"alpha": 30_000.0, **_LOWER},
    "door-expert-v1": {"alpha": 30_000.0, **_LOWER},
    "hammer-human-v1": {"alpha": 30_000.0, **_LOWER},
    "hammer-cloned-v1": {"alpha": 10_000.0, **_LOWER},
    "hammer-expert-v1": {"alpha": 30_000.0, **_LOWER},
    "relocate-human-v1": {"alpha": 10_000.0, **_LOWER},
    "relocate-cloned-v1": {"alpha": 30_000.0, **_LOWER},
    "relocate-expert-v1": {"alpha": 30_000.0, **_LOWER},
}


@dataclass(frozen=True)
class FQLConfig(TwinCriticConfig):
    """Settings of FQL; the defaults of the Q loss are the authors' advice for new tasks.

    They advise a normalised Q loss and an `alpha` out of .03, .1, .3, 1, 3 and 10. `FQL_SETTINGS` has the
    paper's own, of the plain Q loss.
    """

    alpha: float = 1.0
    """Weight of the distillation against Q."""
    normalise_q: bool = True
    """The Q loss is divided by the mean of |Q|."""
    target: Literal["mean", "min"] = "mean"
    """What a target takes of the two critics."""
    flow_steps: int = 10
    """Euler steps of the flow that is distilled."""
    hidden: tuple[int, ...] = (512, 512, 512, 512)
    """Widths of the flow and of the one-step policy, with GELU."""
    learning_rate: float = 3e-4
    """Of the actor's Adam, constant."""
    critic_hidden: tuple[int, ...] = (512, 512, 512, 512)
    """Widths of the critics."""
    critic_activation: str = "gelu"
    """One of `jdp.networks.mlp.ACTIVATIONS`."""
    critic_layer_norm: bool = True
    """Layer norm in the critics."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_settings("FQLConfig", flow_steps=(self.flow_steps, 1, 1 << 20))
        check_choices(self)

    def network(self, spec: Spec) -> Network:
        """Of the flow and of the one-step policy: an MLP of all they see to `[..., A]`."""
        return mlp((*self.hidden, spec.action_dim), activation="gelu")

    def optimiser(self) -> optax.GradientTransformation:
        """Adam of a constant learning rate."""
        return optax.adam(self.learning_rate)


class FQLState(NamedTuple):
    """Both actors, the critics and their target."""

    actor: Trained  # parameters {"flow", "one_step"}
    critic: Trained  # parameters [2, ...]
    target_critic: Params  # [2, ...]
    standardise: Affine  # of observations, [O]


def flow_action(params: Params, seen: Array, z: Array, steps: int, network: Network) -> Array:
    """`[B, A]` within [-1, 1]: `steps` Euler steps of the flow from the noise `z` `[B, A]`."""
    return clip_action(push(params, seen, z, steps, network))


def one_step(params: Params, seen: Array, z: Array, network: Network) -> Array:
    """`mu(seen, z)` `[B, A]`, the policy that acts; not yet clipped to the box."""
    return network.apply(params, jnp.concatenate([seen, z], axis=-1))


def actor_loss(
    params: Params,
    key: Array,
    critic: Params,
    step: Transition,
    keep: Array,
    *,
    config: FQLConfig,
    network: Network,
) -> tuple[Array, Metrics]:
    """`L_flow + alpha L_distill + L_q` (algorithm 1); `key` is consumed.

    `L_flow = |v((1 - t) z + t a, t) - (a - z)|^2`, `L_distill = |mu(s, z) - flow(s, z)|^2` (the flow held
    fixed), `L_q = -Q(s, clip(mu))` with the mean of both critics.
    """
    keys = named_keys(key, "noise", "time", "distil")
    seen, action, weight = step.observation, step.action, share_of(keep, step.action.dtype)
    z = jax.random.normal(keys["noise"], action.shape)
    sigma = FLOW.levels(keys["time"], keep.size, action.dtype)
    bc = matching_error(params["flow"], seen, action, z, sigma, network, weight)

    z = jax.random.normal(keys["distil"], action.shape)
    wanted = jax.lax.stop_gradient(flow_action(params["flow"], seen, z, config.flow_steps, network))
    found = one_step(params["one_step"], seen, z, network)
    distil = mean_of(jnp.square(found - wanted), keep)

    q = jnp.mean(config.critic().apply(critic, seen, clip_action(found)), axis=0)
    lq = -mean_of(q, keep)
    if config.normalise_q:
        lq = lq / magnitude(q, keep)
    loss = bc + config.alpha * distil + lq
    return loss, {"actor_loss": loss, "bc_loss": bc, "distil_loss": distil, "q_loss": lq}


def _init(key: Array, rows: SegmentRows, *, config: FQLConfig, spec: Spec) -> FQLState:
    check_fits(rows.observation, rows.action, spec, "policy")
    keys = named_keys(key, "flow", "one_step", "critic")
    seen, a, network = spec.observation_dim + len(spec.goal), spec.action_dim, config.network(spec)
    actor = {
        "flow": network.init(keys["flow"], jnp.zeros(seen + a + 1)),
        "one_step": network.init(keys["one_step"], jnp.zeros(seen + a)),
    }
    critic, target = begin_critics(keys["critic"], config.critic(), config.critic_optimiser(), seen, a)
    actors = begin(config.optimiser(), actor)
    return FQLState(actors, critic, target, observation_affine(rows.observation))


def _update(
    key: Array, state: FQLState, batch: Segments, *, config: FQLConfig, spec: Spec
) -> tuple[FQLState, Metrics]:
    """All networks at once, each by the others' last parameters, as the authors' single Adam does."""
    keys = named_keys(key, "next", "actor")
    step, keep = transitions(batch, state.standardise, spec, config), imitated(batch, spec)
    network, critic = config.network(spec), config.critic()
    z = jax.random.normal(keys["next"], step.action.shape)
    action = clip_action(one_step(state.actor.params["one_step"], step.next_observation, z, network))
    q = critic.apply(state.target_critic, step.next_observation, action)
    following = jnp.min(q, axis=0) if config.target == "min" else jnp.mean(q, axis=0)
    target = td_target(step.reward, step.terminal, following, config.discount)
    learned, slow, critic_metrics = learn_critics(
        config.critic_optimiser(), state.critic, state.target_critic, critic, step, target, config.tau
    )
    loss = partial(actor_loss, config=config, network=network)
    actor, actor_metrics = descend(
        config.optimiser(), state.actor, loss, keys["actor"], state.critic.params, step, keep
    )
    return FQLState(actor, learned, slow, state.standardise), {**critic_metrics, **actor_metrics}


def _act(
    key: Array, state: FQLState, carry: Any, observation: Array, goal: Array, *, config: FQLConfig, spec: Spec
) -> tuple[Any, Decision]:
    seen = condition(state.standardise, observation, goal, spec)
    z = jax.random.normal(key, (seen.shape[0], spec.action_dim))
    action = one_step(state.actor.params["one_step"], seen, z, config.network(spec))
    return carry, decided_anew(clip_action(action))


def presets(task: Task) -> Mapping[str, Preset]:
    """What the authors tuned for the dataset; the defaults where they tuned none."""
    return presets_of(FQLConfig(**FQL_SETTINGS.get(task.name, {})), task)


@register(
    "policy",
    "fql",
    FQLConfig,
    presets,
    title="FQL",
    paper="arXiv 2502.02538",
    idea="a flow, distilled into a policy of one step that climbs Q",
    departures="observations are standardised over the dataset, where the authors' code takes them as they "
    "are; the Q loss is normalised unless a dataset has settings of the paper's own",
    fit=falling_rates,
)
@lru_cache
def fql(config: FQLConfig, spec: Spec) -> Method:
    """FQL as a policy; equal arguments give the same one. It acts by one call of a network."""
    return one_step_method(_init, _update, _act, config, spec)
