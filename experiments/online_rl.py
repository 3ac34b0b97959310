"""Online RL: an agent learns while it acts, in a task in JAX or in Gymnasium's environments.

    python experiments/online_rl.py --agent sac --env Pendulum-v1
    python experiments/online_rl.py --agent ppo --env PointMaze_UMaze-v3 --updates 300
    python experiments/online_rl.py --agent sac --env Hopper-v5 --settings.acting.warm-up 5000
    python experiments/online_rl.py --agent mbdpo --env Pendulum-v1
    python experiments/online_rl.py --agent td3 --env Hopper-v5 --policy results/offline_rl/hopper-medium/RUN
    python experiments/online_rl.py --agent sac --env Hopper-v5 --dataset hopper-medium \
        --settings.acting.offline-share .5

Tasks with a JAX version (PointMaze, maze2d, Pendulum, a double integrator) run inside the compiled program,
all seeds at once; others on the host. mppi and mbdpo plan in that version. With --policy an agent of
offline_rl.py is scored and goes on, each seed from its own; with --dataset rows of a dataset are in every
minibatch (RLPD). The agent's own settings are --settings.*, how much it acts is --settings.acting.*.
Everything goes to results/online_rl/<task>/<run>/; a run that was cut goes on with --resume. Presets: smoke
(a minute, for the plumbing), cpu (minutes on two cores), paper (the papers' steps).
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any, Generic, Literal, TypeVar

import jax
import numpy as np
from command_line import given, run_main
from methods import Options, method_command
from offline_rl import CurveConfig
from opening import finish, heading, minutes, open_job, save_figure, score_line, trained_run
from options import DatasetOptions, TrainingOptions, check_positive

import jdp
from jdp import devices, evaluation, loops, plotting, registry
from jdp.data.checks import check_same_task
from jdp.data.sources import Source
from jdp.errors import check_seed
from jdp.evaluation import score_name, seed_scores
from jdp.loops.rounds import Evaluate
from jdp.online.continued import continued
from jdp.runs import Job, load_dataset
from jdp.runs.continued import learned_offline
from jdp.runs.models import stand_in
from jdp.tasks import simulators
from jdp.types import Json, Logged, Method, Policy, PyTree, Spec, Task

T = TypeVar("T")
NOT_IN_HASH = ("out", "resume", "checkpoint_minutes", "log")


@dataclass(frozen=True, kw_only=True)
class OnlineConfig(TrainingOptions):
    """What scripts ask for that learn while they act."""

    env: str = "Pendulum-v1"
    """The task: one with a JAX version, or any of Gymnasium's with vectors and a time limit."""
    simulator: Literal["auto", "jax", "host"] = "auto"
    """Where the task runs; auto: in JAX where it can (MuJoCo's bodies on accelerators alone)."""
    updates: int = 10_000
    """Of methods with a buffer one for each step of all environments, of others one for each rollout."""
    evaluation: CurveConfig = field(default_factory=CurveConfig)


@dataclass(frozen=True, kw_only=True)
class Config(OnlineConfig, Generic[T]):
    """Train an agent online and score its last checkpoint."""

    agent: str = "sac"
    """The algorithm."""
    policy: str | None = None
    """A run of offline_rl.py, or a file of its weights, whose agent goes on: sac from sac_n, edac, cql and
    their kin, td3 from td3_bc."""
    dataset: str | None = None
    """A dataset, as --env of offline_rl.py names it, of which --settings.acting.offline-share of every
    minibatch is taken (RLPD: .5)."""
    source: Source = "auto"
    """Where the dataset is looked for."""
    settings: T
    """Of the agent."""


O = TypeVar("O", bound=OnlineConfig)  # noqa: E741


PRESETS: dict[str, Options] = {
    "smoke": {"evaluation": CurveConfig(episodes=2, every=100)},
    "cpu": {"evaluation": CurveConfig(episodes=20, every=5_000)},
    "paper": {"evaluation": CurveConfig(episodes=20, every=50_000)},
}


