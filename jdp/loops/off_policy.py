"""A method of transitions that learns while it acts in a `Task`, as one learner.

Buffer and environments are part of its state, as in `jdp.loops.on_policy`.

After SAC's and TD3's loops; with rows of a dataset in every batch, RLPD (Ball et al. 2023, arXiv 2302.02948).
"""

from dataclasses import replace
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jdp.data.draws import NoDraw, TransitionDraw
from jdp.errors import UserError
from jdp.learning.acting import OffPolicyConfig
from jdp.learning.actors import decided_anew, remembers_nothing
from jdp.loops.collect import Acting, act, finished, start
from jdp.loops.on_policy import explores
from jdp.types import (
    Bound,
    Draw,
    Learner,
    Method,
    Metrics,
    Policy,
    PyTree,
    Rollout,
    Task,
    Transition,
    named_keys,
    pack,
)


class Buffer(NamedTuple):
    """The last rows that were seen, in a ring."""

    rows: Array  # [C, P], packed (`jdp.types.pack`)
    size: Array  # [] int32, how many are filled
    place: Array  # [] int32, where the next one goes


def empty(capacity: int, width: int) -> Buffer:
    """A buffer of `capacity` = C rows of `width` = P numbers."""
    return Buffer(jnp.zeros((capacity, width)), jnp.int32(0), jnp.int32(0))


def insert(buffer: Buffer, rows: Array) -> Buffer:
    """`buffer` with `rows` `[N, P]` after its newest ones; N is at most its capacity."""
    capacity, count = len(buffer.rows), len(rows)
    places = (buffer.place + jnp.arange(count)) % capacity
    size = jnp.minimum(buffer.size + count, capacity)
    return Buffer(buffer.rows.at[places].set(rows), size, (buffer.place + count) % capacity)


def keeping_all(config: OffPolicyConfig, updates: int) -> OffPolicyConfig:
    """`config` with a buffer that loses nothing in `updates` updates, and a warm-up of whole steps."""
    count = config.environments
    warm_up = config.first_steps * count
    return replace(config, warm_up=warm_up, capacity=warm_up + updates * count)


def in_order(buffer: Buffer, environments: int, count: int) -> np.ndarray:
    """The first `count` = n rows that a buffer got, `[n, P]`: those of each environment in the order of time.

    Raises:
        ValueError: if it has not got so many, or the oldest have made room.
    """
    if int(buffer.size) < count or int(buffer.place) != int(buffer.size) % len(buffer.rows):
        raise ValueError("these rows are not in the buffer")
    rows = np.asarray(buffer.rows[:count])  # row t * N + i is environment i's
    return rows.reshape(-1, environments, rows.shape[1]).swapaxes(0, 1).reshape(rows.shape)


def transitions(rollout: Rollout, observed: int) -> Transition:
    """The steps of a rollout `[..., N]`; a `Decision.latent` stands in the place of the action.

    A time limit is no terminal. Where a method observes `observed` = O + G entries, goals are the last ones.
    """
    decision, now, following = rollout.decision, rollout.observation, rollout.next_observation
    if observed > now.shape[-1]:
        now, following = (jnp.concatenate([x, rollout.goal], axis=-1) for x in (now, following))
    action = decision.action if decision.latent is None else decision.latent
    ended = rollout.terminal.astype(jnp.float32)
    return Transition(now, jnp.clip(action, -1.0, 1.0), rollout.reward, following, ended)


def buffer_of(method: Method, capacity: int) -> Buffer:
    """An empty buffer of the steps that `method` learns from.

    Raises:
        UserError: if it learns from something else than single transitions.
    """
    draw = _draw(method)
    return empty(capacity, 2 * draw.observation_dim + draw.action_dim + 2)


def kept(buffer: Buffer, rollout: Rollout, method: Method) -> Buffer:
    """`buffer` with a step of N environments, as `method` sees it."""
    return insert(buffer, pack(transitions(rollout, _draw(method).observation_dim)))


class OffPolicyState(NamedTuple):
    """What has been learned, the environments, and what was seen in them."""

    learner: PyTree  # of the method
    acting: Acting
    buffer: Buffer


def _anything(key: Array, state: PyTree, carry: tuple[()], observation: Array, goal: Array, *, actions: int):
    del state, goal
    return carry, decided_anew(jax.random.uniform(key, (len(observation), actions), minval=-1.0, maxval=1.0))


def random_policy(actions: int) -> Policy:
    """Uniform over the box of `actions` dimensions."""
    return Policy(remembers_nothing, Bound(_anything, (("actions", actions),)))


