"""Scores of returns, and what the records of a run say of its last checkpoint."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from jdp.data import Episodes, left_out_notice
from jdp.evaluation.goal_tasks import protocol
from jdp.evaluation.scores import normalised_score
from jdp.evaluation.statistics import interval, success_interval
from jdp.tasks.families import is_single_task
from jdp.types import Json, Logged, Spec

Records = Sequence[Logged]


def scores_of(returns: ArrayLike, spec: Spec) -> np.ndarray:
    """Normalised scores of returns; the returns themselves where the task has no reference scores."""
    returns = np.asarray(returns, np.float64)
    return returns if spec.score_range is None else normalised_score(returns, spec.score_range)


def is_success(spec: Spec) -> bool:
    """Whether the score is the share of successes: tasks with goals, and OGBench's, that have no scale."""
    return (bool(spec.goal) or is_single_task(spec.env_id)) and spec.score_range is None


def score_name(spec: Spec) -> str:
    """What scores are: "success %", "normalised score" or "return"."""
    if is_success(spec):
        return "success %"
    return "return" if spec.score_range is None else "normalised score"


def seed_scores(record: Logged, spec: Spec) -> np.ndarray:
    """`[S]`, the mean score of each seed in a record of `returns` and `success` `[S, n]`."""
    if is_success(spec):
        return 100.0 * np.asarray(record["success"], np.float64).mean(axis=1)
    return scores_of(record["returns"], spec).mean(axis=1)


def behaviour_score(data: Episodes) -> float | None:
    """The mean score of the dataset's own episodes.

    None where they are not played to the rules of scores: to goals of their own, or as one walk (maze2d).
    """
    if is_success(data.spec) or protocol(data.spec) is not None:
        return None
    return float(scores_of(data.returns, data.spec).mean())


def describe(data: Episodes, windows: int = 1) -> list[str]:
    """What a dataset is, in lines: its name, file, size and mean return, and what is to be known of it.

    Args:
        windows: steps of what is trained on; rows that lie in none are told.
    """
    origin, mean, score = data.origin, data.returns.mean(), behaviour_score(data)
    scored = "" if score is None else f" ({score_name(data.spec)} {score:.1f})"
    lines = [
        origin.name,
        f"{origin.path} ({origin.size / 1e6:.1f} MB, SHA-256 {origin.sha256[:16]}...)",
        origin.notice,
        f"{len(data):,} transitions, {len(data.starts):,} episodes, mean return {mean:.0f}{scored}",
        left_out_notice(data, windows),
    ]
    return [line for line in lines if line]


def last_scores(records: Records, spec: Spec, updates: int) -> Json:
    """Every return of every seed's last checkpoint, the scores and their interval over seeds.

    `records` are those of a phase "<phase>/evaluation" (`jdp.loops.play_together`).
    """
    record = [r for r in records if r["step"] == updates][-1]
    scores = seed_scores(record, spec)
    found = {"returns": record["returns"], "seeds": list(scores), "interval": list(interval(scores))}
    if is_success(spec):
        success = np.array(record["success"], bool)
        found |= {"success": record["success"], "interval": list(success_interval(success))}
    return found


def learning_curve(records: Records, spec: Spec) -> tuple[list[int], np.ndarray]:
    """Updates `[n]` and scores `[n, S]` of all evaluations in `records`, as `last_scores` takes them."""
    scores = [seed_scores(record, spec) for record in records]
    return [record["step"] for record in records], np.stack(scores)


def summary_of_seeds(records: Records, spec: Spec) -> Json:
    """What the records of `jdp.loops.play_in_turn`, one a seed, say: scores, interval, latency if timed."""
    returns = np.array([r["returns"] for r in records])
    success = np.array([r["success"] for r in records], bool)
    scores = seed_scores({"returns": returns, "success": success}, spec)
    found = success_interval(success) if is_success(spec) else interval(scores)
    timed = [r["latency"] for r in records if "latency" in r]
    took = {name: float(np.median([found[name] for found in timed])) for name in (timed[0] if timed else ())}
    return {
        "returns": returns.tolist(),
        "success": success.astype(int).tolist(),
        "lengths": [r["lengths"] for r in records],
        "seeds": [float(s) for s in scores],
        "interval": list(found),
        "latency": took,
        "play_seconds": sum(r["seconds"] for r in records),
        **_filters([r["filter"] for r in records if "filter" in r]),
    }


def _filters(found: Records) -> Json:
    """`filter`, over all seeds (`jdp.loops.recorder.Recorder.told`); nothing where there was none."""
    if not found:
        return {}
    steps = sum(f["steps"] for f in found)
    shares = {name: sum(f[name] * f["steps"] for f in found) / steps for name in ("changed", "broken")}
    return {"filter": {"steps": steps, **shares, "worst": max(f["worst"] for f in found)}}


def with_interval(score: float | None, low: float | None, high: float | None, digits: int = 1) -> str:
    """ "mean [low, high]", without bounds where there are none; "" where there is no score."""
    if score is None or not np.isfinite(score):
        return ""
    if low is None or high is None or not np.isfinite([low, high]).all():
        return f"{score:.{digits}f}"
    return f"{score:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"
