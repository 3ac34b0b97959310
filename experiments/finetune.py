"""Reinforcement learning that improves a trained diffusion policy, scored beside that policy.

    python experiments/finetune.py --method dppo --policy results/policies/pointmaze-umaze/<run>

POLICY is a run of policies.py, a file of `export.py --weights`, or the name of a model that comes with jdp.
It is scored first, then improved in its own task (or --env): in JAX where the task has such a version, else
in Gymnasium's environments; diwa and world4rl learn in a world model instead, which is trained first on the
policy's own dataset (--world-model, --ensemble.*). The method's settings are --settings.*, how much it acts
is --settings.acting.*. Everything goes to results/finetune/<task>/<run>/; a run that was cut goes on with
--resume. Presets: smoke (a minute, for the plumbing), cpu (minutes on two cores), paper (the paper's sizes).
"""

import dataclasses
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import dreaming
import jax
import jax.numpy as jnp
from command_line import arguments, first_words, run_main
from dreaming import DreamOptions
from methods import Options, method_command
from models import train_world_model
from offline_rl import CurveConfig
from online_rl import OnlineConfig, check_online, chosen, closing, evaluator, open_online, where
from opening import trained_run

import jdp
from jdp import devices, evaluation, loops, registry
from jdp.data import Episodes
from jdp.finetune.dream import Dream
from jdp.loops.host import ChunkedEnvironment
from jdp.registry import Entry
from jdp.runs import Job, LoadedRun
from jdp.tasks import simulators
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
    """Each with its rollouts."""
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


def main() -> None:
    first = first_words(policy=None, method="dppo", plugin=())
    if first.policy is None and not {"-h", "--help"} & set(arguments()):
        raise jdp.UserError("--policy: give a run of policies.py, a file of weights, or the name of a model")
    for plugin in first.plugin:
        registry.load_plugin(plugin)
    asked = registry.entry("fine_tuner", first.method)
    dreams = "dreams" in asked.options
    rest = {name: {**options, "policy": first.policy or "RUN"} for name, options in PRESETS.items()}
    if dreams:
        rest = {name: dreaming.options(asked, name) | options for name, options in rest.items()}
    kind: type[Config] = DreamingConfig if dreams else Config
    entry, config = method_command("fine_tuner", "dppo", kind, __doc__ or "", lambda _: rest, "method")
    compilations = devices.count_compilations()
    base = trained_run(config.policy)
    own, config = not config.env, dataclasses.replace(config, env=config.env or task_of(base.spec))
    task = chosen(config.env, config.simulator)
    spec = evaluation.task_spec(config.env) if task is None else task.spec
    if own and not spec.goal:  # scores are then on the scale of the policy's dataset
        spec = dataclasses.replace(spec, score_range=base.spec.score_range)
    check_online(config, spec)
    method = jdp.finetune.make(config.settings, spec, base=base.settings)
    check_fits(base, spec)
    state = base.state(config.policy_seed)
    execute: int = base.settings.execute if entry.options.get("chunks") else 1  # type: ignore[attr-defined]
    data = dreaming.dataset_of(config, base) if isinstance(config, DreamingConfig) else None
    if data is not None:
        dreaming.check(config, data, execute)
    steps = config.updates * loops.steps_of_update(config.settings.acting) * execute
    job = opened(config, entry, base, spec, data, where(task, steps, config.seeds))
    print(f"policy     {base.path}: {base.name}, trained on {base.written['dataset']}")
    before = score_before(job, base.method, state, task)
    inside = None if task is None else simulators.chunked(task, execute)
    inside = inside if data is None else dream(job, data, execute)
    states = trained(job, method, state, task, execute, inside)
    job.journal.save("fine_tuner", config.updates, states)
    model = config.world_model if isinstance(config, DreamingConfig) else None
    closing(job, config.method, spec, steps, compilations, base=before, model=model)


def opened(
    config: Config[Any], entry: Entry, base: LoadedRun, spec: Spec, data: Episodes | None, notes: str
) -> Job[Config[Any]]:
    """The run directory, which says what is improved, and on which dataset its world model is trained."""
    facts = {"base": {"command": base.command, "dataset": base.written["dataset"], "method": base.name}}
    if data is None:
        return open_online("finetune", config, spec, f"{entry.name} of {base.name} {notes}", facts)
    facts |= {"world_model": {"dataset": data.origin.name, "sha256": data.origin.sha256}}
    notes = (
        f"{entry.name} of {base.name}; 0 environment steps to learn from, in a model of {data.origin.name}"
    )
    return open_online("finetune", config, spec, notes, facts, "world_model")


def dream(job: Job[Any], data: Episodes, execute: int) -> Dream:
    """What is learned in: a world model, trained here."""
    model = train_world_model(job, job.keys["world_model"], data)
    return loops.dream_of(model, data, job.config.settings.dream, execute=execute)


def task_of(spec: Spec) -> str:
    """The name of a policy's own task; D4RL's rules have names of their own."""
    if spec.env_id is None:
        raise jdp.UserError("the policy names no task: give one with --env")
    if evaluation.protocol(spec) == "maze2d":
        return f"maze2d-{spec.env_id.split('_')[1].split('-')[0].lower()}-v1"
    return spec.env_id


def check_fits(base: LoadedRun, spec: Spec) -> None:
    """Raises `UserError` where the policy is of other observations, actions or goals than the task."""
    ours, task = ((s.observation_dim, s.action_dim, len(s.goal)) for s in (base.spec, spec))
    if ours != task:
        raise jdp.UserError(
            f"{base.path} is a policy of {ours[0]} observations, {ours[1]} actions and goals of {ours[2]}; "
            f"{spec.env_id} has {task[0]}, {task[1]} and {task[2]}: give the task it was trained for"
        )


def score_before(job: Job[Config[Any]], base: Method, state: PyTree, task: Task | None) -> Json:
    """The scores of the base policy, on the episodes that the improved ones play."""
    seeds, spec = job.config.seeds, job.data.spec
    if not job.journal.records("base/evaluation"):
        many = jax.tree.map(lambda x: jnp.broadcast_to(x, (seeds, *jnp.shape(x))), state)
        job.journal.log("base/evaluation", 0, evaluator(job, base, task, spec)(0, many))
    return evaluation.last_scores(job.journal.records("base/evaluation"), spec, 0)


def trained(
    job: Job[Config[Any]],
    method: Method,
    state: PyTree,
    task: Task | None,
    execute: int,
    inside: Task | Dream | None,
) -> PyTree:
    """What all seeds have learned from `state`, `inside` a task in JAX or a dream, None: the host's task."""
    config, spec = job.config, job.data.spec
    options = {
        "key": job.keys["agents"],
        "updates": config.updates,
        "seeds": config.seeds,
        "rows": state,
        "chunk": 1,
        "journal": job.journal,
        "evaluate": evaluator(job, method, task, spec),
        "evaluate_every": config.evaluation.every,
    }
    acting = config.settings.acting
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
