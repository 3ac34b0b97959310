"""Trained policies of chunks played as one: General Policy Composition (arXiv 2510.01068)."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from jax import Array

from jdp.diffusion.experts import Router, checked_weights, joined
from jdp.errors import UserError
from jdp.learning.guides import Past
from jdp.policies import actions, chunks
from jdp.policies.chunks import Chunks
from jdp.policies.continued import chunks_of
from jdp.types import Denoiser, Policy, PyTree


class ComposedState(NamedTuple):
    """What a composed policy acts by."""

    members: tuple[PyTree, ...]  # the states of its policies
    weights: Array | Router  # [K], of their scores; or who says how probable each is where


@dataclass(frozen=True)
class ComposedChunks(Chunks):
    """`Chunks` of one policy, whose denoiser is composed of those of the `members`."""

    members: tuple[Chunks, ...] = ()

    def steered(self, state: Any, past: Past, goal: Array) -> Denoiser:
        """The composed denoiser of chunks `[B, chunk * A]`, as the guide of the first policy takes it."""
        found = [
            own.denoiser(of.actor.ema, own.shown(of, past, goal))
            for own, of in zip(self.members, state.members, strict=True)
        ]
        whole = actions.clipped(joined(found, state.weights))
        scale = self.members[0].config.units(state.members[0].standardise, self.spec)
        return actions.steered(whole, self.guide, past, goal, scale)


def composed(policies: Sequence[Policy]) -> Policy:
    """The policy whose scores are a weighted sum of those of `policies`; its state is `composed_state`.

    They may differ in network, formulation, history and data, and each sees observations in its own units.
    Chunks are drawn, executed and guided as the first policy does it. At weights (1, 0) its actions are the
    first one's, and `warm` and `real_time` wrap it as they do any policy of chunks. Where one of them is
    far worse than the other no weight is better than the better one alone: choose by
    `jdp.evaluation.search_weights`.

    Raises:
        UserError: if one of them draws no chunks by a sampler, or they draw chunks of different sizes.
    """
    members = tuple(chunks_of(policy, "composition") for policy in policies)
    if len(members) < 2:
        raise UserError(f"composition is of two or more policies, not of {len(members)}")
    first = members[0]
    for other in members[1:]:
        sizes = [(own.config.chunk, own.spec.action_dim, own.spec.observation_dim) for own in (first, other)]
        if sizes[0] != sizes[1] or first.spec.goal != other.spec.goal:
            raise UserError(
                "composed policies draw chunks of one size in one task: these draw {} actions of {} entries "
                "at {} observed, with goals {}; and {} of {} at {}, with goals {}".format(
                    *sizes[0], first.spec.goal, *sizes[1], other.spec.goal
                )
            )
    longest = max(own.config.history for own in members)
    config = replace(first.config, history=longest)
    parts = ComposedChunks(first.denoiser, config, first.spec, first.guide, members)
    return parts.policy(chunks.act)


def composed_state(states: Sequence[PyTree], weights: Array | Sequence[float] | Router) -> ComposedState:
    """The state of a `composed` policy: those of its policies, with a weight each.

    Of S seeds stacked, states have leaves `[S, ...]` and weights are `[S, K]` (`jdp.runs.composed`). With a
    router in their place the members are experts of parts of the data (`jdp.diffusion.experts.routed`); it
    sees the chunk, not the observation, so it is exact as far as the noised chunk tells whose data it is.

    Raises:
        UserError: unless there is a weight for each of them.
    """
    return ComposedState(tuple(states), checked_weights(weights, len(states)))
