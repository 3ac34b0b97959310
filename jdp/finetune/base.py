"""The policy that a fine-tuner improves, seen from outside: what it does, and what it shows of states."""

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from jdp import registry
from jdp.data.normalise import Affine
from jdp.errors import UserError
from jdp.policies import relabelled
from jdp.policies.chunks import ChunkCarry
from jdp.registry import Kind
from jdp.types import Method, PyTree, Spec

KINDS: tuple[Kind, ...] = ("policy", "planner", "agent")


def method_of(settings: object, spec: Spec) -> Method:
    """The method that `settings` are of: a diffusion policy, a planner or an agent.

    Raises:
        UserError: if it is none of these.
    """
    for kind in KINDS:
        if any(type(settings) is entry.config for entry in registry.entries(kind).values()):
            return registry.make(kind, settings, spec)
    raise UserError(f"{type(settings).__name__} is of no policy, planner or agent")


def shown(state: PyTree, observation: Array, goal: Array, spec: Spec) -> Array:
    """`[B, O + G]`, observations `[B, O]` and goals `[B, G]` as the base policy standardises them.

    Raises:
        UserError: if its state does not say how.
    """
    standardise = getattr(state, "standardise", None)
    if not isinstance(standardise, Affine):
        standardise = getattr(getattr(state, "scale", None), "observation", None)
    if not isinstance(standardise, Affine):
        raise UserError("the base policy does not standardise observations, so it cannot be built on")
    return relabelled.condition(standardise, observation, goal, spec)


class View(NamedTuple):
    """B states, in the units of the task and as the base policy is shown them."""

    observation: Array  # [B, O]
    goal: Array  # [B, G]
    shown: Array  # [B, O + G]


def view(state: PyTree, observation: Array, goal: Array, spec: Spec) -> View:
    """Observations `[B, O]` and goals `[B, G]` beside what `shown` makes of them; raises as it does."""
    return View(observation, goal, shown(state, observation, goal, spec))


def executed(settings: object) -> int:
    """How many actions the policy of `settings` executes before it decides again."""
    return getattr(settings, "execute", 1)


def width(settings: object, spec: Spec) -> int:
    """E * A, the entries of the E = `executed` actions."""
    return executed(settings) * spec.action_dim


def check_present(settings: object) -> None:
    """Raises `UserError` where the policy of `settings` sees more than the present, which buffers keep."""
    if (history := getattr(settings, "history", 1)) != 1:
        raise UserError(f"the base policy sees {history} observations: train one with history 1")


def check_actions(settings: object) -> None:
    """Raises `UserError` where what the policy of `settings` diffuses are not its actions themselves."""
    if (found := getattr(settings, "representation", "actions")) != "actions":
        raise UserError(f"the base policy diffuses {found}: train one with representation actions")


def drawn(key: Array, state: PyTree, observation: Array, goal: Array, settings: object, spec: Spec) -> Array:
    """`[B, E * A]`, what the policy decides to do next at observations `[B, O]`: E = `executed` actions.

    It decides as at the first step of an episode. The key is consumed.

    Raises:
        UserError: if its queue holds actions otherwise than they are executed.
    """
    if getattr(settings, "discrete", ()):
        raise UserError(
            "the base policy learned discrete entries scaled: train one without --settings.discrete"
        )
    policy = method_of(settings, spec).policy
    carry, decision = policy.act(key, state, policy.init(observation), observation, goal)
    if not isinstance(carry, ChunkCarry):
        return decision.action
    # The action that was taken has gone to the end of the queue.
    return jnp.roll(carry.queue, 1, axis=1)[:, : executed(settings)].reshape(len(observation), -1)
