"""Two runs compared.

from jdp.runs.frame import read_runs
runs = read_runs("results")
print(compare(find_run("20260131-120000-0123abcd", runs), find_run("20260131-130000-4567cdef", runs)))
"""

import difflib
from pathlib import Path

import numpy as np
import pandas as pd

from jdp.errors import UserError
from jdp.evaluation import Interval, barnard, bootstrap_interval, difference
from jdp.evaluation.statistics import mean
from jdp.evaluation.summary import with_interval
from jdp.runs.cells import episode_scores, is_success_row
from jdp.runs.frame import read_runs


def find_run(name: str, runs: pd.DataFrame) -> pd.Series:
    """The finished run `name` of `runs` (`read_runs`): a directory, its name, or NAME~arm.

    Raises:
        UserError: if there is none, or several.
    """
    runs = runs[runs.scores.notna()]
    path, _, arm = name.partition("~")
    places = map(Path, runs.path)
    here = np.array([p.name == path or p.resolve() == Path(path).resolve() for p in places], bool)
    found = runs[here & (runs.arm.fillna("") == arm if arm else True)]
    if found.empty and (Path(path) / "scores.json").exists():
        return find_run(Path(path).name + name[len(path) :], read_runs(Path(path).parents[2]))
    known = [run.rpartition("/")[2] for run in (runs if found.empty else found).id]
    if len(found) != 1:
        near = (difflib.get_close_matches(name, known, n=1) or known[-3:]) if found.empty else list(found.id)
        hint = f"there is {', '.join(near)}" if near else "there is none; experiments/plan.py makes one"
        raise UserError(f"{'no' if found.empty else 'more than one'} finished run {name}: {hint}")
    return found.iloc[0]


def compare(a: pd.Series, b: pd.Series) -> str:
    """What two runs say about the difference between their methods; a few lines of text."""
    names = [run.id.rpartition("/")[2] for run in (a, b)]
    if a.id == b.id and Path(a.path).resolve() == Path(b.path).resolve():
        raise UserError(f"{names[0]} was named twice: name two runs")
    if smoke := [name for name, run in zip(names, (a, b), strict=True) if run.preset == "smoke"]:
        raise UserError(f"{smoke[0]} is of the smoke preset, which makes no results: name a cpu or paper run")
    check_same_data(pd.DataFrame([a, b]))
    lines = [
        f"{which} {name}: {run.method}, {run.score_name} {with_interval(run.score, run.low, run.high)} "
        f"(seeds {' '.join(f'{s:.1f}' for s in run.scores)})"
        for which, name, run in zip("AB", names, (a, b), strict=True)
    ]
    seeds = f"Welch's t over {len(a.scores)} and {len(b.scores)} seeds"
    lines.append(f"A - B: {_verdict(difference(a.scores, b.scores))} ({seeds})")
    if is_success_row(a):
        p = barnard(a.success, b.success)
        lines.append(f"A and B succeed equally often: p = {p:.2g} (Barnard's exact test over all episodes)")
    if a.episodes == b.episodes:
        scores = np.concatenate([episode_scores(a), episode_scores(b)]).T  # [episodes, seeds of both]
        count = len(a.scores)
        # Every seed might have played other episodes; the seeds stay.
        found = bootstrap_interval(scores, statistic=lambda s: mean(s[:count]) - mean(s[count:]))
        lines.append(
            f"A - B: {_verdict(found)} (bootstrap over {a.episodes} episodes within each of these seeds)"
        )
    else:
        lines.append("no bootstrap over episodes: the runs have different numbers of them")
    return "\n".join(lines)


def _verdict(found: Interval) -> str:
    if not np.isfinite([found.low, found.high]).all():
        return f"{found.estimate:.1f}, no interval: each run needs two values or more"
    zero = "includes 0" if found.low <= 0 <= found.high else "does not include 0"
    return f"{with_interval(*found)}, {found.high - found.low:.1f} wide, {zero}"


def check_same_data(runs: pd.DataFrame) -> None:
    """Raises `UserError` unless all `runs` are on the same data and task: other scores do not compare."""
    data = sorted({(str(r.dataset), str(r.task), str(r.sha256)[:16]) for r in runs.itertuples()})
    if len(data) > 1:
        raise UserError(f"runs on different data ({data}): choose one with --env, or use an --out for each")
