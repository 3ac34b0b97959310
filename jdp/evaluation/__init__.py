"""Policies in the simulator, generated data against it, and statistics over seeds."""

from jdp.evaluation.closed_loop import Latency, Played, latency, play
from jdp.evaluation.dynamics import DynamicsError, dynamics_error
from jdp.evaluation.environments import make_env
from jdp.evaluation.goal_tasks import GoalEnv, Step, make_goal_env, protocol
from jdp.evaluation.likelihood import Likelihood, action_log_likelihood
from jdp.evaluation.published import Published, published
from jdp.evaluation.rollout import Returns, evaluate, make_policy_step
from jdp.evaluation.scores import normalised_score
from jdp.evaluation.simulator import Simulator, supports
from jdp.evaluation.statistics import (
    Band,
    Interval,
    barnard,
    bootstrap_interval,
    difference,
    interval,
    iqm,
    performance_profile,
    probability_of_improvement,
    score_by_evaluations,
    success_interval,
)

__all__ = [
    "Band",
    "DynamicsError",
    "GoalEnv",
    "Interval",
    "Latency",
    "Likelihood",
    "Played",
    "Published",
    "Returns",
    "Simulator",
    "Step",
    "action_log_likelihood",
    "barnard",
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
    "performance_profile",
    "play",
    "probability_of_improvement",
    "protocol",
    "published",
    "score_by_evaluations",
    "success_interval",
    "supports",
]
