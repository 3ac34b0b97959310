"""Reinforcement learning that improves a trained diffusion policy, scored beside that policy.

    python experiments/finetune.py --method dppo
    python experiments/finetune.py --method dppo --policy results/policies/pointmaze-umaze/<run>

POLICY is a run of policies.py, a file of `export.py --weights`, or the name of a model that comes with jdp;
if none is given, a weak one for PointMaze's U-maze, which comes with jdp to be improved in minutes. What
two_levels improves is a run of `plan.py --planner hierarchical`. It is scored first, then improved in its own
task (or --env): in JAX where the task has such a version, else in Gymnasium's environments; diwa and world4rl
learn in a world model instead, which is trained first on the policy's own dataset (--world-model,
--ensemble.*). The method's settings are --settings.*, how much it acts is --settings.acting.*. Everything
goes to results/finetune/<task>/<run>/; a run that was cut goes on with --resume. Presets: smoke (a minute,
for the plumbing), cpu (minutes on two cores), paper (the paper's sizes).
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import dreaming
import jax
import jax.numpy as jnp
import tyro
from command_line import first_words, run_main
from dreaming import DreamOptions
from methods import Options, method_command
from models import train_world_model
from offline_rl import CurveConfig
from online_rl import (
    OnlineConfig,
    check_online,
    chosen,
    closing,
    evaluator,
    open_online,
    scored_before,
    where,
)
from opening import figures, trained_run

import jdp
from jdp import devices, evaluation, loops, plotting
from jdp.data import Episodes
from jdp.data.checks import check_same_task
from jdp.finetune.dream import Dream
from jdp.learning.acting import OnPolicyConfig
from jdp.loops.host import ChunkedEnvironment
from jdp.registry import Entry, Preset
from jdp.runs import Job, LoadedRun
from jdp.tasks import maze_of, simulators
from jdp.types import Json, Method, PyTree, Spec, Task

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Config(OnlineConfig, Generic[T]):
    """Improve a trained diffusion policy."""

    method: str = "dppo"
    """The algorithm."""
    policy: str
    """What is improved: a run directory, a file of weights, or the name of a model that comes with jdp."""
    policy_seed: int = 0
    """Which of the run's training seeds."""
    env: str = ""
    """The task, where it is not the one that the policy was trained for."""
    updates: int = 50
    """Each with its rollouts; of methods with a buffer, each after one decision in all environments."""
    settings: T
    """Of the method."""


@dataclass(frozen=True, kw_only=True)
class DreamingConfig(Config[T], DreamOptions):
    """Improve a trained diffusion policy in a learned world model."""


PRESETS: dict[str, Options] = {
    "smoke": {"evaluation": CurveConfig(episodes=2, every=1)},
    "cpu": {"evaluation": CurveConfig(episodes=100, every=10)},
    "paper": {"evaluation": CurveConfig(episodes=100, every=20)},
}
FRAMES = 60  # of a film
FILMED = 8  # episodes that are played for a film of one of them
# What is improved where nothing is said: a policy of 100 updates that comes with jdp, by its formulation.
WEAK = {"edm": "pointmaze-umaze-policy", "flow": "pointmaze-umaze-flow"}


def main() -> None:
    entry, config = command()
    compilations = devices.count_compilations()
    base = trained_run(config.policy)
    config, task, spec = where_it_acts(config, base.spec)
    check_online(config, spec)
    method = jdp.finetune.make(config.settings, spec, base=base.settings)
    check_same_task(str(base.path), base.spec, spec, "give the task it was trained for")
    state = base.state(config.policy_seed)
    execute = getattr(base.settings, entry.options.get("chunks", ""), 1)
    data = dreaming.dataset_of(config, base, execute) if isinstance(config, DreamingConfig) else None
    steps = loops.steps_of(config.settings.acting, config.updates) * execute
    rows = rows_of(base, method) if getattr(config.settings.acting, "offline_share", 0) else ()
    job = opened(config, entry, base, spec, data, where(task, steps, config.seeds))
    print(f"policy     {base.path}: {base.name}, trained on {base.written['dataset']}")
    before = score_before(job, base.method, state, task)
    inside = None if task is None else simulators.chunked(task, execute)
    inside = inside if data is None else dream(job, data, execute)
    states = trained(job, method, state, rows, task, execute, inside)
    job.journal.save("fine_tuner", config.updates, states)
    model = config.world_model if isinstance(config, DreamingConfig) else None
    film(job, base.method, method, state, states)
    closing(job, config.method, spec, steps, compilations, base=before, model=model)


