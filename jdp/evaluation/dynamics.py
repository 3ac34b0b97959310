"""Dynamics error: generated transitions against the simulator they should obey."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from jdp.data.normalise import unit_of
from jdp.errors import UserError
from jdp.evaluation.simulator import Simulator

MINIMAL_STD = 1e-6  # of what is 1 in the data: below it an observed number is taken for a constant


class DynamicsError(NamedTuple):
    """Errors of generated transitions; entries that do not count are NaN."""

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
    undetermined: int  # how many `valid` ones were left out: their state is not shown whole


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
        valid: `[N, L - 1]`, whether transition t of a trajectory counts; False after a terminal. Those from a
            state with a clipped velocity (`Simulator.determined`) never do: what follows it cannot be told.
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
    # What is not finite is no clipped velocity: it counts, as an infinite error.
    finite = np.isfinite(observations[:, :-1]).all(axis=-1)
    hidden = valid & finite & ~simulator.determined(observations[:, :-1])
    valid = valid & ~hidden
    rows, times = np.nonzero(valid)
    true_next, true_reward, ended = simulator.steps(observations[rows, times], actions[rows, times])
    std = np.asarray(observation_std, np.float64)
    z = (observations[rows, times + 1] - true_next) / np.where(std > MINIMAL_STD * unit_of(std), std, 1.0)
    error = np.mean(np.square(z), axis=-1)
    reward_error = np.square((rewards[rows, times] - true_reward) / reward_std)
    mismatch = np.full(len(rows), np.nan)
    if terminals is not None:
        mismatch = ((np.asarray(terminals)[rows, times] > 0.5) != ended).astype(np.float64)
    error, reward_error = (np.nan_to_num(x, nan=np.inf, posinf=np.inf) for x in (error, reward_error))
    return _summary((error, reward_error, mismatch), (rows, times), valid.shape, int(hidden.sum()))


def _summary(
    found: tuple[np.ndarray, np.ndarray, np.ndarray],
    at: tuple[np.ndarray, np.ndarray],
    shape: tuple[int, ...],
    undetermined: int,
) -> DynamicsError:
    """Of the errors of states, of rewards and of ends, of the transitions `at` of `shape` `[N, L - 1]`."""

    def scatter(values: np.ndarray) -> np.ndarray:
        out = np.full(shape, np.nan)
        out[at] = values
        return out

    error, reward_error, mismatch = found
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
        transitions=len(error),
        undetermined=undetermined,
    )


def _or_nan(statistic, values: np.ndarray) -> float:
    return float(statistic(values)) if values.size else float("nan")


def _by_position(statistic, values: np.ndarray) -> np.ndarray:
    """`statistic` of the entries of each column of `[N, L - 1]` that are not NaN."""
    return np.array([_or_nan(statistic, column[~np.isnan(column)]) for column in values.T])
