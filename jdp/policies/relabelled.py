"""What diffusion policies share: what they see, and the task that goals in hindsight make."""

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import DTypeLike

from jdp.data.normalise import Affine
from jdp.data.segments import FAR
from jdp.errors import UserError
from jdp.learning.critics import TwinCriticConfig
from jdp.types import Segments, Spec, Transition


def condition(standardise: Affine, observation: Array, goal: Array, spec: Spec) -> Array:
    """`[B, O + G]`, what every network sees: observation `[B, O]` and goal `[B, G]`, both standardised.

    Raises:
        UserError: if the goal does not say what `spec.goal` prescribes.
    """
    if goal.shape[-1] != len(spec.goal):
        raise UserError(
            f"the policy's goals have {len(spec.goal)} entries (spec.goal), those given {goal.shape[-1]}: "
            "draw batches with the draw of its own learner"
        )
    entries = jnp.array(spec.goal, jnp.int32)
    of_goals = Affine(standardise.mean[entries], standardise.std[entries])
    return jnp.concatenate([standardise(observation), of_goals(goal)], axis=-1)


def relabelled(batch: Segments, spec: Spec, scale: float = 1.0, shift: float = 0.0) -> tuple[Array, Array]:
    """Reward and terminal of row 0, `[B]` each.

    On tasks with goals the reward is -1 until the step that reaches the goal, which has reward 0 and ends
    the task, so values are minus discounted numbers of steps. On others `scale * reward + shift`.
    """
    if not spec.goal:
        return scale * batch.reward[:, 0] + shift, batch.terminal[:, 0]
    reached = batch.distance == 1
    return jnp.where(batch.distance > 1, -1.0, 0.0), reached.astype(jnp.float32)


def imitated(batch: Segments, spec: Spec) -> Array:
    """`[B]` bool, the rows whose action may be imitated: their goal lies ahead in the same episode."""
    return batch.distance < FAR if spec.goal else jnp.ones(batch.distance.shape, bool)


def transitions(batch: Segments, standardise: Affine, spec: Spec, config: TwinCriticConfig) -> Transition:
    """Rows 0 and 1 as a step of the `relabelled` task, the `condition` in the place of observations."""
    reward, terminal = relabelled(batch, spec, config.reward_scale, config.reward_shift)
    now, following = batch.observation[:, 0], batch.observation[:, 1]
    return Transition(
        observation=condition(standardise, now, batch.goal, spec),
        action=batch.action[:, 0],
        reward=reward,
        next_observation=condition(standardise, following, batch.goal, spec),
        terminal=terminal,
    )


def share_of(keep: Array, dtype: DTypeLike) -> Array:
    """`[B]`, weights by which a mean is that of the rows `keep` `[B]`; 0 where there are none."""
    weight = keep.astype(dtype)
    return weight / jnp.maximum(jnp.mean(weight), 1 / weight.size)


def mean_of(x: Array, keep: Array) -> Array:
    """Mean over the rows `keep` `[B]` of `x` `[B, ...]`; 0 where there are none."""
    rows = jnp.mean(x.reshape(x.shape[0], -1), axis=1)
    return jnp.sum(jnp.where(keep, rows, 0.0)) / jnp.maximum(jnp.sum(keep.astype(x.dtype)), 1.0)


def magnitude(q: Array, keep: Array) -> Array:
    """`stop(mean |Q|)` over the rows `keep` `[B]`, by which Q losses are divided; never 0."""
    return jnp.maximum(jax.lax.stop_gradient(mean_of(jnp.abs(q), keep)), 1e-6)
