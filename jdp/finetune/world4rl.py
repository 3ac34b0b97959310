"""World4RL (Jiang et al. 2025, arXiv 2509.19080): PPO of a policy over bins in a diffusion world model."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from jdp.data.draws import NoDraw
from jdp.errors import UserError
from jdp.finetune import base as bases
from jdp.finetune.actor_critic import FineTuneConfig, Improved, begin_improving, critics_loss, improve
from jdp.finetune.dream import DreamConfig
from jdp.learning.acting import OnPolicyConfig
from jdp.learning.actors import decided_anew, remembers_nothing
from jdp.learning.optimiser import copied
from jdp.learning.ppo import clipped_surrogate, flat, normalised
from jdp.networks.two_hot import from_two_hot
from jdp.policies.two_hot import TwoHotConfig, TwoHotState, in_box, over_bins
from jdp.registry import Preset, Task, register
from jdp.types import Bound, Decision, Learner, Method, Metrics, Params, Policy, Rollout, Spec


@dataclass(frozen=True)
class World4RLConfig(FineTuneConfig):
    """Settings of World4RL; a step of the loop is one of a dream."""

    acting: OnPolicyConfig = field(default_factory=lambda: OnPolicyConfig(environments=256, steps=32))
    """A rollout."""
    dream: DreamConfig = field(default_factory=lambda: DreamConfig(horizon=32, penalty=0.0))
    """Episodes in the world model, of which a diffusion has no members to disagree."""
    kl_weight: float = 0.1
    """Of the divergence of the cloned policy from the one that learns."""
    learning_rate: float = 1e-4
    """Of the actor's Adam, constant."""
    epochs: int = 5
    """Passes over a rollout."""
    minibatches: int = 8
    """Of an epoch."""
    target_kl: float | None = 0.1
    """Updates stop for this rollout once the policy has moved further (in nats)."""


class Rows(NamedTuple):
    """Steps as minibatches see them, `[B, ...]`."""

    shown: Array  # [B, O + G]
    bins: Array  # [B, A] int32, that were drawn
    log_prob: Array
    advantage: Array
    target: Array  # of the critic, standardised


def _init(
    key: Array, data: TwoHotState, *, config: World4RLConfig, spec: Spec, base: TwoHotConfig
) -> Improved:
    """`data` is the state of the base policy, whose weights are improved."""
    del base
    return begin_improving(key, copied(data.actor.params), data, config, spec)


def _loss(
    params: Params, rows: Rows, *, cloned: Params, config: World4RLConfig, spec: Spec, base: TwoHotConfig
) -> tuple[Array, Metrics]:
    own, clone = (over_bins(p, rows.shown, base, spec) for p in (params["actor"], cloned))
    log_prob, advantage = own.log_prob(rows.bins), normalised(rows.advantage)
    loss, metrics = clipped_surrogate(log_prob, rows.log_prob, advantage, config.clip)
    far = jnp.mean(clone.kl(own))
    loss, metrics = loss + config.kl_weight * far, {**metrics, "kl_to_base": far}
    return critics_loss(loss, metrics, params, rows.shown, rows.target, config)


def _update(
    key: Array,
    state: Improved,
    rollout: Rollout,
    *,
    config: World4RLConfig,
    spec: Spec,
    base: TwoHotConfig,
) -> tuple[Improved, Metrics]:
    decision = rollout.decision
    assert decision.chain is not None and decision.log_prob is not None
    drawn = flat((decision.chain[:, 0], decision.log_prob["bins"]))  # [T N, A], [T N]

    def rows(shown: Array, advantage: Array, target: Array) -> Rows:
        return Rows(shown, *drawn, advantage, target)

    loss = partial(_loss, cloned=state.base.actor.params, config=config, spec=spec, base=base)
    return improve(key, state, rollout, config, spec=spec, rows=rows, loss=loss)


def _act(
    key: Array,
    state: Improved,
    carry: tuple[()],
    observation: Array,
    goal: Array,
    *,
    config: World4RLConfig,
    spec: Spec,
    base: TwoHotConfig,
    explores: bool,
) -> tuple[tuple[()], Decision]:
    """One bin of each entry where it explores (they are the chain, `[1, B, A]`), else the mean of all."""
    del config
    shown = bases.shown(state.base, observation, goal, spec)
    own = over_bins(state.trained.params["actor"], shown, base, spec)
    if not explores:
        return carry, decided_anew(from_two_hot(own.mean))
    bins = own.sample(key)
    log_prob = {"bins": own.log_prob(bins)}
    return carry, decided_anew(in_box(bins, base))._replace(chain=bins[None], log_prob=log_prob)


def presets(task: Task) -> Mapping[str, Preset]:
    """Our own, for the paper's are of pictures."""
    del task
    cpu = World4RLConfig()
    tiny = replace(cpu, acting=OnPolicyConfig(4, 8), critic_hidden=(32,), epochs=2, minibatches=2)
    return {
        "smoke": Preset(tiny, updates=2, batch_size=0, seeds=2),
        "cpu": Preset(cpu, updates=30, batch_size=0, seeds=3),
        "paper": Preset(replace(cpu, acting=OnPolicyConfig(1024, 32)), updates=500, batch_size=0, seeds=5),
    }


@register(
    "fine_tuner",
    "world4rl",
    World4RLConfig,
    presets,
    title="World4RL",
    paper="arXiv 2509.19080",
    idea="PPO of a policy over bins, inside a frozen diffusion model of the world",
    departures="of vectors, not pictures; the policy too is over the bins that the paper encodes actions in; "
    "the model's learned reward in the place of a classifier of success; the divergence from the clone",
    dreams="diffusion_step",  # learns in a world model: this one, where no other is asked for
    base="two_hot",  # the policy that it improves
)
@lru_cache
def world4rl(config: World4RLConfig, spec: Spec, *, base: object) -> Method:
    """World4RL on a `two_hot` policy of settings `base`, to be trained in a `jdp.finetune.dream.Dream`.

    `init` sees the state of the base policy. Equal arguments give the same method.

    Raises:
        UserError: if the base is another policy.
    """
    if not isinstance(base, TwoHotConfig):
        raise UserError(
            f"World4RL improves a policy over bins, not {type(base).__name__}: "
            "train one with policies.py --policy two_hot"
        )
    settings = (("base", base), ("config", config), ("spec", spec))
    explore, act = (Bound(_act, (*settings, ("explores", x))) for x in (True, False))
    learner = Learner(Bound(_init, settings), Bound(_update, settings), NoDraw())
    return Method(learner, Policy(remembers_nothing, act), Policy(remembers_nothing, explore))
