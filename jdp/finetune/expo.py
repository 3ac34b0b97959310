"""EXPO (Dong et al. 2025, arXiv 2507.07986): small edits of a policy's actions, and the best of both."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jdp.agents import sac
from jdp.errors import UserError, check_settings
from jdp.finetune import base as bases
from jdp.finetune import replayed
from jdp.finetune.replayed import ReplayedConfig
from jdp.learning.acting import OffPolicyConfig
from jdp.learning.actors import decided_anew, remembers_nothing
from jdp.learning.candidates import check_candidates, choose, repeated
from jdp.learning.critics import learn_critics, td_target
from jdp.learning.optimiser import Trained, copied
from jdp.policies import chunks
from jdp.policies.chunks import ChunkCarry, ChunkConfig
from jdp.registry import Preset, Task, register
from jdp.types import (
    Bound,
    Decision,
    Learner,
    Method,
    Metrics,
    Params,
    Policy,
    PyTree,
    Spec,
    TanhNormal,
    Transition,
    named_keys,
)


@dataclass(frozen=True)
class EXPOConfig(ReplayedConfig):
    """Settings of EXPO; a step of the loop is a chunk of actions, where the base policy executes chunks."""

    candidates: int = 8
    """Actions that the base policy draws, each of which is edited once."""
    beta: float = 0.05
    """The most that an edit changes an entry of an action."""
    critics: int = 10
    """In the ensemble."""
    subsample: int = 2
    """Critics of which a target is the lowest; they are drawn anew for each update."""
    hidden: tuple[int, ...] = (256, 256, 256)
    """Widths of edits and critics."""
    target_entropy: float | None = None
    """Of edits divided by `beta`; None: minus half the number of entries of an action."""
    backup_entropy: bool = False
    """What is backed up is the best candidate, which has no density: False."""
    acting: OffPolicyConfig = field(default_factory=lambda: OffPolicyConfig(updates=20))
    """Steps, buffer and updates; steps are chunks."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_candidates(self.candidates)
        if self.backup_entropy:
            raise UserError(
                "EXPOConfig: the best of many candidates has no density: leave backup_entropy out"
            )
        limits = {"beta": (self.beta, 0, 2), "subsample": (self.subsample, 1, self.critics)}
        check_settings(type(self).__name__, **limits)

    def layers(self) -> dict[str, Any]:
        """With the layer norm of RLPD's critics."""
        return {**super().layers(), "layer_norm": True}


class Edited(NamedTuple):
    """What learns, and the policy whose actions are edited."""

    log_alpha: Trained
    actor: Trained  # of edits
    critic: Trained  # [M, ...]
    target_critic: Params  # [M, ...]
    base: PyTree  # as it was


def _width(spec: Spec, base: object) -> int:
    return bases.executed(base) * spec.action_dim


def networks(config: EXPOConfig, spec: Spec, base: object) -> sac.Networks:
    """The actor sees states and actions, `[..., C + D]`, the critics as all critics do."""
    return sac.networks(config, replayed.seen(spec, _width(spec, base)))


def _init(key: Array, data: PyTree, *, config: EXPOConfig, spec: Spec, base: object) -> Edited:
    """`data` is the state of the base policy, which stays."""
    keys, width = named_keys(key, "sac", "edits"), _width(spec, base)
    whole = replayed.seen(spec, width)
    state = sac.sac_init(keys["sac"], replayed.nothing(spec, width), config=config, spec=whole)
    seen = jnp.zeros(whole.observation_dim + width)
    params = networks(config, spec, base).actor.init(keys["edits"], seen)
    actor = Trained(params, sac.optimisers(config).actor.init(params))
    return Edited(state.log_alpha, actor, state.critic, state.target_critic, copied(data))


def pi(
    params: Params, shown: Array, action: Array, config: EXPOConfig, spec: Spec, base: object
) -> TanhNormal:
    """Edits of actions `[B, D]` at `[B, C]`, divided by `beta`."""
    actor = networks(config, spec, base).actor
    return sac.policy(params, actor=actor, config=config)(jnp.concatenate([shown, action], axis=-1))


def edited(action: Array, edit: Array, beta: float) -> Array:
    """`action` moved by `beta * edit`, `edit` within [-1, 1], within the box of actions."""
    return jnp.clip(action + beta * edit, -1.0, 1.0)


