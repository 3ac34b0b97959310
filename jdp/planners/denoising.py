"""How a plan comes out of noise, for a picture of it."""

import dataclasses
from typing import Any, TypeVar

import jax
from jax import Array

from jdp import registry
from jdp.diffusion.samplers import FLOW_SAMPLERS
from jdp.planners.trajectory import SamplingConfig, plan_schedule
from jdp.types import PyTree, Spec

T = TypeVar("T")


def _shown(settings: T, steps: int) -> T:
    """`settings` with one candidate, which is drawn from nothing, of denoisers by Euler's method."""
    changes: dict[str, Any] = {}
    for item in dataclasses.fields(settings):  # type: ignore[arg-type]
        value = getattr(settings, item.name)
        if isinstance(value, SamplingConfig) and item.name == "sampling":
            sampler = value.sampler if value.sampler in FLOW_SAMPLERS else "euler"
            changes[item.name] = dataclasses.replace(value, sampler=sampler, steps=steps, warm_steps=0)
        elif item.name == "candidates":
            changes[item.name] = 1
        elif item.name == "diffuser":
            changes[item.name] = _shown(value, steps)
    return dataclasses.replace(settings, **changes)  # type: ignore[type-var]


def denoising(
    config: Any, spec: Spec, key: Array, state: PyTree, observation: Array, goal: Array, *, steps: int = 20
) -> tuple[Array, Array]:
    """`(chain [n + 1, B, T, O], sigmas [n + 1])` of plans from `observation` `[B, O]` to `goal` `[B, G]`.

    Rows of the chain are noisy plans in the units of the task, at these noise levels (in units of
    standardised observations): the subgoals of a hierarchy, else the states. The key is consumed.
    """
    settings = _shown(config, steps)
    method = registry.make("planner", settings, spec, trace=True)
    inner = getattr(settings, "diffuser", settings)
    model = inner.model if hasattr(inner, "model") else inner.high
    decision = jax.jit(method.policy.act)(key, state, method.policy.init(observation), observation, goal)[1]
    chain = state.scale.observation.inverse(decision.chain[..., : spec.observation_dim])
    return chain, plan_schedule(inner.sampling, model.formulation)
