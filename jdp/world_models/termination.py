"""When an episode of a known task ends, from the observation that a step led to."""

import re
from collections.abc import Callable

import jax.numpy as jnp
from jax import Array

from jdp.errors import UserError
from jdp.types import Spec

Rule = Callable[[Array, Array, Array], Array]
# rule(observation [..., O], action [..., A], next_observation [..., O]) -> [...] bool

STATE_LIMIT = 100.0  # of Hopper's coordinates
POLE_LENGTH = 0.6  # of either pole of InvertedDoublePendulum


# Each rule is what Gymnasium's task decides (versions 4 and 5 agree), and a state that is not finite
# ends every task that can end: the simulator makes none, but a learned model may. The observations of
# Hopper to Humanoid hide where the root stands, so they begin with its height.


def _finite(x: Array) -> Array:
    return jnp.isfinite(x).all(axis=-1)


def never(observation: Array, action: Array, next_observation: Array) -> Array:
    """Only a time limit ends the task: HalfCheetah, Swimmer, Reacher, Pusher, HumanoidStandup."""
    del observation, action
    return jnp.zeros(next_observation.shape[:-1], bool)


def hopper(observation: Array, action: Array, next_observation: Array) -> Array:
    """Unless the height exceeds 0.7, the angle is below 0.2, and every coordinate below 100, in size.

    MBPO's rule (and those copied from it) puts `< 100` inside the absolute value, and so lets every
    large negative coordinate pass. Here as in the simulator. It looks at true velocities and shows
    clipped ones, which are never beyond 10: of the velocities, only a model's own can exceed 100.
    """
    del observation, action
    height, angle = next_observation[..., 0], next_observation[..., 1]
    bounded = (jnp.abs(next_observation[..., 1:]) < STATE_LIMIT).all(axis=-1)
    return ~(_finite(next_observation) & bounded & (height > 0.7) & (jnp.abs(angle) < 0.2))


def walker2d(observation: Array, action: Array, next_observation: Array) -> Array:
    """Unless the height lies in (0.8, 2) and the angle in (-1, 1)."""
    del observation, action
    height, angle = next_observation[..., 0], next_observation[..., 1]
    return ~(_finite(next_observation) & (height > 0.8) & (height < 2.0) & (jnp.abs(angle) < 1.0))


def ant(observation: Array, action: Array, next_observation: Array) -> Array:
    """Unless the height lies in [0.2, 1]."""
    del observation, action
    height = next_observation[..., 0]
    return ~(_finite(next_observation) & (height >= 0.2) & (height <= 1.0))


def humanoid(observation: Array, action: Array, next_observation: Array) -> Array:
    """Unless the height lies in (1, 2)."""
    del observation, action
    height = next_observation[..., 0]
    return ~(_finite(next_observation) & (height > 1.0) & (height < 2.0))


def inverted_pendulum(observation: Array, action: Array, next_observation: Array) -> Array:
    """Unless the pole leans by at most 0.2; the observation is (cart, angle, velocities)."""
    del observation, action
    return ~(_finite(next_observation) & (jnp.abs(next_observation[..., 1]) <= 0.2))


def inverted_double_pendulum(observation: Array, action: Array, next_observation: Array) -> Array:
    """Unless the tip stands above 1; the observation is (cart, sin a, sin b, cos a, cos b, ...).

    Angle `a` is the lower pole's, `b` the upper one's against it. The simulator measures the tip at the
    last stage of its integrator, not in the state that it shows: of random steps into the neighbourhood
    of the limit, 1 in 1,000 is judged otherwise.
    """
    del observation, action
    sin_a, sin_b, cos_a, cos_b = (next_observation[..., i] for i in range(1, 5))
    tip = POLE_LENGTH * (cos_a + cos_a * cos_b - sin_a * sin_b)  # cos(a + b)
    return ~(_finite(next_observation) & (tip > 1.0))


RULES: dict[str, Rule] = {
    "Ant": ant,
    "HalfCheetah": never,
    "Hopper": hopper,
    "Humanoid": humanoid,
    "HumanoidStandup": never,
    "InvertedDoublePendulum": inverted_double_pendulum,
    "InvertedPendulum": inverted_pendulum,
    "Pusher": never,
    "Reacher": never,
    "Swimmer": never,
    "Walker2d": walker2d,
}


def rule(env_id: str | Spec | None) -> Rule | None:
    """The rule of the Gymnasium task `env_id`, for instance "Hopper-v5"; None where there is none.

    Of a `Spec` with settings of its own there is none: they may change when the task ends.

    The name counts as a whole, and only in the versions whose rules were checked: "AntMaze_UMaze-v5"
    is no "Ant", and a dataset's name ("hopper-medium") is no task.
    """
    if isinstance(env_id, Spec):
        env_id = env_id.env_id if env_id.env_spec is None else None
    task = re.fullmatch(r"(\w+)-v[45]", env_id or "", re.ASCII)
    return RULES.get(task[1]) if task else None


def choose(choice: str, env_id: str | Spec | None, *, has_terminals: bool, dataset: str) -> Rule | None:
    """The rule by which episodes of a learned model end; None stands for a learned terminal head.

    Args:
        choice: "auto" (the rule of the dataset's task, else a learned head), "learned", "never", or the
            name of a task whose rule to use, for instance "Hopper-v5".
        env_id: the dataset's task, if it has one, or its `Spec`.
        has_terminals: whether any episode of the data ended otherwise than by a time limit.
        dataset: its name, for the error.

    Raises:
        UserError: if there is no such rule, or a head has no terminal to learn from.
    """
    if choice == "never":
        return never
    if choice not in ("auto", "learned"):
        if (named := rule(choice)) is None:
            raise UserError(
                f"--ensemble.termination {choice}: no such rule; give auto, learned, never or a task, "
                f"{', '.join(RULES)}, with its version, for instance Hopper-v5"
            )
        return named
    if choice == "auto" and (known := rule(env_id)) is not None:
        return known
    if has_terminals:
        return None
    task = env_id.env_id if isinstance(env_id, Spec) else env_id
    reason = "" if choice == "learned" else f"no termination rule is known for task {task}, and "
    raise UserError(
        f"{dataset}: {reason}the data hold no terminal to learn one from; "
        "give --ensemble.termination never if its episodes only end by a time limit"
    )
