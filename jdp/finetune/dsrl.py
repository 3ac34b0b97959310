"""DSRL (Wagenmaker et al. 2025, arXiv 2506.15799): SAC that chooses the noise of a frozen policy."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jdp.agents import sac
from jdp.agents.sac import SACState
from jdp.data.normalise import identity
from jdp.errors import UserError, check_settings
from jdp.finetune import base as bases
from jdp.finetune import noise, replayed
from jdp.finetune.base import View
from jdp.finetune.chunked import chunk_method
from jdp.finetune.replayed import ReplayedConfig
from jdp.learning.acting import OffPolicyConfig
from jdp.learning.actors import decided_anew
from jdp.learning.critics import begin_critics, learn_critics, soft_target
from jdp.learning.critics import critic_loss as regression
from jdp.learning.optimiser import Trained, copied, descend
from jdp.policies.chunks import ChunkConfig, CloneState
from jdp.registry import Preset, Task, register
from jdp.types import Decision, Method, Metrics, Spec, TanhNormal, Transition, named_keys


@dataclass(frozen=True)
class DSRLConfig(ReplayedConfig):
    """Settings of DSRL; a step of the loop is a chunk of actions."""

    variant: Literal["na", "sac"] = "na"
    """sac: noise is the action of SAC; na: a critic of executed actions, by which one of noise is taught."""
    bound: float = 1.5
    """Of every entry of the noise, whose own standard deviation is 1."""
    noise_steps: int = 10
    """Of the critic of noise in an update, of the variant na."""
    hidden: tuple[int, ...] = (128, 128, 128)
    """Widths of actor and critics."""
    target_entropy: float | None = 0.0
    """Of the noise divided by its bound."""
    acting: OffPolicyConfig = field(default_factory=lambda: OffPolicyConfig(4, updates=20, warm_up=2_000))
    """Steps, buffer and updates; steps are chunks."""

    def __post_init__(self) -> None:
        super().__post_init__()
        limits = {"bound": (self.bound, 1e-3, 100), "noise_steps": (self.noise_steps, 1, 1000)}
        check_settings(type(self).__name__, **limits)

    def layers(self) -> dict[str, Any]:
        """Those of the authors' code."""
        return {**super().layers(), "activation": "tanh", "layer_norm": True}


class Steered(NamedTuple):
    """What learns, and the policy that it steers."""

    sac: SACState  # actor of noise; critics of noise, in the variant na of executed actions
    noise_critic: Trained | None  # of the variant na
    base: CloneState  # as it was


def _width(spec: Spec, base: ChunkConfig) -> int:
    return base.chunk * spec.action_dim


def _networks(config: DSRLConfig, spec: Spec, base: ChunkConfig) -> sac.Networks:
    return sac.networks(config, replayed.seen(spec, _width(spec, base)))


def _init(key: Array, data: CloneState, *, config: DSRLConfig, spec: Spec, base: ChunkConfig) -> Steered:
    """`data` is the state of the base policy, which stays."""
    keys, whole = named_keys(key, "sac", "actions"), replayed.seen(spec, _width(spec, base))
    seen = whole.observation_dim
    state = SACState(*sac.begin_sac(keys["sac"], config, whole), identity(seen))
    if config.variant == "sac":
        return Steered(state, None, copied(data))
    critic, adam = _networks(config, spec, base).critic, sac.optimisers(config).critic
    learned, slow = begin_critics(keys["actions"], critic, adam, seen, bases.width(base, spec))
    return Steered(state._replace(critic=learned, target_critic=slow), state.critic, copied(data))


def _made(
    state: Steered, shown: Array, unit: Array, config: DSRLConfig, spec: Spec, base: ChunkConfig
) -> Array:
    """`[B, E * A]`, what is executed of the chunk that noise `bound * unit` `[B, W]` makes at `[B, C]`."""
    made = noise.decode(state.base, shown, config.bound * jnp.clip(unit, -1.0, 1.0), base)
    return made[:, : bases.width(base, spec)]


