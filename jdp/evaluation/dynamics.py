"""Dynamics error: generated transitions against the simulator they should obey."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from jdp.errors import UserError
from jdp.evaluation.simulator import Simulator

MINIMAL_STD = 1e-6  # below it an observed number is taken for a constant


class DynamicsError(NamedTuple):
    """Errors of generated transitions; entries that are not `valid` are NaN."""

    per_transition: np.ndarray  # [N, L - 1], squared error in units of the data's std, mean over O
    reward_error: np.ndarray  # [N, L - 1], squared error in units of the rewards' std
    terminal_mismatch: np.ndarray  # [N, L - 1], 1 where the simulator disagrees about the end, else 0
    median: float
    mean: float
    median_by_position: np.ndarray  # [L - 1]
    mean_by_position: np.ndarray  # [L - 1]
    reward_median: float
    reward_mean: float
    terminal_mismatch_rate: float
    transitions: int  # how many were counted


def dynamics_error(
    simulator: Simulator,
    observations: ArrayLike,
    actions: ArrayLike,
    rewards: ArrayLike,
    valid: ArrayLike,
    observation_std: ArrayLike,
    reward_std: float,
    *,
    terminals: ArrayLike | None = None,
) -> DynamicsError:
    """Steps the simulator from every generated state and compares what it says with what follows.

    The dynamics error of policy-guided diffusion (arXiv 2404.06356, section 5.2), standardised here by
    the data's own spread, so that a fast joint velocity does not outweigh every angle. Real float32
    data give about 1e-13; see `Simulator` for what an observation hides.

    Args:
        observations: `[N, L, O]`, in the units of the task; row t + 1 follows row t.
        actions: `[N, L, A]`; clipped to the action space, as in the task's own data collection.
        rewards: `[N, L]`.
        valid: `[N, L - 1]`, whether transition t of a trajectory counts; False after a terminal.
        observation_std: `[O]`, of the real data; 0 (a constant number) counts as 1.
        reward_std: of the real data.
        terminals: `[N, L]`, generated flags; above 0.5 says that step t ended the task. None compares
            no flags: the mismatch is NaN.

    A generated value that is not finite counts as an infinite error.
    """
    observations, actions = np.asarray(observations, np.float64), np.asarray(actions, np.float64)
    rewards, valid = np.asarray(rewards, np.float64), np.asarray(valid, bool)
    if valid.shape != (observations.shape[0], observations.shape[1] - 1):
        raise UserError(f"valid has shape {valid.shape}; {observations.shape[:2]} observations need one less")
    rows, times = np.nonzero(valid)
    true_next, true_reward, ended = simulator.steps(observations[rows, times], actions[rows, times])
    std = np.asarray(observation_std, np.float64)
    z = (observations[rows, times + 1] - true_next) / np.where(std > MINIMAL_STD, std, 1.0)
    error = np.mean(np.square(z), axis=-1)
    reward_error = np.square((rewards[rows, times] - true_reward) / reward_std)
    if terminals is None:
        mismatch = np.full(len(rows), np.nan)
    else:
        mismatch = ((np.asarray(terminals)[rows, times] > 0.5) != ended).astype(np.float64)

    def scatter(values: np.ndarray) -> np.ndarray:
        """`[N, L - 1]`; what is not finite among counted transitions is infinite."""
        out = np.full(valid.shape, np.nan)
        out[rows, times] = values
        return out

    error, reward_error = (np.nan_to_num(x, nan=np.inf, posinf=np.inf) for x in (error, reward_error))
    errors = scatter(error)
    return DynamicsError(
        per_transition=errors,
        reward_error=scatter(reward_error),
        terminal_mismatch=scatter(mismatch),
        median=_or_nan(np.median, error),
        mean=_or_nan(np.mean, error),
        median_by_position=_by_position(np.median, errors),
        mean_by_position=_by_position(np.mean, errors),
        reward_median=_or_nan(np.median, reward_error),
        reward_mean=_or_nan(np.mean, reward_error),
        terminal_mismatch_rate=_or_nan(np.mean, mismatch),
        transitions=len(rows),
    )


def _or_nan(statistic, values: np.ndarray) -> float:
    return float(statistic(values)) if values.size else float("nan")


def _by_position(statistic, values: np.ndarray) -> np.ndarray:
    """`statistic` of the entries of each column of `[N, L - 1]` that are not NaN."""
    return np.array([_or_nan(statistic, column[~np.isnan(column)]) for column in values.T])
