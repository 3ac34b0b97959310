"""What align.py aligns: its options, the toy or a trained model, its reward, and what is learned from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, Literal, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import tyro
from closed_loop import PlayConfig, PlayOptions
from dreaming import own_dataset
from finetune import task_of
from opening import trained_run

import jdp
from jdp import registry
from jdp.alignment import problems, rows, scores, students
from jdp.alignment.bases import Base, base_of, judged_by
from jdp.alignment.calls import network_calls
from jdp.alignment.models import Given, Reward, TokenModel
from jdp.alignment.playing import reward_guide
from jdp.alignment.presets import TOY
from jdp.alignment.rewards import Arrive, Avoid, Gentle, Steady, check_reward, loaded, valued
from jdp.alignment.toy import Mixture, off_support
from jdp.data import SegmentDraw
from jdp.registry import Entry
from jdp.runs import LoadedRun
from jdp.tasks import simulators
from jdp.types import Json, PyTree, named_keys

T = TypeVar("T")


@dataclass(frozen=True)
class AlignPlayConfig(PlayConfig):
    """Scores of planners and policies in the simulator, before and after."""

    guided: tuple[float, ...] = ()
    """Of planners: the model as it was is played too with the same reward as a guide of this strength, which
    seeks what settings.kl-weight = 1 / strength seeks."""
    guidance_steps: int = 0
    """Of Newton's method at each level of noise, where a guide's reward is curved."""
    many_goals: bool = False
    """In maze2d, whose goal is one, draw one for each episode and each plan that is learned from: Multi2D of
    Diffuser's paper."""


@dataclass(frozen=True, kw_only=True)
class AlignOptions(PlayOptions, Generic[T]):
    """Align a diffusion model with a reward, preferences or teachers."""

    env: tyro.conf.Suppress[str] = TOY  # what results are filed under; the model says it
    method: str = "ddpo"
    """The algorithm."""
    seeds: int = 1
    """Training seeds, trained at once; all begin as the model."""
    updates: int = 100
    """Each with samples of its own, where the method draws them."""
    model: str = TOY
    """What is aligned: toy, a run, a file of weights, or the name of a model that comes with jdp."""
    model_seed: int = 0
    """Which of the run's training seeds."""
    reward: str = ""
    """Of the toy linear or modes; of others avoid, arrive, steady, gentle, critic; or file.py:function."""
    critic: str | None = None
    """A run of offline_rl.py --agent iql, whose Q is the reward critic."""
    avoid: Avoid = field(default_factory=Avoid)
    arrive: Arrive = field(default_factory=Arrive)
    steady: Steady = field(default_factory=Steady)
    preferences: Path | None = None
    """A file of pairs (npz: first, second, condition, first_won), for methods that learn from pairs; without
    it the reward labels pairs of the model's own samples."""
    gain: float = 1.0
    """Of the reward, where it labels pairs: a lead of 1 / gain is preferred 73 % of the time."""
    teachers: tuple[str, ...] = ()
    """Runs of the same model, aligned to something each, for methods that learn from teachers."""
    given: int = 4096
    """Pairs, or experts' samples, that are drawn; conditions of runs."""
    best_of: int = 16
    """Samples of which an expert's is the best."""
    conditions: Literal["auto", "data", "task"] = "auto"
    """Where conditions come from: rows of the run's own dataset, or starts and goals of its task; auto: the
    task where it has goals and a JAX version."""
    batch_size: int = 32
    """Conditions (pairs, experts) of an update of one seed."""
    samples: int = 2000
    """Samples that are scored, before and after."""
    beta: float = 1.0
    """Of the exact optimum that the toy's samples are compared with."""
    settings: T
    """Of the method."""
    evaluation: AlignPlayConfig = field(default_factory=AlignPlayConfig)


Config = AlignOptions[Any]  # of whatever method
Scored = tuple[scores.Score | None, Json]  # None of tokens; and the numbers of a report
KEYS = ("rows", "check", "support", "train", "score", "target", "play", "latency")


class Subject(NamedTuple):
    """What is aligned, what is learned from, and where it is scored."""

    base: Base
    given: Given
    judge: PyTree  # of samples, for scores: a reward, or a file of pairs' None
    conditions: jax.Array  # [N, C]
    each: int  # samples at each of them
    targets: tuple[Mixture, ...] | None  # exact optima of the toy's conditions
    run: LoadedRun | None
    beta: float = 1.0  # of the toy's optimum
    told: int = 0  # teachers that a student is told of
    reward: Reward | None = None  # that `judge` asks, of what a run's samples are in the units of the task

    @property
    def env(self) -> str:
        """What results are filed under."""
        return TOY if self.run is None else str(self.run.config.get("env") or self.run.spec.env_id)


