"""What a set of synthetic experience is worth: the simulator's word, likelihood under a policy, terminals."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import numpy as np
from jax import Array

from jdp.data import (
    Episodes,
    Experience,
    Normaliser,
    experience,
    padded_rows,
    training_rows,
    windows,
)
from jdp.evaluation.dynamics import DynamicsError, dynamics_error
from jdp.evaluation.likelihood import action_log_likelihood
from jdp.evaluation.out_of_distribution import GaussianDensity, auroc_interval, gaussian_density
from jdp.evaluation.simulator import Simulator
from jdp.evaluation.statistics import interval
from jdp.types import Json, PyTree, Target

INFINITE = 1e30  # stands for an infinite error, which JSON does not know
FITTED, HELD_OUT = 8192, 512  # windows that a density is fitted to, and that it is tried on


class Judges(NamedTuple):
    """Who judges: S policies, each its own share of a set, and the simulator where the task has one."""

    target: Target
    states: PyTree  # of S policies, stacked [S, ...]
    normaliser: Normaliser
    simulator: Simulator | None


def error_of(made: Experience, judges: Judges) -> DynamicsError:
    """The dynamics error of a set `[N, T, ...]`, in units of the data's spread; needs a simulator."""
    assert judges.simulator is not None
    normaliser = judges.normaliser
    return dynamics_error(
        judges.simulator,
        made.observation,
        made.action,
        made.reward,
        made.valid[:, :-1],
        normaliser.std[: normaliser.observation_dim],
        float(normaliser.std[-2]),
        terminals=made.terminal,
    )


def judge(made: Experience, judges: Judges) -> tuple[Json, DynamicsError | None]:
    """What is known of a set `[N, T, ...]`, for JSON, and its dynamics error.

    Policy s judges the s-th share of the trajectories.
    """
    found: Json = {"trajectories": len(made.valid), "steps": int(made.valid.sum())}
    found["likelihood"] = likelihood_interval(made, judges.target, judges.states)
    if judges.simulator is None:
        return found, None
    error = error_of(made, judges)
    return found | {
        "dynamics_median": error.median,
        "dynamics_mean": error.mean,
        "dynamics_transitions": error.transitions,
        "dynamics_undetermined": error.undetermined,
        "dynamics_interval": median_interval(error.per_transition),
        "reward_median": error.reward_median,
        "terminal_mismatch": error.terminal_mismatch_rate,
        "by_position": error.median_by_position,
    }, error


def judge_sets(
    sets: Mapping[str, Experience], judges: Judges
) -> tuple[dict[str, Json], dict[str, np.ndarray]]:
    """`judge` of every set, and the errors of single transitions `[N, T - 1]` of those that have some."""
    judged = {kind: judge(made, judges) for kind, made in sets.items()}
    errors = {kind: error.per_transition for kind, (_, error) in judged.items() if error is not None}
    return {kind: found for kind, (found, _) in judged.items()}, errors


def likelihood_interval(made: Experience, target: Target, states: PyTree) -> list[float]:
    """(mean, low, high) of log N(a; mu(s), 1) over trajectories, each under its own seed's policy."""
    seeds, means = jax.tree.leaves(states)[0].shape[0], []
    for s, rows in enumerate(np.split(np.arange(len(made.valid)), seeds)):
        state = jax.tree.map(lambda leaf, s=s: leaf[s], states)
        observation, action, valid = made.observation[rows], made.action[rows], made.valid[rows]
        values = action_log_likelihood(target, state, observation, action, valid=valid).per_transition
        means.append(np.nanmean(values, axis=1)[valid.any(axis=1)])
    return list(interval(np.concatenate(means)))


def median_interval(errors: np.ndarray) -> list[float]:
    """95 % bootstrap interval of the median over trajectories (steps of one are not independent)."""
    rng = np.random.default_rng(0)
    rows = errors[~np.isnan(errors).all(axis=1)]
    draws = [np.nanmedian(rows[rng.integers(len(rows), size=len(rows))]) for _ in range(400)]
    return [float(q) for q in np.quantile(draws, (0.025, 0.975))]


def real_windows(data: Episodes, normaliser: Normaliser, count: int, horizon: int) -> Experience:
    """`[count, horizon, ...]`, windows of the dataset as if they were generated."""
    rows, _ = training_rows(data, normaliser)
    where = windows(data, horizon)
    chosen = np.random.default_rng(0).integers(len(where.starts), size=count)
    index = np.minimum(where.starts[chosen][:, None] + np.arange(horizon), where.last[chosen][:, None])
    return experience(rows[index], normaliser)


class Typical(NamedTuple):
    """A density of whole windows of most episodes, and what it says of those of the others."""

    density: GaussianDensity
    normaliser: Normaliser
    held_out: np.ndarray  # [M], bits per dimension of windows of episodes that it has not seen

    def judge(self, made: Experience) -> Json:
        """How well the density tells a set `[N, T, ...]` from held-out windows; {} if it has no whole one.

        `auroc` is .5 where it cannot, 1 where every trajectory of the set is less probable than every one of
        the data, and below .5 where they are more probable: too smooth, or too narrow. With percentile
        bootstrap intervals over windows. Those of one episode are alike, so they are somewhat too narrow.
        """
        whole = made.valid[:, :-1].all(axis=1)
        if not whole.any():
            return {}
        part = jax.tree.map(lambda leaf: leaf[whole], made)
        x = self.normaliser.encode(part.observation, part.action, part.reward, part.terminal)
        bits = self.density.bits(x[..., :-1])
        found = {"auroc": list(auroc_interval(self.held_out, bits)), "bits": list(interval(bits))}
        return found | {"windows": len(bits)}