def _own(key: Array, shown: Array, config: DSRLConfig, spec: Spec, base: ChunkConfig) -> Array:
    """The base policy's own noise `[B, W]` from N(0, I), clipped and divided by its bound."""
    drawn = jax.random.normal(key, (len(shown), _width(spec, base)))
    return jnp.clip(drawn / config.bound, -1.0, 1.0)


def pi(state: Steered, shown: Array, config: DSRLConfig, spec: Spec, base: ChunkConfig) -> TanhNormal:
    """The noise divided by its bound `[B, W]` at `[B, C]`."""
    actor = _networks(config, spec, base).actor
    return sac.policy(state.sac.actor.params, actor=actor, config=config)(shown)


def noise_target(
    state: Steered, shown: Array, unit: Array, config: DSRLConfig, spec: Spec, base: ChunkConfig
) -> Array:
    """`[B]`, `min_j Q^A_j(s, pi_dp(s, w))`: what the critic of noise `w = bound * unit` is taught."""
    critic, action = _networks(config, spec, base).critic, _made(state, shown, unit, config, spec, base)
    return jnp.min(critic.apply(state.sac.critic.params, shown, action), axis=0)


def _update(
    key: Array, state: Steered, batch: Transition, *, config: DSRLConfig, spec: Spec, base: ChunkConfig
) -> tuple[Steered, Metrics]:
    batch, chunked = replayed.shown(batch, state.base, spec), replayed.of_chunks(config, base.execute)
    if config.variant == "sac":
        whole = replayed.seen(spec, _width(spec, base))
        learned, metrics = sac.sac_update(key, state.sac, batch, config=chunked, spec=whole)
        return state._replace(sac=learned), metrics
    keys, settings = named_keys(key, "next", "noise", "actor"), (chunked, spec, base)
    state, metrics = _learn_actions(keys["next"], state, batch, *settings)
    state, more = _learn_noise(keys["noise"], state, batch.observation, *settings)
    assert state.noise_critic is not None
    nets = _networks(config, spec, base)
    log_alpha, actor, last = sac.actor_step(
        keys["actor"],
        state.sac.log_alpha,
        state.sac.actor,
        batch.observation,
        partial(nets.critic.apply, state.noise_critic.params),
        nets,
        config,
    )
    learned = state.sac._replace(log_alpha=log_alpha, actor=actor)
    return state._replace(sac=learned), {**metrics, **more, **last}


def _learn_actions(
    key: Array, state: Steered, batch: Transition, config: DSRLConfig, spec: Spec, base: ChunkConfig
) -> tuple[Steered, Metrics]:
    """Temporal differences of executed actions, the next one `pi_dp(s', pi(s'))`."""
    old, critic, following = state.sac, _networks(config, spec, base).critic, batch.next_observation
    unit, log_prob = pi(state, following, config, spec, base).sample_and_log_prob(key)
    action = _made(state, following, unit, config, spec, base)
    next_q = critic.apply(old.target_critic, following, action)
    alpha = jnp.exp(old.log_alpha.params) if config.backup_entropy else jnp.zeros(())
    target = soft_target(next_q, log_prob, alpha, batch, config.discount)
    adam = sac.optimisers(config).critic
    learned, slow, metrics = learn_critics(
        adam, old.critic, old.target_critic, critic, batch, target, config.tau
    )
    return state._replace(sac=old._replace(critic=learned, target_critic=slow)), metrics


