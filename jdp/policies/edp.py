"""Efficient diffusion policies (Kang et al. 2023, arXiv 2305.20081): Q of an action denoised in one step."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import jax
import optax
from jax import Array

from jdp.learning.critics import first, lower_q, td_target
from jdp.learning.fitting import falling_rates
from jdp.learning.optimiser import clipped_adam
from jdp.policies import actions, actor_critic
from jdp.policies.actor_critic import ActorCriticConfig, ActorCriticState
from jdp.policies.presets import presets_of
from jdp.policies.relabelled import imitated, magnitude, mean_of, transitions
from jdp.registry import Preset, Task, register
from jdp.types import Guide, Method, Metrics, Params, Segments, Spec, Transition, expand, named_keys


@dataclass(frozen=True)
class EDPConfig(ActorCriticConfig):
    """Settings of EDP with the TD3 form of its loss; weight decay is left out."""

    alpha: float = 2.0
    """Weight of Q against imitation: lambda = alpha / mean |Q|."""
    steps: int = 2_000_000
    """Updates over which the learning rate falls to 0 by a cosine."""
    grad_norm: float | None = 5.0
    """Largest norm of a gradient, of the actor's and of the critics'."""
    sampling_steps: int = 15
    """Steps of DPM-Solver; training samples next actions only, so they cost little."""
    candidates: int = 10
    """Actions that are sampled for each that is executed."""
    temperature: float = 1.0
    """An action is drawn from softmax(Q / temperature); 0: the best."""

    def critic_optimiser(self) -> optax.GradientTransformation:
        """Adam of a constant learning rate, with gradients cut to `grad_norm`."""
        return clipped_adam(self.critic_learning_rate, self.grad_norm)


def one_step_action(
    key: Array, params: Params, seen: Array, action: Array, sigma: Array, config: EDPConfig
) -> Array:
    """`[B, A]`, data actions noised to levels `sigma` `[B]` and denoised once.

    The gradient passes one call of the network, where Diffusion-QL's passes a whole chain. The key is
    consumed.
    """
    x = action + expand(sigma, action) * jax.random.normal(key, action.shape)
    return actions.denoiser(params, seen, config)(x, sigma)


def actor_loss(
    key: Array, params: Params, critic: Params, step: Transition, keep: Array, config: EDPConfig
) -> tuple[Array, Metrics]:
    """`L_diffusion - lambda mean Q_1(s, a)`, `lambda = alpha / mean |Q_1|` (as TD3+BC); `key` is consumed."""
    keys = named_keys(key, "level", "noise", "action_level", "action_noise")
    sigma = actions.levels(keys["level"], keep.size, config)
    bc = actions.imitation_loss(keys["noise"], params, step.observation, step.action, sigma, keep, config)
    sigma = actions.levels(keys["action_level"], keep.size, config)
    action = one_step_action(keys["action_noise"], params, step.observation, step.action, sigma, config)
    q = config.critic().apply(first(critic), step.observation, action)[0]
    weight = config.alpha / magnitude(q, keep)
    loss = bc - weight * mean_of(q, keep)
    return loss, {"actor_loss": loss, "bc_loss": bc, "q_weight": weight}


def _update(
    key: Array, state: ActorCriticState, batch: Segments, *, config: EDPConfig, spec: Spec
) -> tuple[ActorCriticState, Metrics]:
    keys = named_keys(key, "next", "actor")
    step, keep = transitions(batch, state.standardise, spec, config), imitated(batch, spec)
    seen = step.next_observation
    denoiser = actions.denoiser(state.actor.ema, seen, config)
    action = config.sampling().draw(keys["next"], denoiser, step.action.shape)
    following = lower_q(state.target_critic, seen, action, config)
    target = td_target(step.reward, step.terminal, following, config.discount)

    def loss(params: Params, critic: Params) -> tuple[Array, Metrics]:
        return actor_loss(keys["actor"], params, critic, step, keep, config)

    return actor_critic.learn(state, step, target, loss, config)


def presets(task: Task) -> Mapping[str, Preset]:
    """The same settings for all datasets."""
    return presets_of(EDPConfig(), task)


@register(
    "policy",
    "edp",
    EDPConfig,
    presets,
    title="EDP",
    paper="arXiv 2305.20081",
    idea="as Diffusion-QL, through one denoising step",
    departures="observations are standardised over the dataset, where the authors' code takes them as they "
    "are; 10 candidates for the authors' 50; gradients are cut at 5 instead of 9; the Q term takes the "
    "first critic always, where the authors draw one of the two at every update; its actions are noised to "
    "the log-normal levels of the EDM loss, not to a level drawn uniformly from DDPM's; no weight decay; "
    "targets move at every update, not every fifth",
    fit=falling_rates,
)
@lru_cache
def edp(config: EDPConfig, spec: Spec, *, guide: Guide | None = None) -> Method:
    """EDP as a policy; equal arguments give the same one.

    Targets move at every update, where the authors' move every fifth.
    """
    return actor_critic.one_step_method(actor_critic.init, _update, actor_critic.act, config, spec, guide)
