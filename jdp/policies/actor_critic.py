"""What Diffusion-QL, EDP and IDQL share: a diffusion actor beside two critics, and a choice by Q."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array

from jdp.data import Hindsight, SegmentDraw, SegmentRows
from jdp.data.checks import check_fits
from jdp.data.normalise import Affine
from jdp.errors import check_settings
from jdp.learning import averaged, guides
from jdp.learning.actors import decided_anew, remembers_nothing
from jdp.learning.averaged import Averaged
from jdp.learning.candidates import choose, repeated
from jdp.learning.critics import TwinCriticConfig, begin_critics, learn_critics, lower_q
from jdp.learning.guides import Past, history_of
from jdp.learning.observations import observation_affine
from jdp.learning.optimiser import Trained
from jdp.policies import actions
from jdp.policies.actions import ActorConfig
from jdp.policies.relabelled import condition
from jdp.types import (
    Bound,
    Decision,
    Guide,
    Learner,
    Method,
    Metrics,
    Params,
    Policy,
    PyTree,
    Spec,
    Transition,
    named_keys,
)

ONE_STEP = (0, 1)  # offsets of the segments of a transition


@dataclass(frozen=True)
class ActorCriticConfig(ActorConfig, TwinCriticConfig):
    """A diffusion of actions from which one is chosen by its value."""

    candidates: int = 50
    """Actions that are sampled for each that is executed."""
    temperature: float = 0.0
    """An action is drawn from softmax(Q / temperature); 0: the best."""

    def __post_init__(self) -> None:
        ActorConfig.__post_init__(self)
        TwinCriticConfig.__post_init__(self)
        check_settings(type(self).__name__, candidates=(self.candidates, 1, 1 << 20))


class ActorCriticState(NamedTuple):
    """The actor with its averaged weights, the critics and their target, and V where there is one."""

    actor: Averaged
    critic: Trained  # parameters [2, ...]
    target_critic: Params  # [2, ...]
    standardise: Affine  # of observations, [O]
    value: Trained | None = None


def init(key: Array, rows: SegmentRows, *, config: Any, spec: Spec) -> ActorCriticState:
    """A state whose target equals the critics; `key` is consumed."""
    check_fits(rows.observation, rows.action, spec, "policy")
    keys = named_keys(key, "actor", "critic")
    width = spec.observation_dim + len(spec.goal)
    critic, target = begin_critics(
        keys["critic"], config.critic(), config.critic_optimiser(), width, spec.action_dim
    )
    actor = config.network().init(
        keys["actor"], jnp.zeros((1, spec.action_dim)), jnp.zeros(1), jnp.zeros((1, width))
    )
    return ActorCriticState(
        actor=averaged.begin(config.optimiser(), actor),
        critic=critic,
        target_critic=target,
        standardise=observation_affine(rows.observation),
    )


def learn(
    state: ActorCriticState,
    step: Transition,
    target: Array,
    actor_loss: Callable[[Params, Params], tuple[Array, Metrics]],
    config: Any,
) -> tuple[ActorCriticState, Metrics]:
    """The critics towards `target` `[B]`, then the actor, then the target critics.

    Args:
        actor_loss: (parameters of the actor, of the critics) -> (scalar, metrics).
        config: an `ActorCriticConfig`, or another with an actor's and critics' settings.
    """
    optimiser, judges = config.critic_optimiser(), config.critic()
    critic, target_critic, critic_metrics = learn_critics(
        optimiser, state.critic, state.target_critic, judges, step, target, config.tau
    )
    actor, actor_metrics = averaged.descend(
        config.optimiser(), state.actor, lambda params: actor_loss(params, critic.params), config.ema
    )
    state = state._replace(actor=actor, critic=critic, target_critic=target_critic)
    return state, {**critic_metrics, **actor_metrics}


def act(
    key: Array,
    state: ActorCriticState,
    carry: Past | tuple[()],
    observation: Array,
    goal: Array,
    *,
    config: ActorCriticConfig,
    spec: Spec,
    guide: Guide | None = None,
) -> tuple[Past | tuple[()], Decision]:
    """Of `config.candidates` samples of the averaged actor one, chosen by the target critics' minimum.

    `guide` steers the samples, and Q chooses among them.
    """
    keys, count, dim = named_keys(key, "sample", "select"), config.candidates, spec.action_dim
    seen = condition(state.standardise, observation, goal, spec)
    carry = guides.observe(carry, observation) if isinstance(carry, Past) else carry
    scale = actions.coordinates(state.standardise, config, spec)
    steer = partial(actions.steered, guide=guide, past=carry, goal=goal, scale=scale, candidates=count)
    found = actions.candidates(keys["sample"], state.actor.ema, seen, count, dim, config, steer)
    q = lower_q(state.target_critic, repeated(seen, count), found, config)
    action, value = choose(found, q, count, key=keys["select"], temperature=config.temperature)
    return carry, decided_anew(action, value)


def one_step_method(
    init_: Callable[..., PyTree],
    update: Callable[..., tuple[PyTree, Metrics]],
    act_: Callable[..., tuple[Any, Decision]],
    config: Any,
    spec: Spec,
    guide: Guide | None = None,
) -> Method:
    """A method of one-step policies made of three module-level functions, with `config` and `spec` bound.

    With a `guide`, which `act_` then takes by name, the policy remembers the past for it. Critics see next
    rows, later rows and rows anywhere, in the shares of GCIQL in OGBench (arXiv 2410.20092; there the first
    kind is the present row).
    """
    settings = (("config", config), ("spec", spec))
    draw = SegmentDraw(ONE_STEP, spec.goal, Hindsight(next=0.2, later=0.5, anywhere=0.3))
    learner = Learner(Bound(init_, settings), Bound(update, settings), draw)
    if guide is None:
        return Method(learner, Policy(remembers_nothing, Bound(act_, settings)))
    begin_ = Bound(guides.no_past, (("length", history_of(guide)),))
    return Method(learner, Policy(begin_, Bound(act_, (*settings, ("guide", guide)))))
