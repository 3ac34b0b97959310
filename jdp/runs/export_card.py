"""What the card of an exported policy says of its run and its task."""

import gymnasium

from jdp.errors import UserError
from jdp.evaluation.goal_tasks import make_goal_env
from jdp.loops.journal import Record
from jdp.runs.load import LoadedRun
from jdp.types import Spec


def card_facts(run: LoadedRun, seed: int = 0, arm: str | None = None) -> Record:
    """The `facts` of `jdp.runs.export.export_policy` for one seed of a finished run.

    Args:
        arm: of a run of pgd_d4rl.py, whose agent it is.

    Raises:
        UserError: if the run is unfinished.
    """
    written, scores = run.written, run.finished_scores()
    found = scores.get("arms", {}).get(arm, scores)
    return {
        "method": run.name,
        "arm": arm,
        "task": run.spec.env_id,
        "make": gymnasium_arguments(run.spec),
        "env_spec": run.spec.env_spec,
        "dataset": written["dataset"],
        "sha256": written["sha256"],
        "seed": seed,
        "updates": scores.get("updates"),
        "score_name": scores.get("score_name"),
        "score": found["seeds"][seed] if "seeds" in found else None,
        "run": str(run.path),
        "command": written["command"],
        "commit": written["commit"],
    }


def gymnasium_arguments(spec: Spec) -> Record | None:
    """Arguments of `gymnasium.make` for the task, where it is installed here and its id says all of it."""
    if spec.env_spec is not None:
        return None
    try:
        env = make_goal_env(spec)
    except UserError:
        return None
    made = env.env.spec
    env.close()
    if made is None:
        return None
    package = str(made.entry_point).partition(".")[0]  # whose import makes the task known to Gymnasium
    name = made.id if package == "gymnasium" else f"{package}:{made.id}"
    registered = gymnasium.spec(made.id).kwargs
    changed = {k: v for k, v in made.kwargs.items() if registered.get(k) != v}
    return {"id": name, "max_episode_steps": made.max_episode_steps, **changed}
