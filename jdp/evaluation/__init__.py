"""Policies in the simulator, generated data against it, and statistics over seeds."""

from jdp.evaluation.agreement import Spread, outside, spreads
from jdp.evaluation.dynamics import DynamicsError, dynamics_error
from jdp.evaluation.goal_tasks import (
    GoalEnv,
    Step,
    environment_maker,
    make_goal_env,
    protocol,
    task_spec,
)
from jdp.evaluation.likelihood import Likelihood, action_log_likelihood
from jdp.evaluation.published import Published, published
from jdp.evaluation.real_time import scores_at_rates
from jdp.evaluation.scores import normalised_score
from jdp.evaluation.seen_goals import SeesGoal, seeing_goals
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
    share_interval,
    success_interval,
)
from jdp.evaluation.summary import (
    behaviour_score,
    describe,
    is_success,
    last_scores,
    learning_curve,
    score_name,
    scores_of,
    seed_scores,
    summary_of_seeds,
    with_interval,
)
from jdp.evaluation.task_check import check_task
from jdp.evaluation.weight_search import WeightSearch, pairs, search_weights
from jdp.tasks.environments import make_env

__all__ = [
    "Band",
    "DynamicsError",
    "GoalEnv",
    "Interval",
    "Likelihood",
    "Published",
    "SeesGoal",
    "Simulator",
    "Spread",
    "Step",
    "WeightSearch",
    "action_log_likelihood",
    "barnard",
    "behaviour_score",
    "bootstrap_interval",
    "check_task",
    "describe",
    "difference",
    "dynamics_error",
    "environment_maker",
    "interval",
    "iqm",
    "is_success",
    "last_scores",
    "learning_curve",
    "make_env",
    "make_goal_env",
    "normalised_score",
    "outside",
    "pairs",
    "performance_profile",
    "probability_of_improvement",
    "protocol",
    "published",
    "score_by_evaluations",
    "score_name",
    "scores_at_rates",
    "scores_of",
    "search_weights",
    "seed_scores",
    "seeing_goals",
    "share_interval",
    "spreads",
    "success_interval",
    "summary_of_seeds",
    "supports",
    "task_spec",
    "with_interval",
]
