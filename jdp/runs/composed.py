"""Trained runs played as one, by a weighted sum of their scores (GPC, arXiv 2510.01068)."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from jdp.diffusion.experts import Router
from jdp.errors import UserError
from jdp.planners import composed as of_plans
from jdp.policies import composed as of_chunks
from jdp.runs.load import LoadedRun
from jdp.types import Policy, PyTree

ROOMS = {"policy": of_chunks, "planner": of_plans}


def composed_policy(runs: Sequence[LoadedRun]) -> Policy:
    """The policy, or planner, composed of those of `runs`; its states are `composed_states`.

    Raises:
        UserError: if they are not all policies of chunks, or all planners of one method, in one task.
    """
    first = runs[0]
    for run in runs[1:]:
        if run.kind != first.kind or run.kind not in ROOMS:
            raise UserError(
                f"policies are composed with policies and planners with planners: {first.path} has the "
                f"{first.kind} {first.name}, {run.path} the {run.kind} {run.name}"
            )
        if run.spec.env_id != first.spec.env_id:
            raise UserError(
                f"runs of one task are composed: {first.path} is of {first.spec.env_id}, {run.path} of "
                f"{run.spec.env_id}"
            )
    return ROOMS[first.kind].composed([run.method.policy for run in runs])


def composed_states(runs: Sequence[LoadedRun], weights: Sequence[float] | Router) -> PyTree:
    """The states `[S, ...]` of all seeds of the first of `runs`; of the others each takes a seed in turn.

    With a router in the place of the weights, all seeds have that one, and the runs are experts that were
    trained apart, each on its part of the data (`jdp.learning.clusters.PartDraw`).
    """
    seeds = runs[0].config["seeds"]
    states = [
        jax.tree.map(lambda leaf: leaf[jnp.arange(seeds) % leaf.shape[0]], next(iter(run.states.values())))
        for run in runs
    ]
    of_one = weights if callable(weights) else jnp.asarray(weights, jnp.float32)
    each = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf[None], (seeds, *leaf.shape)), of_one)
    return ROOMS[runs[0].kind].composed_state(states, each)
