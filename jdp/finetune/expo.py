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
from jdp.finetune.base import View
from jdp.finetune.chunked import chunk_method
from jdp.finetune.replayed import ReplayedConfig
from jdp.learning.acting import OffPolicyConfig
from jdp.learning.actors import decided_anew
from jdp.learning.candidates import check_candidates, choose, repeated
from jdp.learning.critics import learn_critics, td_target
from jdp.learning.optimiser import Trained, copied
from jdp.registry import Preset, Task, register
from jdp.types import Decision, Method, Metrics, Params, PyTree, Spec, TanhNormal, Transition, named_keys


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


def _seen(spec: Spec, base: object) -> Spec:
    return replayed.seen(spec, bases.width(base, spec))


def networks(config: EXPOConfig, spec: Spec, base: object) -> sac.Networks:
    """The actor sees states and actions, `[..., C + D]`, the critics as all critics do."""
    return sac.networks(config, _seen(spec, base))


def _init(key: Array, data: PyTree, *, config: EXPOConfig, spec: Spec, base: object) -> Edited:
    """`data` is the state of the base policy, which stays."""
    seen = _seen(spec, base)
    begun = sac.begin_sac(key, config, seen, actor_sees=seen.observation_dim + seen.action_dim)
    return Edited(*begun, copied(data))


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
    view: View,
    config: EXPOConfig,
    spec: Spec,
    base: object,
    *,
    explores: bool = True,
) -> Array:
    """`[B, 2 N, D]`: N actions of the base policy, then the edited ones (by mean edits unless it `explores`).

    The key is consumed.
    """
    keys, many = named_keys(key, "base", "edits"), repeated(view, config.candidates)
    action = bases.drawn(keys["base"], state.base, many.observation, many.goal, base, spec)
    found = pi(state.actor.params, many.shown, action, config, spec, base)
    edit = found.sample(keys["edits"]) if explores else found.mean
    both = [action, edited(action, edit, config.beta)]
    return jnp.concatenate([x.reshape(len(view.shown), config.candidates, -1) for x in both], axis=1)


def values(params: Params, shown: Array, found: Array, nets: sac.Networks) -> Array:
    """`[M, B, 2 N]`, of candidates `[B, 2 N, D]` at `[B, C]`, by critics of parameters `[M, ...]`."""
    many = jnp.broadcast_to(shown[:, None], (*found.shape[:2], shown.shape[-1]))
    return nets.critic.apply(params, many, found)


def backup(
    key: Array, state: Edited, view: View, config: EXPOConfig, spec: Spec, base: object
) -> tuple[Array, Array]:
    """`(values [B], scores [B, 2 N])` of what comes next: the best candidate of the target critics.

    Scores are the lowest of `config.subsample` critics. The key is consumed.
    """
    keys, nets = named_keys(key, "candidates", "critics"), networks(config, spec, base)
    found = candidates(keys["candidates"], state, view, config, spec, base)
    members = jax.random.permutation(keys["critics"], config.critics)[: config.subsample]
    some = jax.tree.map(lambda x: x[members], state.target_critic)
    score = jnp.min(values(some, view.shown, found, nets), axis=0)
    return jnp.max(score, axis=1), score


def _update(
    key: Array, state: Edited, batch: Transition, *, config: EXPOConfig, spec: Spec, base: object
) -> tuple[Edited, Metrics]:
    keys, nets = named_keys(key, "next", "edits"), networks(config, spec, base)
    now, following = (replayed.view(state.base, x, spec) for x in (batch.observation, batch.next_observation))
    value, _ = backup(keys["next"], state, following, config, spec, base)
    discount = replayed.of_chunks(config, bases.executed(base)).discount
    target = td_target(batch.reward, batch.terminal, value, discount)
    seen, adam = batch._replace(observation=now.shown), sac.optimisers(config).critic
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


def _chunk(
    key: Array,
    state: Edited,
    view: View,
    *,
    config: EXPOConfig,
    spec: Spec,
    base: object,
    explores: bool = False,
) -> Array:
    """`[B, D]`, the best candidate by the mean of the target critics."""
    found = candidates(key, state, view, config, spec, base, explores=explores)
    score = jnp.mean(values(state.target_critic, view.shown, found, networks(config, spec, base)), axis=0)
    return choose(found.reshape(-1, found.shape[-1]), score.reshape(-1), found.shape[1])[0]


def _explore(
    key: Array, state: Edited, view: View, *, config: EXPOConfig, spec: Spec, base: object
) -> Decision:
    return decided_anew(_chunk(key, state, view, config=config, spec=spec, base=base, explores=True))


def _warm_up(
    key: Array, state: Edited, view: View, *, config: EXPOConfig, spec: Spec, base: object
) -> Decision:
    """As the base policy does."""
    del config
    return decided_anew(bases.drawn(key, state.base, view.observation, view.goal, base, spec))


def presets(task: Task) -> Mapping[str, Preset]:
    """The paper's, and ours of fewer candidates and updates: faster targets, little entropy."""
    del task
    small = {"candidates": 4, "critics": 4, "hidden": (128, 128)}
    cpu = EXPOConfig(**replayed.cpu(updates=3), beta=0.2, **small)
    tiny = replace(cpu, acting=replayed.BRIEF, hidden=(16,), candidates=2, critics=2)
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
    chunks="execute",  # an action of its behaviour is a chunk of so many
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
    draws = replayed.draw(config, spec, bases.width(base, spec), bases.executed(base))
    return chunk_method(_init, _update, _explore, _chunk, config, spec, base, draws=draws, warm_up=_warm_up)
