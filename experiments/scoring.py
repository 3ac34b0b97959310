"""Scores of returns, as the training scripts print and keep them."""

from typing import Any

import numpy as np

from jdp.evaluation import normalised_score


def score_name(spec: Any) -> str:
    return "return" if spec.score_range is None else "normalised score"


def scores_of(returns: Any, spec: Any) -> np.ndarray:
    """Normalised scores of returns; the returns themselves where the task has no reference scores."""
    returns = np.asarray(returns, np.float64)
    return returns if spec.score_range is None else normalised_score(returns, spec.score_range)


def behaviour(data: Any) -> float:
    """The mean score of the dataset's own episodes."""
    return float(scores_of(data.returns, data.spec).mean())


def with_interval(values: Any, digits: int = 1) -> str:
    """`mean [low, high]`, without bounds where there are none."""
    mean, low, high = (float("nan") if v is None else v for v in values)
    if not np.isfinite([low, high]).all():
        return f"{mean:.{digits}f}"
    return f"{mean:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"
