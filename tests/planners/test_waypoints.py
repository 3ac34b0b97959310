"""Plans in PointMaze become forces towards their next state, and rest at their last row."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdp import planners
from jdp.errors import UserError
from jdp.planners.diffuser import DiffuserPlannerConfig
from jdp.planners.waypoints import approached, state_at
from jdp.types import Plan, Spec

STEP = 0.01


def cubic(t):
    """Positions and velocities of a cubic in time, t `[...]` seconds."""
    powers = np.stack([t**0, t, t**2, t**3], axis=-1)
    slopes = np.stack([0 * t, t**0, 2 * t, 3 * t**2], axis=-1)
    weights = np.array([[1.0, -2.0], [0.5, 1.0], [-3.0, 2.0], [4.0, -1.0]])
    return np.concatenate([powers @ weights, slopes @ weights], axis=-1)


@pytest.mark.parametrize("stride", [1, 4])
def test_between_rows_a_cubic_is_met_and_the_end_is_at_rest(stride):
    rows = cubic(np.arange(6) * stride * STEP)
    step = jnp.arange(5 * stride + 3)
    found = state_at(jnp.broadcast_to(jnp.float32(rows), (len(step), 6, 4)), stride, step)
    wanted = cubic(np.arange(len(step)) * STEP)
    wanted[5 * stride :] = [*rows[-1, :2], 0, 0]
    np.testing.assert_allclose(found, wanted, atol=2e-5)


def test_the_ball_follows_a_plan_and_stays_at_its_end():
    pytest.importorskip("gymnasium_robotics")
    from jdp.evaluation import make_goal_env

    env = make_goal_env("maze2d-umaze-v1")
    seen = env.reset(0, start=(-1.0, 1.0))[0]
    ease = np.linspace(0, 1, 21)
    along = np.stack([2 * (3 * ease**2 - 2 * ease**3) - 1, np.full(21, 1.0)], axis=-1)
    speed = np.stack([2 * 6 * ease * (1 - ease) / (20 * 8 * STEP), np.zeros(21)], axis=-1)
    rows = jnp.float32(np.concatenate([along, speed], axis=-1))[None]
    plan = Plan(rows, jnp.zeros((1, 0, 2)), jnp.zeros(1), jnp.zeros((1, 0, 4)))
    act = jax.jit(approached, static_argnames="stride")
    far = []
    for step in range(250):
        force = act(jax.random.key(0), None, plan, jnp.array([step]), jnp.asarray(seen)[None], stride=8)
        seen = env.step(np.asarray(force)[0]).observation
        far.append(np.abs(seen[:2] - np.asarray(state_at(rows, 8, jnp.array([step + 1])))[0, :2]).max())
    assert max(far) < 0.1 and max(far[-50:]) < 0.02
    env.close()


def test_one_plan_an_episode_asks_for_no_second_and_for_no_inverse_model():
    config = DiffuserPlannerConfig(horizon=32, stride=8, replan_every=0, control="waypoints")
    method = planners.make(config, Spec(4, 2, "PointMaze_UMaze-v3", goal=(0, 1)))
    carry = method.policy.init(jnp.zeros((1, 4)))
    assert carry.elapsed[0] >= 1 << 30  # due at once, and then never again
    with pytest.raises(UserError, match="steers PointMaze's ball, not Hopper-v5: choose control model"):
        planners.make(config, Spec(11, 3, "Hopper-v5"))