def candidates(
    key: Array,
    state: Edited,
    observation: Array,
    goal: Array,
    config: EXPOConfig,
    spec: Spec,
    base: object,
    *,
    explores: bool = True,
) -> Array:
    """`[B, 2 N, D]`: N actions of the base policy, then the edited ones (by mean edits unless it `explores`).

    Observations are `[B, O]`, goals `[B, G]`; the key is consumed.
    """
    keys, count = named_keys(key, "base", "edits"), config.candidates
    seen, goals = repeated((observation, goal), count)
    action = bases.drawn(keys["base"], state.base, seen, goals, base, spec)
    shown = bases.shown(state.base, seen, goals, spec)
    found = pi(state.actor.params, shown, action, config, spec, base)
    edit = found.sample(keys["edits"]) if explores else found.mean
    both = [action, edited(action, edit, config.beta)]
    return jnp.concatenate([x.reshape(len(observation), count, -1) for x in both], axis=1)


def values(params: Params, shown: Array, found: Array, nets: sac.Networks) -> Array:
    """`[M, B, 2 N]`, of candidates `[B, 2 N, D]` at `[B, C]`, by critics of parameters `[M, ...]`."""
    many = jnp.broadcast_to(shown[:, None], (*found.shape[:2], shown.shape[-1]))
    return nets.critic.apply(params, many, found)


def best(found: Array, score: Array) -> tuple[Array, Array]:
    """`(action [B, D], score [B])`, of candidates `[B, 2 N, D]` the one of the highest score `[B, 2 N]`."""
    return choose(found.reshape(-1, found.shape[-1]), score.reshape(-1), found.shape[1])


def backup(
    key: Array, state: Edited, batch: Transition, config: EXPOConfig, spec: Spec, base: object
) -> tuple[Array, Array]:
    """`(values [B], scores [B, 2 N])` of what follows `batch`: the best candidate of the target critics.

    Scores are the lowest of `config.subsample` critics. Observations and goals of `batch` are `[B, O + G]`,
    in the units of the task; the key is consumed.
    """
    keys, o, nets = (
        named_keys(key, "candidates", "critics"),
        spec.observation_dim,
        networks(config, spec, base),
    )
    observation, goal = batch.next_observation[:, :o], batch.next_observation[:, o:]
    found = candidates(keys["candidates"], state, observation, goal, config, spec, base)
    members = jax.random.permutation(keys["critics"], config.critics)[: config.subsample]
    some = jax.tree.map(lambda x: x[members], state.target_critic)
    shown = bases.shown(state.base, observation, goal, spec)
    score = jnp.min(values(some, shown, found, nets), axis=0)
    return best(found, score)[1], score


def _update(
    key: Array, state: Edited, batch: Transition, *, config: EXPOConfig, spec: Spec, base: object
) -> tuple[Edited, Metrics]:
    keys, nets = named_keys(key, "next", "edits"), networks(config, spec, base)
    seen, discount = replayed.shown(batch, state.base, spec), config.discount ** bases.executed(base)
    following, _ = backup(keys["next"], state, batch, config, spec, base)
    target = td_target(batch.reward, batch.terminal, following, discount)
    adam = sac.optimisers(config).critic
    critic, slow, metrics = learn_critics(
        adam, state.critic, state.target_critic, nets.critic, seen, target, config.tau
    )

    def q(shown: Array, edit: Array) -> Array:
        """`[1, B]`, the mean of the ensemble; the actor's conditions `[B, C + D]` end with the action."""
        action = edited(seen.action, edit, config.beta)
        found = nets.critic.apply(critic.params, seen.observation, action)
        return jnp.mean(found, axis=0, keepdims=True)

    entropy = -0.5 * seen.action.shape[-1] if config.target_entropy is None else config.target_entropy
    log_alpha, actor, more = sac.actor_step(
        keys["edits"],
        state.log_alpha,
        state.actor,
        jnp.concatenate([seen.observation, seen.action], axis=-1),
        q,
        nets,
        replace(config, target_entropy=entropy),
    )
    return Edited(log_alpha, actor, critic, slow, state.base), {**metrics, **more}