def command() -> tuple[Entry, Config[Any]]:
    """The method and the whole command line."""
    said, where = __doc__ or "", preset_task()
    return method_command("fine_tuner", "dppo", Config, said, presets, "method", kind_of, where)


def preset_task() -> str:
    """The task that presets depend on: that of --env, else the policy's own."""
    said = first_words(policy=WEAK["edm"], env="")
    if said.env:
        return said.env
    try:
        return trained_run(said.policy).spec.env_id or ""
    except jdp.UserError:  # told when the policy is opened, after the other options
        return ""


def kind_of(entry: Entry) -> type[Config]:
    """The options of a method, which are more where it learns in a world model."""
    return DreamingConfig if "dreams" in entry.options else Config


def presets(entry: Entry, found: Mapping[str, Preset]) -> dict[str, Options]:
    """What presets say beside the method; to what dreams the user must give a policy."""
    if "dreams" in entry.options:
        own = {name: {**dreaming.options(entry, name), "policy": tyro.MISSING} for name in found}
    else:
        wanted = entry.options.get("base") or entry.options.get("formulation", "edm")
        weak = WEAK.get(wanted, tyro.MISSING)
        own = {name: {"policy": weak} for name in found}
    return {name: {**usual(name, preset), **own[name]} for name, preset in found.items()}


