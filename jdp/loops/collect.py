"""A policy acts in a `Task`, inside one program: rollouts to learn from, and episodes to score by."""

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jdp.tasks.simulators.batch import Outcome, Running, advance, begin, renewed
from jdp.types import Policy, PyTree, Rollout, Task, named_keys


class Acting(NamedTuple):
    """N environments, and what the policy remembers in each."""

    running: Running
    carry: PyTree  # of the policy, leaves [N, ...]


def start(task: Task, policy: Policy, key: Array, count: int) -> Acting:
    """`count` new episodes; the key is consumed."""
    running = begin(task, key, count)
    return Acting(running, policy.init(running.observation))


def act(
    task: Task, policy: Policy, key: Array, state: PyTree, acting: Acting
) -> tuple[Acting, tuple[Rollout, Outcome]]:
    """One step of all environments: a rollout without its time axis, and how the episodes stand."""
    keys, running = named_keys(key, "act", "step"), acting.running
    carry, decision = policy.act(keys["act"], state, acting.carry, running.observation, running.goal)
    after, outcome = advance(task, keys["step"], running, decision.action)
    # What a policy remembers of an episode ends with it.
    carry = renewed(outcome.ended, policy.init(after.observation), carry) if jax.tree.leaves(carry) else carry
    rollout = Rollout(
        observation=running.observation,
        goal=running.goal,
        decision=decision,
        reward=outcome.reward,
        next_observation=outcome.observation,
        terminal=outcome.terminal,
        truncated=outcome.truncated,
        success=outcome.success,
    )
    return Acting(after, carry), (rollout, outcome)


def collect(
    task: Task, policy: Policy, key: Array, state: PyTree, acting: Acting, steps: int
) -> tuple[Acting, Rollout, Mapping[str, Array]]:
    """`steps` = T steps of all environments; the key is consumed.

    Returns:
        Where they stand, the rollout `[T, N]`, and sums over the episodes that ended: `episodes`, and of
        these the `returns`, `lengths` and `successes`, all `[]`.
    """

    def body(acting: Acting, key: Array) -> tuple[Acting, tuple[Rollout, Outcome]]:
        return act(task, policy, key, state, acting)

    acting, (rollout, outcome) = jax.lax.scan(body, acting, jax.random.split(key, steps))
    return acting, rollout, finished(outcome)


def finished(outcome: Outcome) -> dict[str, Array]:
    """Sums over the episodes that ended in `outcome` `[..., N]`: how many, and what they came to."""
    ended = outcome.ended.astype(jnp.float32)
    return {
        "episodes": jnp.sum(ended),
        "returns": jnp.sum(ended * outcome.total),
        "lengths": jnp.sum(ended * outcome.length.astype(jnp.float32)),
        "successes": jnp.sum(ended * outcome.reached.astype(jnp.float32)),
    }


class Episodes(NamedTuple):
    """How `n` episodes ended."""

    returns: Array  # [n], undiscounted
    lengths: Array  # [n] int32
    success: Array  # [n] bool, at any step


def score(task: Task, policy: Policy, key: Array, state: PyTree, episodes: int) -> Episodes:
    """Plays `episodes` = n episodes of `task` at once, each to its own end; the key is consumed.

    Raises:
        ValueError: if the task has no time limit.
    """
    if (limit := task.spec.max_episode_steps) is None:
        raise ValueError("a task without a time limit cannot be scored")
    keys = named_keys(key, "begin", "act")
    acting, none = start(task, policy, keys["begin"], episodes), jnp.zeros(episodes)
    found = Episodes(none, none.astype(jnp.int32), none.astype(bool)), jnp.ones(episodes, bool)

    def body(carry: tuple[Acting, tuple[Episodes, Array]], key: Array):
        acting, (scores, running) = carry
        acting, (_, outcome) = act(task, policy, key, state, acting)
        first = running & outcome.ended
        ended = Episodes(outcome.total, outcome.length, outcome.reached)
        return (acting, (renewed(first, ended, scores), running & ~outcome.ended)), None

    (_, (scores, _)), _ = jax.lax.scan(body, (acting, found), jax.random.split(keys["act"], limit))
    return scores