def main() -> None:
    entry, config = method_command("online", "sac", Config, __doc__ or "", lambda *_: PRESETS, "agent")
    compilations = devices.count_compilations()
    task = chosen(config.env, config.simulator)
    scored = evaluation.task_spec(config.env) if task is None else task.spec
    check_online(config, scored)
    seen = None if task is None else simulators.observed_goal(task)
    spec = scored if seen is None else seen.spec
    if spec.goal:
        raise jdp.UserError(f"{config.env} has goals, of which agents are told in JAX tasks alone")
    known = (
        simulators.observed_goal(simulators.simulator(config.env)) if registry.takes(entry, "task") else None
    )
    base = None if config.policy is None else trained_run(config.policy)
    if base is not None:
        config = replace(config, settings=continued(config.settings, base.settings, given("settings")))
    method = jdp.online.make(config.settings, spec, task=known)
    begun = () if base is None else learned_offline(base, method, spec, config.seeds)
    rows, facts = offline_rows(config, method, spec)
    facts |= {} if scored == spec else {"task_spec": asdict(scored)}
    facts |= {} if base is None else {"base": {"command": base.command, "dataset": base.written["dataset"]}}
    steps = loops.steps_of(config.settings.acting, config.updates)
    notes = f"agent {entry.name} {where(seen, steps, config.seeds)}"
    job = open_online("online_rl", config, spec, notes, facts)
    evaluate, before = evaluator(job, method, seen, scored), None
    if base is not None:
        print(f"policy     {base.path}: {base.name}, trained on {base.written['dataset']}")
        before = scored_before(job, evaluate, begun, scored)
    states = trained(job, method, seen, evaluate, rows, begun)
    job.journal.save("agent", config.updates, states)  # what load_run finds: the method without environments
    closing(job, config.agent, scored, steps, compilations, base=before)


def offline_rows(config: Config[Any], method: Method, spec: Spec) -> tuple[PyTree, Json]:
    """The rows of --dataset, as `method` draws them, and what is told of them; () without.

    Raises:
        UserError: if share and dataset do not go together, or it is of another task.
    """
    share = getattr(config.settings.acting, "offline_share", None)
    if config.dataset is None:
        if share:
            raise jdp.UserError(f"--settings.acting.offline-share {share}: give the --dataset that it is of")
        return (), {}
    if not share:
        why = "keeps no buffer" if share is None else "takes none of it: give --settings.acting.offline-share"
        raise jdp.UserError(f"--dataset {config.dataset}: agent {config.agent} {why}")
    data = load_dataset(lambda: DatasetOptions(env=config.dataset or "", source=config.source).load())
    check_same_task(data.origin.name, data.spec, spec)
    print("dataset    " + "\n           ".join(evaluation.describe(data)))
    facts = {"offline": {"name": data.origin.name, "sha256": data.origin.sha256}}
    return jdp.data.prepared(method.learner.draws, data), facts


def scored_before(job: Job[O], evaluate: Evaluate, states: PyTree, spec: Spec) -> Json:
    """The scores of what `states` `[S, ...]` do before they learn, on the episodes of all evaluations."""
    if not job.journal.records("base/evaluation"):
        job.journal.log("base/evaluation", 0, evaluate(0, states))
    return evaluation.last_scores(job.journal.records("base/evaluation"), spec, 0)


def chosen(env_id: str, simulator: str) -> Task | None:
    """The task in JAX, or None for the host's."""
    known = env_id in simulators.names()
    large = env_id in simulators.BODIES and jax.default_backend() == "cpu"
    if simulator == "host" or (simulator == "auto" and (not known or large)):
        return None
    return simulators.simulator(env_id)


def check_online(config: OnlineConfig, spec: Spec) -> None:
    """Raises `UserError` for counts below 1, a seed out of range, or a task that cannot be scored."""
    check_seed(config.seed, "--seed")
    counts = {"updates": config.updates, "seeds": config.seeds, "evaluation.every": config.evaluation.every}
    check_positive({f"--{name}": value for name, value in counts.items()})
    check_positive({"--evaluation.episodes": config.evaluation.episodes})
    if spec.max_episode_steps is None:
        raise jdp.UserError(f"{spec.env_id} has no time limit, so it cannot be scored")


def where(task: Task | None, steps: int, seeds: int) -> str:
    """Where a method learns, and for how long."""
    return f"in {'Gymnasium' if task is None else 'JAX'}, {steps:,} steps a seed, {seeds} seeds at once"


