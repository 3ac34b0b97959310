"""The policy that a fine-tuner improves, seen from outside: what it does, and what it shows of states."""

from jax import Array

from jdp import registry
from jdp.data.normalise import Affine
from jdp.errors import UserError
from jdp.policies import relabelled
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