def _init(key: Array, data: PyTree, *, method: Method, task: Task, config: OffPolicyConfig) -> OffPolicyState:
    """First steps fill the buffer: at random, or as `Method.warm_up` says of the learner's first state.

    What the learner standardises by comes from random ones, or from the dataset.
    """
    keys, learned = named_keys(key, "learner", "environments", "warm_up"), None
    policy, steps = random_policy(task.spec.action_dim), config.first_steps
    if method.warm_up is not None:
        policy, learned = method.warm_up, method.learner.init(keys["learner"], data)
    acting = start(task, policy, keys["environments"], config.environments)
    buffer = buffer_of(method, config.capacity)

    def body(carry: tuple[Acting, Buffer], key: Array):
        acting, buffer = carry
        acting, (rollout, _) = act(task, policy, key, learned, acting)
        return (acting, kept(buffer, rollout, method)), None

    (acting, buffer), _ = jax.lax.scan(body, (acting, buffer), jax.random.split(keys["warm_up"], steps))
    if method.warm_up is None:
        filled = buffer.rows[: min(steps * config.environments, config.capacity)]
        seen = data if jax.tree.leaves(data) else _draw(method).view(filled)
        learned = method.learner.init(keys["learner"], seen)
    carry = explores(method).init(acting.running.observation)
    return OffPolicyState(learned, acting._replace(carry=carry), buffer)


def _update(
    key: Array,
    state: OffPolicyState,
    batch: Transition,
    *,
    method: Method,
    task: Task,
    config: OffPolicyConfig,
) -> tuple[OffPolicyState, Metrics]:
    keys = named_keys(key, "act", "learn")
    acting, (rollout, outcome) = act(task, explores(method), keys["act"], state.learner, state.acting)
    buffer = kept(state.buffer, rollout, method)
    learned, metrics = learn(keys["learn"], state.learner, buffer, batch, method=method, config=config)
    return OffPolicyState(learned, acting, buffer), {**metrics, **finished(outcome)}


def learn(
    key: Array, state: PyTree, buffer: Buffer, batch: Transition, *, method: Method, config: OffPolicyConfig
) -> tuple[PyTree, Metrics]:
    """`config.updates` updates of the method's `state`, and the means of their metrics; the key is consumed.

    Args:
        batch: rows of the dataset for all of them, minibatch after minibatch; () where none are asked for.
    """
    draw, offline = _draw(method), offline_rows(config)
    shape = (config.updates, draw.minibatches)
    given = jax.tree.map(lambda x: x.reshape(*shape, offline, *x.shape[1:]), batch) if offline else None

    def one(learned: PyTree, step: tuple[Array, PyTree]) -> tuple[PyTree, Metrics]:
        key, given = step
        keys = named_keys(key, "draw", "update")
        located = draw.locate(keys["draw"], buffer.size, config.batch_size - offline)
        rows = draw.take(buffer.rows, located)
        if given is not None:  # of every minibatch the rows of the dataset come first
            rows = jax.tree.map(lambda x: x.reshape(draw.minibatches, -1, *x.shape[1:]), rows)
            rows = jax.tree.map(lambda a, b: jnp.concatenate([a, b], axis=1), given, rows)
            rows = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), rows)
        return method.learner.update(keys["update"], learned, rows)

    learned, metrics = jax.lax.scan(one, state, (jax.random.split(key, config.updates), given))
    return learned, jax.tree.map(lambda x: jnp.mean(x, axis=0), metrics)


def offline_rows(config: OffPolicyConfig) -> int:
    """How many rows of a minibatch are the dataset's: the `batch_size` of `jdp.loops.train`, or 0."""
    return round(config.offline_share * config.batch_size)


def _draw(method: Method) -> TransitionDraw:
    draw = method.learner.draws
    if not isinstance(draw, TransitionDraw) or draw.next_actions:
        raise UserError(f"off-policy learning needs a method of single transitions, not of {draw}")
    return draw


def off_policy(method: Method, task: Task, config: OffPolicyConfig) -> Learner:
    """Steps of `task` by the exploring policy of `method`, and `config.updates` of its updates after each.

    Random steps, or those of `Method.warm_up`, come first, in `init`. Metrics are the means of the
    method's, and `jdp.loops.collect.finished` of the episodes that ended. Equal arguments give equal
    learners.

    Raises:
        UserError: if the method learns from something else than single transitions.
    """
    draw = _draw(method)
    offline: Draw = NoDraw()
    if offline_rows(config):
        offline = replace(draw, minibatches=draw.minibatches * config.updates)
    settings = (("config", config), ("method", method), ("task", task))
    return Learner(Bound(_init, settings), Bound(_update, settings), offline)