def usual(name: str, preset: Preset) -> Options:
    """Of any method; updates of those with a buffer are many small ones."""
    if isinstance(preset.settings.acting, OnPolicyConfig):
        return PRESETS[name]
    scored = PRESETS[name]["evaluation"]
    return {"evaluation": dataclasses.replace(scored, every=max(preset.updates // 5, 1))}  # type: ignore[type-var]


def where_it_acts(config: Config[Any], own: Spec) -> tuple[Config[Any], Task | None, Spec]:
    """`(config with its task, that task in JAX or None for the host's, its spec)`; `own` is the policy's."""
    given, config = config.env, dataclasses.replace(config, env=config.env or task_of(own))
    task = chosen(config.env, config.simulator)
    spec = evaluation.task_spec(config.env) if task is None else task.spec
    if not given and not spec.goal:  # scores are then on the scale of the policy's dataset
        spec = dataclasses.replace(spec, score_range=own.score_range)
    return config, task, spec


def opened(
    config: Config[Any], entry: Entry, base: LoadedRun, spec: Spec, data: Episodes | None, notes: str
) -> Job[Config[Any]]:
    """The run directory, which says what is improved, and on which dataset its world model is trained."""
    known = {"kind": base.kind, "method": base.name, "settings": dataclasses.asdict(base.settings)}  # type: ignore[call-overload]
    facts = {"base": {"command": base.command, "dataset": base.written["dataset"], **known}}
    if data is None:
        return open_online("finetune", config, spec, f"{entry.name} of {base.name} {notes}", facts, "film")
    facts |= {"world_model": {"dataset": data.origin.name, "sha256": data.origin.sha256}}
    notes = (
        f"{entry.name} of {base.name}; 0 environment steps to learn from, in a model of {data.origin.name}"
    )
    return open_online("finetune", config, spec, notes, facts, "film", "world_model")


def dream(job: Job[Any], data: Episodes, execute: int) -> Dream:
    """What is learned in: a world model, trained here."""
    model = train_world_model(job, job.keys["world_model"], data)
    return loops.dream_of(model, data, job.config.settings.dream, execute=execute)


def film(job: Job[Any], base: Method, method: Method, before: PyTree, after: PyTree) -> None:
    """In a maze before_and_after.gif: an episode of the first seed, one that it failed before and not now."""
    spec, episodes = job.data.spec, []
    maze = maze_of(spec) if spec.goal else None
    if maze is None:
        return
    for policy, state in ((base.policy, before), (method.policy, jax.tree.map(lambda x: x[0], after))):
        recorder = loops.Recorder(FILMED)
        played = loops.play(
            policy,
            job.keys["film"],
            state,
            evaluation.environment_maker(spec),
            episodes=FILMED,
            seed=job.config.seed + 1_000_000,
            watch=recorder,
            observations=True,
        )
        episodes.append(plotting.episodes(spec, played, recorder))
    better = (now.success and not then.success for then, now in zip(*episodes, strict=True))
    i = next((i for i, found in enumerate(better) if found), 0)
    titles = ("before", f"after {job.config.updates:,} updates of {job.config.method}")
    longest, films = max(len(found[i].path) for found in episodes), []
    for found, title in zip(episodes, titles, strict=True):  # in step, whichever ends first
        frames = max(2, FRAMES * len(found[i].path) // longest)
        films.append(plotting.film(maze, found[i], title=title, frames=frames))
    plotting.save_film(figures(job) / "before_and_after.gif", plotting.beside(*films))


def rows_of(base: LoadedRun, method: Method) -> PyTree:
    """The rows that `method` mixes in: of the dataset that the base policy was trained on."""
    data = dreaming.own_dataset(base, "leave --settings.acting.offline-share out")
    return jdp.data.prepared(method.learner.draws, data)


def task_of(spec: Spec) -> str:
    """The name of a policy's own task; D4RL's rules have names of their own."""
    if spec.env_id is None:
        raise jdp.UserError("the policy names no task: give one with --env")
    if evaluation.protocol(spec) == "maze2d":
        return f"maze2d-{spec.env_id.split('_')[1].split('-')[0].lower()}-v1"
    return spec.env_id


def score_before(job: Job[Config[Any]], base: Method, state: PyTree, task: Task | None) -> Json:
    """The scores of the base policy, on the episodes that the improved ones play."""
    many = jax.tree.map(lambda x: jnp.broadcast_to(x, (job.config.seeds, *jnp.shape(x))), state)
    return scored_before(job, evaluator(job, base, task, job.data.spec), many, job.data.spec)


def trained(
    job: Job[Config[Any]],
    method: Method,
    state: PyTree,
    rows: PyTree,
    task: Task | None,
    execute: int,
    inside: Task | Dream | None,
) -> PyTree:
    """What all seeds have learned from `state`, the base policy's, with `rows` of its dataset or ().

    They learn `inside` a task in JAX or a dream; None: in the host's task.
    """
    config, spec = job.config, job.data.spec
    acting = config.settings.acting
    options = {
        "key": job.keys["agents"],
        "updates": config.updates,
        "seeds": config.seeds,
        "rows": rows,
        "base": state,
        "chunk": 1 if isinstance(acting, OnPolicyConfig) else 50,
        "journal": job.journal,
        "evaluate": evaluator(job, method, task, spec),
        "evaluate_every": config.evaluation.every,
    }
    if inside is not None:
        return loops.train_online(method, inside, acting, mesh=job.mesh, **options)
    make, whole = evaluation.environment_maker(spec), spec.action_dim * execute
    return loops.train_online_host(
        method,
        lambda: ChunkedEnvironment(make(), execute),
        dataclasses.replace(spec, action_dim=whole),
        acting,
        seed=config.seed,
        **options,
    )


if __name__ == "__main__":
    run_main(main, spans_processes=True)