def subject(config: Config, entry: Entry) -> Subject:
    """The toy, or a trained model.

    Raises:
        UserError: for a model that cannot be aligned, a reward that cannot be had, and what does not go
            together.
    """
    keys, taught = named_keys(jax.random.key(config.seed), *KEYS), entry.options.get("judge") == "teachers"
    wants = entry.options.get("rows")
    if config.preferences is not None and wants != "pairs":
        raise jdp.UserError(f"--preferences: {entry.name} learns from no pairs: choose one that does")
    if config.teachers and not taught:
        raise jdp.UserError(f"--teachers: {entry.name} has no teachers: choose opd")
    if config.model == TOY and config.evaluation.guided:
        raise jdp.UserError("--evaluation.guided: a guide steers planners, and the toy is none")
    if config.model == TOY and entry.options.get("tokens"):
        return on_tokens(config, keys)
    if config.model == TOY:
        return on_toy(config, keys, wants, taught, bool(entry.options.get("consistency")))
    run = trained_run(config.model)
    for kind, what in (("tokens", "models of tokens"), ("consistency", "consistency models")):
        if entry.options.get(kind):
            raise jdp.UserError(f"{entry.name} aligns {what}: {run.path} is none, choose another method")
    base = base_of(run.settings, run.spec, run.state(config.model_seed) if run.states else None)
    if config.evaluation.many_goals and not run.spec.goal:
        raise jdp.UserError(f"--evaluation.many-goals: {run.spec.env_id} has no goals to draw")
    if config.evaluation.guided and (run.kind != "planner" or not config.reward):
        raise jdp.UserError("--evaluation.guided: give a planner and the --reward that guides it")
    reward = reward_of(config, needed=not taught and config.preferences is None)
    if config.evaluation.guided:
        assert reward is not None
        reward_guide(reward, config.evaluation.guided[0])  # says so where there can be none
    found = conditions_of(config, run, base, keys["rows"])
    scored = found[: min(len(found), 64)]
    each = max(config.samples // len(scored), 1)
    if taught:
        others = [
            base_of(run.settings, run.spec, other.state(0)).params for other in teachers_of(config, run)
        ]
        base, given, told = students.student(base, others, found)
        if told and config.seeds != 1:
            raise jdp.UserError("--seeds: one student is trained, and the seeds of its run are its teachers")
        scored, judge = given.rows[: len(scored)], None if reward is None else judged_by(base, reward)
        return Subject(base, given, judge, scored, each, None, run, told=told, reward=reward)
    judge = None if reward is None else judged_by(base, reward)
    if judge is not None:
        check_reward(keys["check"], base.model, base.params, judge, found)
    given = given_of(config, base, judge, found, keys, wants)
    return Subject(base, given, judge, scored, each, None, run, reward=reward)


def on_toy(config: Config, keys: dict[str, jax.Array], wants: str | None, taught: bool, few: bool) -> Subject:
    """The mixture, with a reward of its own or a user's."""
    own = "linear" if not config.reward or ":" in config.reward else config.reward
    toy = problems.problem(keys["check"], own, beta=config.beta, taught=taught, few=few)
    judge, targets = toy.judge, toy.targets
    if ":" in config.reward and not taught:
        judge, targets = judged_by(toy.base, loaded(config.reward)), None
    if config.preferences is not None:
        targets = None
    if not taught:
        check_reward(keys["check"], toy.base.model, toy.base.params, judge, toy.conditions)
    given = Given(toy.base.params, judge, toy.conditions)
    if not taught:
        given = given_of(config, toy.base, judge, toy.conditions, keys, wants)
    each = max(config.samples // len(toy.conditions), 1)
    return Subject(toy.base, given, None if taught else judge, toy.conditions, each, targets, None)


def on_tokens(config: Config, keys: dict[str, jax.Array]) -> Subject:
    """The toy of tokens, with its own reward or a user's."""
    toy = problems.token_problem(keys["check"])
    judge = judged_by(toy.base, loaded(config.reward)) if config.reward else toy.judge
    check_reward(keys["check"], toy.base.model, toy.base.params, judge, toy.conditions)
    given = Given(toy.base.params, judge, toy.conditions)
    return Subject(toy.base, given, judge, toy.conditions, config.samples, None, None, config.beta)


def given_of(
    config: Config,
    base: Base,
    judge: PyTree,
    conditions: jax.Array,
    keys: dict[str, jax.Array],
    wants: str | None,
) -> Given:
    """What the method learns from: conditions, pairs or experts."""
    if config.preferences is not None:
        found = rows.read_pairs(config.preferences, base.model, conditions.shape[1])
    elif wants == "pairs":
        found = rows.drawn_pairs(keys["rows"], base, judge, conditions, config.given, config.gain)
    elif wants == "experts":
        found = rows.best_samples(keys["rows"], base, judge, conditions, config.given, config.best_of)
    else:
        found = conditions
    return Given(base.params, () if wants in ("pairs", "experts") else judge, found)


def reward_of(config: Config, *, needed: bool) -> Reward | None:
    """The reward of a trained model's samples; None where none is given, nor needed.

    Raises:
        UserError: if it is needed and not given.
    """
    if not config.reward and config.critic is None:
        if not needed:
            return None
        raise jdp.UserError(
            "--reward: say what is wished for: avoid, arrive, steady, gentle, critic, or file.py:function"
        )
    return reward_named(config)


def reward_named(config: Config) -> Reward:
    """The reward of the command line."""
    built_in: dict[str, Reward] = {
        "avoid": config.avoid,
        "arrive": config.arrive,
        "steady": config.steady,
        "gentle": Gentle(),
    }  # type: ignore[dict-item]
    if config.reward in built_in:
        return built_in[config.reward]
    if config.reward not in ("", "critic"):
        return loaded(config.reward)
    if config.critic is None:
        raise jdp.UserError("--reward critic: give a run of offline_rl.py --agent iql with --critic")
    run = trained_run(config.critic)
    entry = registry.entry(run.kind, run.name)
    if "critic" not in entry.options:
        raise jdp.UserError(f"--critic {config.critic}: {run.name} has no Q that can be asked: train iql")
    return valued(entry.options["critic"](run.state(0), run.settings, run.spec))


def conditions_of(config: Config, run: LoadedRun, base: Base, key: jax.Array) -> jax.Array:
    """`[given, C]`, from where the command line says."""
    env = str(run.spec.env_id) if config.evaluation.many_goals else task_of(run.spec)
    simulated = env in simulators.names() and bool(run.spec.goal)
    if config.conditions == "task" or (config.conditions == "auto" and simulated):
        return rows.conditions_of_task(key, base, simulators.simulator(env), config.given)
    data = own_dataset(run, "give --conditions task")
    draw = run.method.learner.draws
    assert isinstance(draw, SegmentDraw)  # of policies of chunks and of planners
    return rows.conditions_of_data(key, base, draw, data, config.given)


def teachers_of(config: Config, run: LoadedRun) -> Sequence[LoadedRun]:
    """The runs of --teachers.

    Raises:
        UserError: if there are fewer than two, or one is of another model.
    """
    if len(config.teachers) < 2:
        raise jdp.UserError(f"--teachers: {config.method} learns from two or more runs of the same model")
    found = [trained_run(where) for where in config.teachers]
    for other in found:
        if (other.settings, other.spec) != (run.settings, run.spec):
            raise jdp.UserError(f"--teachers {other.path}: it is of another model than {run.path}")
    return found


def calls_of(entry: Entry, config: Config, found: Subject) -> int:
    """Network calls of an update of one seed."""

    def make(model: Any) -> Any:
        return entry.make(config.settings, model)

    learner = make(found.base.model)
    state = jax.eval_shape(learner.init, jax.random.key(0), found.given)
    batch = jax.tree.map(lambda x: x[jnp.zeros(config.batch_size, jnp.int32)], found.given.rows)
    return network_calls(make, found.base.model, state, batch)


def seed_of(params: PyTree, seed: int) -> PyTree:
    """The parameters of one seed, of `[S, ...]`."""
    return jax.tree.map(lambda x: x[seed], params)


def score_of(found: Subject, params: PyTree, keys: Mapping[str, jax.Array]) -> Scored:
    """One model, always by the same draws; of tokens exactly, by the toy's own reward."""
    if isinstance(found.base.model, TokenModel):
        law = scores.of_tokens(params, found.beta)
        said = {"divergence": law.kl, "reward": law.reward, "variation_distance": law.distance}
        return None, {name: float(x) for name, x in said.items()}
    reference, options = found.base.params, {"model": found.base.model, "count": found.each}
    score = scores.score(keys["score"], params, reference, found.judge, found.conditions, **options)
    said = {"divergence": float(score.divergence)}
    said |= {} if found.judge is None else {"reward": float(score.reward)}
    if found.run is None:
        said |= {"off_support": float(off_support(score.samples))}
    if found.targets is not None:
        exact = scores.against(score.samples, found.targets)
        said |= {name: float(getattr(exact, name)) for name in ("energy_distance", "mode_error")}
    return score, said
