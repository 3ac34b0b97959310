"""Trained planners of one kind played as one: General Policy Composition (arXiv 2510.01068) of plans."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import Array

from jdp.diffusion.experts import Router, checked_weights, joined
from jdp.diffusion.samplers import FLOW_SAMPLERS
from jdp.errors import UserError
from jdp.planners.following import Planner, follow
from jdp.planners.parts import Parts
from jdp.types import Bound, Denoiser, Policy, PyTree


class ComposedModel(NamedTuple):
    """What stands in the place of a planner's `state.model`."""

    members: tuple[PyTree, ...]  # the models of its planners
    weights: Array | Router  # [K], of their scores; or who says how probable each is where


def _denoiser(state: ComposedModel, condition: Array, *, members: tuple[Any, ...]) -> Denoiser:
    found = [own(of, condition) for own, of in zip(members, state.members, strict=True)]
    return joined(found, state.weights)


def _taken_apart(policy: Policy) -> tuple[Planner, Parts]:
    planner = dict(getattr(policy.act, "settings", ())).get("planner")
    parts = dict(getattr(getattr(planner, "plan", None), "settings", ())).get("parts")
    if not isinstance(planner, Planner) or type(parts) is not Parts:  # those with more have more denoisers
        raise UserError(
            "composition is of planners with one denoiser of plans, not of hierarchies: give diffuser, "
            "decision_diffuser or veteran"
        )
    if parts.level.sampling.sampler in FLOW_SAMPLERS:
        raise UserError("a flow map has no score to compose: give planners that are trained as denoisers")
    return planner, parts


def _home(planner: Planner) -> str:
    """The module of its method."""
    return getattr(planner.plan, "function").__module__  # noqa: B009


def composed(policies: Sequence[Policy]) -> Policy:
    """The planner whose scores are a weighted sum of those of trained ones; its state is `composed_state`.

    They are of one method and one shape of plans, and may differ in network, formulation and training. All
    but the denoiser is the first one's: sampler, guide, critic, inverse model.

    Raises:
        UserError: for planners without one denoiser, and unless they fit each other.
    """
    apart = [_taken_apart(policy) for policy in policies]
    if len(apart) < 2:
        raise UserError(f"composition is of two or more planners, not of {len(apart)}")
    planner, parts = apart[0]
    for other, its in apart[1:]:
        kinds = [(_home(p), p.memory, own.spec) for p, own in ((planner, parts), (other, its))]
        if kinds[0] != kinds[1] or parts.stride != its.stride:
            shapes = " and ".join(f"{_home(p)}, {p.memory}" for p, _ in apart)
            raise UserError(f"composed planners are of one method and one shape of plans; these are {shapes}")
    members = tuple(own.level.model.denoiser for _, own in apart)
    model = parts.level.model._replace(denoiser=Bound(_denoiser, (("members", members),)))
    whole = replace(parts, level=replace(parts.level, model=model))
    assert isinstance(planner.plan, Bound)
    return follow(planner._replace(plan=whole.bound(planner.plan.function)))


def composed_state(states: Sequence[PyTree], weights: Array | Sequence[float] | Router) -> PyTree:
    """The state of a `composed` planner: the first one's, with the models of all and a weight each.

    Of S seeds stacked, states have leaves `[S, ...]` and weights are `[S, K]` (`jdp.runs.composed`). With a
    router in their place the members are experts of parts of the data (`jdp.diffusion.experts.routed`).

    Raises:
        UserError: unless there is a weight for each of them, and all standardise alike: a plan is one point
            in one space.
    """
    found = checked_weights(weights, len(states))
    own = jax.tree.leaves((states[0].scale.observation, states[0].scale.action))
    for other in states[1:]:
        theirs = jax.tree.leaves((other.scale.observation, other.scale.action))
        if not all(np.allclose(a, b, rtol=1e-4, atol=1e-6) for a, b in zip(own, theirs, strict=True)):
            raise UserError(
                "composed planners standardise alike, and these were trained on different data: "
                "their plans lie in two spaces"
            )
    return states[0]._replace(model=ComposedModel(tuple(state.model for state in states), found))