def typical_windows(data: Episodes, normaliser: Normaliser, horizon: int) -> Typical | None:
    """The Gaussian of whole windows `[horizon, O + A + 1]` of four episodes in five, without their flags.

    It is an exact likelihood that knows all second moments of trajectories, and nothing else: it costs a
    second, depends on no model, and sees noise of a twentieth of the data's spread, seams, shuffled steps,
    and a lost spread. Finer errors of the dynamics it does not see: for that there is the dynamics error. A
    trained cascade (`jdp.learning.cascades`) knows more than moments, and costs minutes; of windows of the
    hopper's diffuser that comes with jdp the two say the same (docs/experts.md).

    None for a dataset of one episode with such windows, of which none could be held out.
    """
    rows, kinds = training_rows(data, normaliser)
    where, steps = windows(data, horizon), np.arange(horizon)
    ended = np.concatenate([[0], np.cumsum(kinds.terminal)])
    before_last = np.minimum(where.starts + horizon - 1, where.last)
    whole = ended[before_last] == ended[where.starts]  # only the last step may be the end
    starts, last, rng = where.starts[whole], where.last[whole], np.random.default_rng(0)
    episodes = np.unique(last)
    if len(episodes) < 2:
        return None
    out = np.isin(last, rng.choice(episodes, size=max(len(episodes) // 5, 1), replace=False))

    def drawn(among: np.ndarray, count: int) -> np.ndarray:
        chosen = rng.choice(np.flatnonzero(among), size=min(count, int(among.sum())), replace=False)
        return rows[starts[chosen][:, None] + steps][..., :-1]

    density = gaussian_density(drawn(~out, FITTED))
    return Typical(density, normaliser, density.bits(drawn(out, HELD_OUT)))


def terminal_counts(data: Episodes, sets: Mapping[str, Experience], horizon: int) -> dict[str, list[int]]:
    """[terminal transitions, transitions] of the data, the training windows and every set but "data"."""
    rows = padded_rows(data)
    where = windows(data, horizon)
    flags = np.concatenate([[0], np.cumsum(rows.terminal * ~rows.pad)])
    stop = np.minimum(where.starts + horizon, where.last + 1)
    steps = np.concatenate([[0], np.cumsum(~rows.pad)])
    terminal = (flags[stop] - flags[where.starts]).sum()
    counts = {
        "data": [int(data.terminals.sum()), len(data)],
        "windows": [int(terminal), int((steps[stop] - steps[where.starts]).sum())],
    }
    for kind, made in sets.items():
        if kind != "data":
            counts[kind] = [int(made.terminal[made.valid].sum()), int(made.valid.sum())]
    return counts


def real_stretches(key: Array, data: Episodes, count: int, length: int) -> Experience:
    """`[count, length + 1, ...]`: stretches of the dataset that end with their episode.

    They are what an exact model of the behaviour would make. The key is consumed.
    """
    rng = np.random.default_rng(np.asarray(jax.random.key_data(key)))
    rows = rng.integers(len(data), size=count)
    last = data.stops[np.searchsorted(data.stops, rows, side="right")] - 1
    wanted = rows[:, None] + np.arange(length + 1)
    index, inside = np.minimum(wanted, last[:, None]), wanted <= last[:, None]
    # After the last row stands what it led to: a step that ended the task has a successor too.
    after = wanted == last[:, None] + 1
    observations = np.where(after[..., None], data.next_observations[index], data.observations[index])
    terminal = (data.terminals[index] & inside).astype(np.float32)
    return Experience(
        observations, data.actions[index], data.rewards[index], terminal, inside & data.next_valid[index]
    )


def judge_ranges(made: Experience, judges: Judges, spans: Sequence[tuple[int, int]]) -> Json:
    """What is known of rollouts `[N, T, ...]` of one policy, by ranges of transitions, counted from 1.

    Of every range the median error and the mean likelihood of the actions, both of steps that count, and the
    share of rollouts that are still alive at its end.
    """
    state, error = jax.tree.map(lambda x: x[0], judges.states), error_of(made, judges)
    likelihood = action_log_likelihood(
        judges.target, state, made.observation, made.action, valid=made.valid
    ).per_transition[:, :-1]
    ranges = {}
    for low, high in spans:
        part = slice(low - 1, high)
        errors = error.per_transition[:, part]
        if not np.isnan(errors).all():
            ranges[f"{low}-{high}"] = {
                "error": min(float(np.nanmedian(errors)), INFINITE),
                "likelihood": float(np.nanmean(likelihood[:, part])),
                "alive": float(made.valid[:, high - 1].mean()),
            }
    return {
        "ranges": ranges,
        "counted": error.transitions / max(int(made.valid[:, :-1].sum()), 1),
        "median_by_position": np.minimum(error.median_by_position, INFINITE),
        "mean": error.mean,
        "reward_median": error.reward_median,
        "terminal_mismatch": error.terminal_mismatch_rate,
        "transitions": error.transitions,
    }


def geometric_interval(values: Sequence[float]) -> list[float]:
    """(geometric mean, low, high): Student's t interval of the logarithms."""
    return [float(np.exp(v)) for v in interval(np.log(np.asarray(values)))]
