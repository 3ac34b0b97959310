"""Returns on a scale from 0 to 100."""

import numpy as np
from numpy.typing import ArrayLike


def normalised_score(returns: ArrayLike, score_range: tuple[float, float]) -> np.ndarray:
    """`100 (r - low) / (high - low)`, of the shape of `returns`: 0 is `low`, 100 is `high`.

    The convention of D4RL (arXiv 2004.07219, section 5). `score_range` belongs to the dataset's
    source: scores under another source's range are not comparable.
    """
    low, high = score_range
    return 100.0 * (np.asarray(returns, np.float64) - low) / (high - low)
