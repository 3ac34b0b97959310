"""What of jdp's trained methods can be aligned: policies of chunks, and planners of one diffusion of plans.

A `Base` is the diffusion model that a policy or a planner acts by, its samples in the units of the task, and
the way back: the state of that method with other parameters.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.tree_util import Partial

from jdp import registry
from jdp.alignment.models import Model, Reward
from jdp.data.normalise import Affine
from jdp.diffusion.formulations import formulation
from jdp.diffusion.samplers import FLOW_SAMPLERS
from jdp.diffusion.sampling import Sampling
from jdp.errors import UserError
from jdp.finetune.base import check_actions, check_present
from jdp.learning.scale import Scale, clip_action
from jdp.planners import Level, SamplingConfig
from jdp.policies import actions, relabelled
from jdp.policies.chunks import CloneState
from jdp.policies.diffusion_policy import DiffusionPolicyConfig
from jdp.types import Bound, Denoiser, Params, PyTree, Spec, bind


class Base(NamedTuple):
    """What is aligned, as it was."""

    model: Model
    params: Params
    units: Partial  # units(x0 [B, *event], condition [B, C]) -> what rewards are functions of
    condition: Callable[[Array, Array], Array]  # (observation [B, O], goal [B, G]) -> [B, C]
    replaced: Callable[[Params], PyTree]  # the state of the method with other parameters
    kind: str = "samples"  # "plans", "chunks"


def base_of(settings: object, spec: Spec, state: PyTree) -> Base:
    """The base of a trained method of these `settings`.

    Raises:
        UserError: if it does not draw all that it does from one diffusion.
    """
    if type(settings) is DiffusionPolicyConfig:  # those that build on it act otherwise
        return of_chunks(settings, spec, state)
    for entry in registry.entries("planner").values():
        if type(settings) is entry.config and (parts := entry.options.get("plans")):
            return of_plans(parts(settings, spec).level, state)
    planners = [name for name, entry in registry.entries("planner").items() if "plans" in entry.options]
    raise UserError(
        f"{type(settings).__name__} is of no model that can be aligned: give a run, a file or the name of a "
        f"diffusion_policy, or of a planner of these: {', '.join(planners)}"
    )


def judged_by(base: Base, reward: Reward) -> Partial:
    """The judge `(x0, condition) -> [B]` of a reward of what `base.units` gives."""
    return bind(_judged, base.units, reward if isinstance(reward, Partial) else bind(reward))


def _judged(units: Partial, reward: Partial, x0: Array, condition: Array) -> Array:
    return reward(*units(x0, condition))


def of_chunks(config: DiffusionPolicyConfig, spec: Spec, state: CloneState) -> Base:
    """A diffusion policy: samples are chunks `[chunk * A]`, conditions what it sees `[O + G]`.

    Rewards are functions of the observation `[B, O]`, the actions that are executed `[B, E, A]`, within
    [-1, 1], and the goal `[B, G]`.

    Raises:
        UserError: if it sees more than the present, or diffuses something else than actions.
    """
    check_present(config)
    check_actions(config)
    model = Model(
        Bound(actions.denoiser, (("config", config),)), (config.chunk * spec.action_dim,), config.sampling()
    )

    def condition(observation: Array, goal: Array) -> Array:
        return relabelled.condition(state.standardise, observation, goal, spec)

    def replaced(params: Params) -> CloneState:
        return state._replace(actor=state.actor._replace(params=params, ema=params))

    units = bind(_chunk_units, state.standardise, config=config, spec=spec)
    return Base(model, state.actor.ema, units, condition, replaced, "chunks")


def _chunk_units(
    standardise: Affine, x0: Array, condition: Array, *, config: DiffusionPolicyConfig, spec: Spec
) -> tuple[Array, Array, Array]:
    dim, of_goals = spec.observation_dim, _of_goals(standardise, spec)
    chunk = x0.reshape(len(x0), config.chunk, spec.action_dim)[:, : config.execute]
    return (
        standardise.inverse(condition[:, :dim]),
        clip_action(chunk),
        of_goals.inverse(condition[:, dim:]),
    )


@dataclass(frozen=True)
class WholeSchedule(Sampling):
    """Of plans that go down the whole schedule of their formulation."""

    formulation: str = "edm"

    def sigmas(self) -> Array:
        """`[steps + 1]`."""
        return formulation(self.formulation).schedule(self.steps)


def plan_sampling(config: SamplingConfig, name: str) -> Sampling:
    """How a planner of the formulation `name` draws plans from nothing."""
    if config.sampler in FLOW_SAMPLERS or name in ("consistency", "shortcut"):
        raise UserError(
            f"a planner of the formulation {name} is a flow map, which has no denoiser: align one of edm, "
            "flow, vp_eps or another formulation of denoisers"
        )
    if config.sigma_max is not None:
        return config
    return WholeSchedule(config.sampler, config.steps, formulation=name)


def of_plans(level: Level, state: PyTree) -> Base:
    """A planner: samples are plans `[T, D]`, standardised, conditions the present and the goal `[O + G]`.

    What a plan is given, its first observation and the goal in its last row, counts in no density. Rewards
    are functions of observations `[B, T, O]`, actions `[B, T, A]` (`[B, 0, A]` of plans of states), and the
    goal `[B, G]`. A critic that steers the planner steers the aligned one too, outside of what is aligned.

    Raises:
        UserError: if its model is a flow map.
    """
    own: tuple[tuple[str, Level], ...] = (("level", level),)
    model = Model(
        Bound(_plan_denoiser, own),
        (level.rows, level.channels),
        plan_sampling(level.sampling, level.model.formulation),
        Bound(_counted, own),
    )

    def condition(observation: Array, goal: Array) -> Array:
        aim = state.scale.goal(goal, level.spec) if level.spec.goal else goal
        return jnp.concatenate([state.scale.observation(observation), aim], axis=-1)

    def replaced(params: Params) -> PyTree:
        return state._replace(model=state.model._replace(params=params, ema=params))

    units = bind(_plan_units, state.scale, level=level)
    return Base(model, state.model.ema, units, condition, replaced, "plans")


def _known(condition: Array, level: Level) -> tuple[Array, Array]:
    present, goal, _ = _parts(condition, level)
    return level.known(present, goal)


def _parts(condition: Array, level: Level) -> tuple[Array, Array, Array]:
    """The present `[B, O]`, the goal `[B, G]`, and what else stands in conditions: it is for the network."""
    dim, whole = level.spec.observation_dim, level.spec.observation_dim + len(level.spec.goal)
    return condition[:, :dim], condition[:, dim:whole], condition[:, whole:]


def _plan_denoiser(params: Params, condition: Array, *, level: Level) -> Denoiser:
    return level.held(params, _known(condition, level), _parts(condition, level)[2])


def _counted(*, level: Level) -> Array:
    return ~level.mask()


def _plan_units(scale: Scale, x0: Array, condition: Array, *, level: Level) -> tuple[Array, Array, Array]:
    known, mask = _known(condition, level)
    observation, action = scale.rows(jnp.where(mask, known, x0))
    goal = _of_goals(scale.observation, level.spec).inverse(_parts(condition, level)[1])
    return observation, clip_action(action), goal


def _of_goals(standardise: Affine, spec: Spec) -> Affine:
    """The standardiser of goals, which are entries of observations."""
    entries = jnp.array(spec.goal, jnp.int32)
    return Affine(standardise.mean[entries], standardise.std[entries])


def stacked(base: Base, params: Params) -> PyTree:
    """The states of all seeds `[S, ...]` whose parameters are `[S, ...]`."""
    return jax.vmap(base.replaced)(params)
