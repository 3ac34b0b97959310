"""Policies in the simulator, generated data against it, and statistics over seeds."""

from jdp.evaluation.closed_loop import Latency, Played, latency, play
from jdp.evaluation.dynamics import DynamicsError, dynamics_error
from jdp.evaluation.environments import make_env
from jdp.evaluation.goal_tasks import GoalEnv, Step, make_goal_env, protocol
from jdp.evaluation.likelihood import Likelihood, action_log_likelihood
from jdp.evaluation.rollout import Returns, evaluate, make_policy_step
from jdp.evaluation.scores import (
    Interval,
    bootstrap_interval,
    difference,
    interval,
    iqm,
    normalised_score,
    success_interval,
)
from jdp.evaluation.simulator import Simulator, supports

__all__ = [
    "DynamicsError",
    "GoalEnv",
    "Interval",
    "Latency",
    "Likelihood",
    "Played",
    "Returns",
    "Simulator",
    "Step",
    "action_log_likelihood",
    "bootstrap_interval",
    "difference",
    "dynamics_error",
    "evaluate",
    "interval",
    "iqm",
    "latency",
    "make_env",
    "make_goal_env",
    "make_policy_step",
    "normalised_score",
    "play",
    "protocol",
    "success_interval",
    "supports",
]