def _learn_noise(
    key: Array, state: Steered, shown: Array, config: DSRLConfig, spec: Spec, base: ChunkConfig
) -> tuple[Steered, Metrics]:
    """`noise_steps` of regression to `noise_target`: of the base policy's own noise, and of the actor's."""
    nets, adam = _networks(config, spec, base), sac.optimisers(config).critic

    def one(trained: Trained, key: Array) -> tuple[Trained, Metrics]:
        keys = named_keys(key, "own", "actor", "which")
        own = _own(keys["own"], shown, config, spec, base)
        chosen = pi(state, shown, config, spec, base).sample(keys["actor"])
        unit = jnp.where(jax.random.bernoulli(keys["which"], shape=(len(shown), 1)), own, chosen)
        target = noise_target(state, shown, unit, config, spec, base)
        none = jnp.zeros(len(shown))
        rows = Transition(shown, unit, none, shown, none)
        learned, metrics = descend(adam, trained, regression, nets.critic, rows, target)
        return learned, {"noise_critic_loss": metrics["critic_loss"]}

    assert state.noise_critic is not None
    learned, metrics = jax.lax.scan(one, state.noise_critic, jax.random.split(key, config.noise_steps))
    return state._replace(noise_critic=learned), jax.tree.map(jnp.mean, metrics)


def _decide(
    state: Steered, shown: Array, unit: Array, config: DSRLConfig, spec: Spec, base: ChunkConfig
) -> Decision:
    decision = decided_anew(_made(state, shown, unit, config, spec, base))
    return decision._replace(latent=unit) if config.variant == "sac" else decision


def _explore(
    key: Array, state: Steered, view: View, *, config: DSRLConfig, spec: Spec, base: ChunkConfig
) -> Decision:
    """A chunk for each of B environments; the variant sac keeps its noise."""
    unit = pi(state, view.shown, config, spec, base).sample(key)
    return _decide(state, view.shown, unit, config, spec, base)


def _warm_up(
    key: Array, state: Steered, view: View, *, config: DSRLConfig, spec: Spec, base: ChunkConfig
) -> Decision:
    """The base policy's own noise."""
    return _decide(state, view.shown, _own(key, view.shown, config, spec, base), config, spec, base)


def _chunk(
    key: Array, state: Steered, view: View, *, config: DSRLConfig, spec: Spec, base: ChunkConfig
) -> Array:
    """As it is scored: by the mean noise."""
    del key
    unit = pi(state, view.shown, config, spec, base).mean
    return noise.decode(state.base, view.shown, config.bound * unit, base)


def presets(task: Task) -> Mapping[str, Preset]:
    """The paper's (its runs in Gymnasium), and ours of fewer updates: faster targets, little entropy."""
    del task
    cpu = DSRLConfig(**replayed.cpu(updates=4), backup_entropy=False, noise_steps=2)
    tiny = replace(cpu, acting=replayed.BRIEF, hidden=(16,), noise_steps=1)
    return {
        "smoke": Preset(tiny, updates=3, batch_size=0, seeds=2),
        "cpu": Preset(cpu, updates=600, batch_size=0, seeds=3),
        "paper": Preset(DSRLConfig(), updates=20_000, batch_size=0, seeds=5),
    }


@register(
    "fine_tuner",
    "dsrl",
    DSRLConfig,
    presets,
    title="DSRL",
    paper="arXiv 2506.15799",
    idea="SAC that chooses the noise of a frozen policy",
    departures="the critic of noise is taught on the actor's noise too, to the lower of two critics; first "
    "steps clip their noise too",
    chunks="execute",  # an action of its behaviour is a chunk of so many
)
@lru_cache
def dsrl(config: DSRLConfig, spec: Spec, *, base: ChunkConfig) -> Method:
    """DSRL on a `diffusion_policy` of settings `base`, whose sampler draws no noise of its own.

    Its `behaviour` decides chunks, for `jdp.tasks.simulators.chunked`; `policy` acts step by step. `init`
    sees the state of the base policy. Equal arguments give the same method.

    Raises:
        UserError: if the base policy is no such one, or rows of a dataset are asked for that have no noise.
    """
    found = noise.check_decoder(base)
    width = _width(spec, base) if config.variant == "sac" else bases.width(found, spec)
    if config.variant == "sac" and config.acting.offline_share:
        raise UserError("dsrl: rows of a dataset have no noise: set offline_share to 0, or the variant to na")
    draws = replayed.draw(config, spec, width, found.execute)
    return chunk_method(_init, _update, _explore, _chunk, config, spec, found, draws=draws, warm_up=_warm_up)