def _best(
    key: Array,
    state: Edited,
    observation: Array,
    goal: Array,
    config: EXPOConfig,
    spec: Spec,
    base: object,
    *,
    explores: bool,
) -> Array:
    """`[B, D]`, the best candidate by the mean of the target critics."""
    found = candidates(key, state, observation, goal, config, spec, base, explores=explores)
    shown = bases.shown(state.base, observation, goal, spec)
    score = jnp.mean(values(state.target_critic, shown, found, networks(config, spec, base)), axis=0)
    return best(found, score)[0]


def _explore(
    key: Array,
    state: Edited,
    carry: tuple[()],
    observation: Array,
    goal: Array,
    *,
    config: EXPOConfig,
    spec: Spec,
    base: object,
) -> tuple[tuple[()], Decision]:
    """A chunk for each of B environments."""
    action = _best(key, state, observation, goal, config, spec, base, explores=True)
    return carry, decided_anew(action)


def _warm_up(
    key: Array,
    state: Edited,
    carry: tuple[()],
    observation: Array,
    goal: Array,
    *,
    config: EXPOConfig,
    spec: Spec,
    base: object,
) -> tuple[tuple[()], Decision]:
    """As the base policy does."""
    del config
    return carry, decided_anew(bases.drawn(key, state.base, observation, goal, base, spec))


def _act(
    key: Array,
    state: Edited,
    carry: ChunkCarry,
    observation: Array,
    goal: Array,
    *,
    config: EXPOConfig,
    spec: Spec,
    base: object,
) -> tuple[ChunkCarry, Decision]:
    def sample(past: chunks.Past) -> Array:
        return _best(key, state, past.history[:, -1], goal, config, spec, base, explores=False)

    return chunks.step(carry, observation, sample)


def presets(task: Task) -> Mapping[str, Preset]:
    """The paper's, and ours of fewer candidates and updates: faster targets, little entropy."""
    del task
    acting = OffPolicyConfig(16, updates=3, batch_size=128, capacity=50_000, warm_up=1_000)
    rates = dict.fromkeys(("actor_learning_rate", "critic_learning_rate", "alpha_learning_rate"), 1e-3)
    soft = {"initial_alpha": 0.003, "tau": 0.02}
    small = {"candidates": 4, "critics": 4, "hidden": (128, 128)}
    cpu = EXPOConfig(acting=acting, beta=0.2, **small, **soft, **rates)
    brief = OffPolicyConfig(4, batch_size=8, capacity=100, warm_up=8)
    tiny = replace(cpu, acting=brief, hidden=(16,), candidates=2, critics=2)
    return {
        "smoke": Preset(tiny, updates=3, batch_size=0, seeds=2),
        "cpu": Preset(cpu, updates=800, batch_size=0, seeds=3),
        "paper": Preset(EXPOConfig(), updates=250_000, batch_size=0, seeds=5),
    }


@register(
    "fine_tuner",
    "expo",
    EXPOConfig,
    presets,
    title="EXPO",
    paper="arXiv 2507.07986",
    idea="bounded edits of a policy's actions; the best of both acts and is backed up",
    departures="the base policy stays as it is; edits move with every update of the critics, the "
    "authors' once for many",
    chunks=True,  # an action of its behaviour is a chunk
)
@lru_cache
def expo(config: EXPOConfig, spec: Spec, *, base: object) -> Method:
    """EXPO on any policy or agent of settings `base` that sees the present alone.

    Its `behaviour` decides chunks of as many actions as the base policy executes, for
    `jdp.tasks.simulators.chunked`; `policy` acts step by step. `init` sees the state of the base policy.
    Equal arguments give the same method.

    Raises:
        UserError: if the base policy is none or sees more, or rows of a dataset would have to have goals.
    """
    bases.method_of(base, spec)
    bases.check_present(base)
    execute, settings = bases.executed(base), (("base", base), ("config", config), ("spec", spec))
    draws = replayed.draw(config, spec, _width(spec, base), execute)
    whole = ChunkConfig(chunk=execute, execute=execute)
    start = Bound(chunks.start, (("config", whole), ("spec", spec)))
    explore, warm_up = (Policy(remembers_nothing, Bound(f, settings)) for f in (_explore, _warm_up))
    learner = Learner(Bound(_init, settings), Bound(_update, settings), draws)
    return Method(learner, Policy(start, Bound(_act, settings)), explore, warm_up=warm_up)