def open_online(
    experiment: str, config: O, spec: Spec, notes: str, facts: Json | None = None, *keys: str
) -> Job[O]:
    """`open_job` of a run without a dataset of its own; `keys` are uses beside "agents"."""
    data, keys = stand_in(spec, name=f"{spec.env_id} (online)", kind="none"), ("agents", *keys)
    return open_job(experiment, config, data, notes, keys, not_in_hash=NOT_IN_HASH, facts=facts)


def trained(
    job: Job[Config[Any]],
    method: Method,
    task: Task | None,
    evaluate: Evaluate,
    rows: PyTree = (),
    begun: PyTree = (),
) -> PyTree:
    """What all seeds have learned, from `begun` if it is given, with `rows` of a dataset."""
    config = job.config
    options = {
        "key": job.keys["agents"],
        "updates": config.updates,
        "seeds": config.seeds,
        "rows": rows,
        "begun": begun,
        "journal": job.journal,
        "evaluate": evaluate,
        "evaluate_every": config.evaluation.every,
    }
    if task is not None:
        return loops.train_online(method, task, config.settings.acting, mesh=job.mesh, **options)
    spec, make = job.data.spec, evaluation.environment_maker(job.data.spec)
    return loops.train_online_host(method, make, spec, config.settings.acting, seed=config.seed, **options)


def evaluator(job: Job[OnlineConfig], method: Method, task: Task | None, spec: Spec) -> Evaluate:
    """Scores of all seeds, always on the same episodes; `spec` says what scores are."""
    play = player(job, method.policy, task)

    def evaluate(step: int, states: PyTree) -> Logged:
        record = play(states)
        shown = ", ".join(f"{s:.1f}" for s in seed_scores(record, spec))
        print(f"{score_name(spec)} after {step:,} updates: {shown} (one a seed)")
        return record

    return evaluate


def player(job: Job[OnlineConfig], policy: Policy, task: Task | None) -> Callable[[PyTree], Json]:
    """The record of the episodes that are always the same, of states `[S, ...]` of `policy`."""
    config, make = job.config, evaluation.environment_maker(job.data.spec)
    shared = {"key": jax.random.key(config.seed), "seeds": config.seeds}
    shared |= {"episodes": config.evaluation.episodes}
    if task is not None:
        return partial(loops.score_together, policy, task=task, **shared)
    return partial(
        loops.play_together, policy, make=make, seed=config.seed + 1_000_000, journal=job.journal, **shared
    )


def closing(
    job: Job[OnlineConfig],
    name: str,
    spec: Spec,
    steps: int,
    compilations: devices.Compilations,
    base: Json | None = None,
    model: str | None = None,
) -> None:
    """`scores.json`, `report.txt` and the learning curve.

    Args:
        steps: of the task, for each seed; of its dreams, where it learned in the world model `model` alone.
        base: the scores of what was improved.
    """
    config, measure = job.config, evaluation.score_name(spec)
    records = job.journal.records("online/evaluation")
    score = evaluation.last_scores(records, spec, config.updates)
    over = "Clopper-Pearson over the episodes of all" if evaluation.is_success(spec) else "Student's t over"
    spent = minutes(job, *([] if model is None else [model]), "online")
    pace = steps * config.seeds / max(60 * spent["online"], 1e-9)
    where = "the task" if model is None else f"dreams in the {model}, 0 environment steps to learn from,"
    before = [] if base is None else [f"before: {score_line(measure, base)}"]
    lines = [
        heading(job, name),
        "",
        *before,
        score_line(measure, score),
        f"interval: {over} {config.seeds} seeds",
        f"{steps:,} steps of {where} a seed, {pace:,.0f} steps/s of all seeds with their updates",
    ]
    curve = {name: evaluation.learning_curve(records, spec)}
    start = None if base is None else float(np.mean(base["seeds"]))
    save_figure(
        job, "learning_curve", plotting.curves(None, curve, behaviour=start, title=config.env, score=measure)
    )
    acted = {"steps": steps} if model is None else {"steps": 0, "dreamt_steps": steps}
    scores = {"method": name, "score_name": measure, **acted, **score}
    scores |= {} if base is None else {"base": base}
    finish(job, lines, scores, spent, compilations)


if __name__ == "__main__":
    run_main(main, spans_processes=True)
