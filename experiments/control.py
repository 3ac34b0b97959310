"""What plan.py and policies.py share: train all seeds at once, play in closed loop, time decisions, draw."""

import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from common import Bar
from job import Job, load, mapped, open_run, opening, stream_of
from options import RunConfig, check_positive
from phases import INIT, begin, train, training_seconds, vmapped
from scoring import behaviour, scores_of, with_interval

import jdp
from jdp import devices, plotting, runs
from jdp.data import Hindsight, SegmentRows, segment_rows
from jdp.data.mapped import write_rows
from jdp.data.segments import segment_lookup, tables
from jdp.data.stream import host_device
from jdp.devices import distributed
from jdp.evaluation import latency, make_goal_env, play, protocol
from jdp.tasks import maze_of
from jdp.types import Bound, Lookup

T = TypeVar("T")
FRAMES = 80  # of a film of locomotion


@dataclass(frozen=True)
class EvaluationConfig:
    """Scores in the simulator, of the last checkpoint."""

    episodes: int = 20
    """Episodes of every seed, played as one batch."""
    decisions: int = 30
    """Decisions that are timed, in one environment, after compilation."""
    pictures: int = 4
    """Episodes that are drawn."""
    start: tuple[float, float] | None = None
    """Where every episode in a maze begins (x, y); otherwise drawn by the task."""
    goal: tuple[float, float] | None = None
    """Where every episode in a maze leads (x, y); otherwise drawn by the task."""

    @property
    def place(self) -> dict[str, Any]:
        """The places that were given."""
        return {k: v for k, v in (("start", self.start), ("goal", self.goal)) if v is not None}


@dataclass(frozen=True, kw_only=True)
class ControlConfig(RunConfig, Generic[T]):
    """Train a planner or a policy and play it in closed loop."""

    settings: T
    """Of the method."""
    seeds: int = 2
    """Training seeds, trained at once; each draws its own batches and initial weights."""
    updates: int = 3_000
    """Gradient steps."""
    batch_size: int = 64
    """Segments in a batch of one seed, over all devices."""
    discount: float = 0.997
    """Of the returns to go that planners' critics learn (policies have their own)."""
    terminal_penalty: float = -100.0
    """Added to the reward of a terminal step in those returns (Diffuser, arXiv 2205.09991)."""
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)


def open_job(experiment: str, config: Any, method: str, fit: Callable[[Any, Any], Any]) -> Job:
    """The job of a command line: data, checks, run directory, keys; `fit` completes the configuration."""
    for sink in config.log:
        runs.check_sink(sink)
    check_positive(
        {
            "--seeds": config.seeds,
            "--updates": config.updates,
            "--batch-size": config.batch_size,
            "--evaluation.episodes": config.evaluation.episodes,
            "--evaluation.decisions": config.evaluation.decisions,
            "--evaluation.pictures": config.evaluation.pictures,
        }
    )
    if not 0 <= config.discount <= 1:
        raise jdp.UserError(f"--discount is {config.discount}: it must lie from 0 to 1")
    data = load(config)
    check_task(data, config.evaluation.place)
    config = fit(config, data)
    mesh = devices.data_mesh()
    devices.check_divisible(config.batch_size, mesh, "--batch-size", config.accumulate)
    opening(config, data, f"{method}, {config.seeds} seeds at once")
    run = open_run(experiment, config, data)
    names = ("train", "adapt", "play", "latency", "pictures")
    return Job(config, data, run, mesh, jdp.types.named_keys(jax.random.key(config.seed), *names))


def check_task(data: Any, place: dict[str, Any]) -> None:
    """Raises `UserError` unless the dataset's task can be made, has its shapes, and the `place` is free."""
    if data.spec.env_id is None:
        raise jdp.UserError(f"{data.origin.name} names no task to play in: give --env-id, e.g. Hopper-v5")
    env = environment(data)()
    try:
        env.reset(0, **place)
    finally:
        env.close()
    shapes, wanted = (env.observation_dim, env.action_dim), (data.spec.observation_dim, data.spec.action_dim)
    if shapes != wanted:
        raise jdp.UserError(
            f"{data.spec.env_id} has {shapes[0]} observations and {shapes[1]} actions, the dataset "
            f"{wanted[0]} and {wanted[1]}: give the task it was collected in with --env-id"
        )


def environment(data: Any) -> Callable[[], Any]:
    """Makes environments of the dataset's task."""
    spec = data.spec
    return lambda: make_goal_env(spec.env_id, task=protocol(spec), max_episode_steps=spec.max_episode_steps)


def _draw_all(key: jax.Array, rows: Any, *, draw: Any, seeds: int) -> Any:
    return jax.vmap(draw, in_axes=(0, None))(jax.random.split(key, seeds), rows)


def rows_for(job: Job, offsets: tuple[int, ...]) -> Any:
    """The dataset's rows, from which segments of `offsets` are drawn; with --stream in files."""
    config = job.config
    settings = {"discount": config.discount, "terminal_penalty": config.terminal_penalty}

    def made() -> SegmentRows:
        return segment_rows(job.data, offsets[-1] + 1, **settings)

    if not config.stream:
        return jax.tree.map(jnp.asarray, made())
    names, what = SegmentRows._fields, f"segments {offsets[-1] + 1} {settings}"
    return SegmentRows(**mapped(job, what, names, lambda to: write_rows(to, made()._asdict())))


def train_all(job: Job, phase: str, learner: Any, rows: Any, hindsight: Hindsight, **options: Any) -> Any:
    """The states of all seeds, stacked `[S, ...]`, after training on segments of `rows`."""
    config, seeds = job.config, job.config.seeds
    draw = jdp.data.draw_segments(config.batch_size, learner.offsets, job.data.spec.goal, hindsight)
    keys = jax.random.split(jax.random.fold_in(job.keys["train"], INIT), seeds)
    # Statistics of rows that no device may hold are computed on the host.
    with jax.default_device(host_device() if config.stream else None):
        states, start = begin(job, phase, jax.vmap(learner.init, in_axes=(0, None)), keys, rows)
    data = rows
    if config.stream:
        halves = segment_lookup(draw)
        locate = Bound(_draw_all, (("draw", halves.locate), ("seeds", seeds)))
        data = stream_of(Lookup(locate, halves.take), tables(rows), rows)
    return train(
        job,
        phase,
        vmapped(learner.update, seeds),
        Bound(_draw_all, (("draw", draw), ("seeds", seeds))),
        states,
        data,
        key=job.keys["train"],
        start=start,
        stop=config.updates,
        chunk=100,
        batch_axis=1,
        **options,
    )


def one(states: Any, seed: int) -> Any:
    """The state of one seed."""
    return jax.tree.map(lambda x: x[seed], states)


class Recorder:
    """Keeps what a picture needs of the first episodes: plans and subgoals, as they were made."""

    def __init__(self, count: int, every: int):
        self.count, self.every = count, every
        self.plans: list[list[np.ndarray]] = [[] for _ in range(count)]
        self.subgoals: list[list[np.ndarray]] = [[] for _ in range(count)]

    def __call__(self, step: int, carry: Any, observation: np.ndarray, running: np.ndarray) -> None:
        # The carry of step k + 1 holds the plan made at step k.
        plan = getattr(carry, "plan", None)
        if plan is None or step == 0 or (step - 1) % self.every:
            return
        seen, subgoal = distributed.fetch(plan.observation), distributed.fetch(plan.subgoal)
        for i in range(min(self.count, len(running))):
            if running[i]:
                self.plans[i].append(seen[i])
                self.subgoals[i].append(subgoal[i])


def evaluate(job: Job, policy: Any, states: Any, every: int = 1) -> dict[str, Any]:
    """Plays every seed's last checkpoint, and times its decisions; what was played before is not repeated."""
    config, spec = job.config, job.data.spec
    job.run.cut("evaluation", config.seeds)
    done = {r["step"]: r for r in job.run.records("evaluation")}
    for seed in range(config.seeds):
        if seed + 1 in done:
            continue
        record, played, recorder = play_seed(job, policy, one(states, seed), seed, every)
        if seed == 0:
            draw_episodes(job, played, recorder, every)
        job.run.log("evaluation", seed + 1, record)
    records = [r for r in job.run.records("evaluation") if r["step"] <= config.seeds]
    returns = np.array([r["returns"] for r in records])
    success = np.array([r["success"] for r in records], bool)
    scores = scores_of(returns, spec).mean(axis=1)
    found = jdp.evaluation.interval(scores)
    if is_success(spec):
        scores, found = 100.0 * success.mean(axis=1), jdp.evaluation.success_interval(success)
    took = {name: float(np.median([r["latency"][name] for r in records])) for name in records[0]["latency"]}
    return {
        "returns": returns.tolist(),
        "success": success.astype(int).tolist(),
        "lengths": [r["lengths"] for r in records],
        "seeds": [float(s) for s in scores],
        "interval": list(found),
        "latency": took,
        "play_seconds": sum(r["seconds"] for r in records),
    }


def is_success(spec: Any) -> bool:
    """Whether the score is the share of successes: tasks with goals, without a scale of their own."""
    return bool(spec.goal) and spec.score_range is None


def has_behaviour(data: Any) -> bool:
    """Whether the dataset's episodes are played to the same rules as ours: maze2d's are one long walk."""
    return not is_success(data.spec) and protocol(data.spec) is None


def score_label(spec: Any) -> str:
    if is_success(spec):
        return "success %"
    return "return" if spec.score_range is None else "normalised score"


def interval_name(spec: Any, seeds: int) -> str:
    """What the interval of a score says."""
    if is_success(spec):
        return f"Clopper-Pearson over the episodes of all {seeds} training seeds"
    return f"Student's t over {seeds} training seeds"


def play_seed(
    job: Job, policy: Any, state: Any, seed: int, every: int
) -> tuple[dict[str, Any], Any, Recorder]:
    config, began = job.config, time.monotonic()
    make, pictures = environment(job.data), min(config.evaluation.pictures, config.evaluation.episodes)
    recorder = Recorder(pictures, every)
    with Bar(f"play seed {seed}", config.evaluation.episodes, "episode") as bar:
        played = play(
            policy,
            jax.random.fold_in(job.keys["play"], seed),
            state,
            make,
            episodes=config.evaluation.episodes,
            seed=config.seed + 1_000_000 + 1_000 * seed,  # every seed has starts and goals of its own
            place=config.evaluation.place,
            progress=lambda step, finished: bar.at(finished, step=step),
            watch=recorder,
            mesh=job.mesh,
        )
    seconds = time.monotonic() - began
    key = jax.random.fold_in(job.keys["latency"], seed)
    took = latency(policy, key, state, make, decisions=config.evaluation.decisions, every=every)
    scores = played.success if is_success(job.data.spec) else scores_of(played.returns, job.data.spec)
    print(f"seed {seed}: {score_label(job.data.spec)} "
          f"{scores.mean() * (100 if is_success(job.data.spec) else 1):.1f}, "
          f"a decision takes {1e3 * took.median:.1f} ms")  # fmt: skip
    record = {
        "returns": played.returns,
        "success": played.success.astype(int),
        "lengths": played.lengths,
        "latency": took._asdict(),
        "seconds": seconds,
    }
    return record, played, recorder


def episodes_of(spec: Any, played: Any, recorder: Recorder) -> Any:
    """The episodes to draw in a maze."""
    xy = list(spec.goal)
    return [
        plotting.Episode(
            path=played.observation[: played.lengths[i] + 1, i][:, xy],
            plans=[plan[:, xy] for plan in recorder.plans[i]],
            goal=played.goal[i],
            success=bool(played.success[i]),
            subgoals=[s[:, xy] for s in recorder.subgoals[i] if len(s)],
        )
        for i in range(recorder.count)
    ]


def figures(job: Job) -> Any:
    folder = job.run.path / "figures"
    folder.mkdir(exist_ok=True)
    return folder


def draw_episodes(job: Job, played: Any, recorder: Recorder, every: int) -> None:
    """plans.png and closed_loop.gif in a maze; elsewhere the film alone, where this machine can render."""
    spec, title = job.data.spec, f"{method_of(job.config)}, {job.data.origin.name}"
    maze = maze_of(spec.env_id) if spec.goal else None
    if maze is None:
        seen = played.observation[: played.lengths[0] + 1, 0]
        frames = plotting.render(spec.env_id, seen[:: max(1, len(seen) // FRAMES)])
        frames = None if frames is None else frames[:, ::3, ::3]
    else:
        episodes = episodes_of(spec, played, recorder)
        plotting.plans(maze, episodes, title=title).savefig(figures(job) / "plans.png")
        frames = plotting.film(maze, episodes[0], every, title=title)
    if frames is not None:
        plotting.save_film(figures(job) / "closed_loop.gif", frames)


def method_of(config: Any) -> str:
    return getattr(config, "planner", None) or config.policy


def closing(job: Job, found: dict[str, Any], phases: tuple[str, ...], compilations: Any) -> None:
    """`scores.json` and `report.txt`."""
    config, data, spec = job.config, job.data, job.data.spec
    minutes = {phase: training_seconds(job, phase) / 60 for phase in phases if job.run.records(phase)}
    took = found["latency"]
    lengths = np.concatenate(found["lengths"])
    known = f"behaviour policy (mean of the dataset's episodes): {behaviour(data):.1f}\n"
    known = known if has_behaviour(data) else ""
    text = (
        f"{data.origin.name}, {spec.env_id}: {method_of(config)}, {config.updates:,} updates, "
        f"{config.evaluation.episodes} episodes a seed, last checkpoint\n\n"
        f"{score_label(spec)} {with_interval(found['interval'])} "
        f"(seeds {' '.join(f'{s:.1f}' for s in found['seeds'])})\n"
        f"episode length {lengths.mean():.0f} steps (mean), {lengths.max()} (longest)\n"
        f"{known}"
        f"decision in one environment: median {1e3 * took['median']:.1f} ms, 95th percentile "
        f"{1e3 * took['percentile_95']:.1f} ms, first of an episode {1e3 * took['first']:.1f} ms, "
        f"mean per step {1e3 * took['step']:.1f} ms\n"
        f"interval: {interval_name(spec, config.seeds)}\n"
        f"training: {', '.join(f'{phase} {m:.1f} min' for phase, m in minutes.items())} (all seeds at once)\n"
        f"{compilations.count} programs compiled in {compilations.seconds:.0f} s "
        f"({compilations.cache_hits} from the cache)"
    )
    (job.run.path / "report.txt").write_text(text + "\n")
    job.run.write(
        "scores.json",
        {
            "dataset": data.origin.name,
            "task": spec.env_id,
            "method": method_of(config),
            "score_name": score_label(spec),
            "preset": config.preset,
            "updates": config.updates,
            "episodes": config.evaluation.episodes,
            **found,
            "behaviour": behaviour(data) if has_behaviour(data) else None,
            "minutes": minutes,
            "compilations": compilations.summary(),
        },
    )
    print(f"\n{text}\nwritten to {job.run.path}")


def with_steps(settings: Any, updates: int) -> Any:
    """`settings` whose learning rates (nested configs with `steps`) fall over `updates`."""
    changes: dict[str, Any] = {}
    for item in dataclasses.fields(settings):
        value = getattr(settings, item.name)
        if item.name == "steps" and hasattr(settings, "learning_rate"):
            changes["steps"] = updates
        elif dataclasses.is_dataclass(value) and not isinstance(value, type):
            changes[item.name] = with_steps(value, updates)
    return dataclasses.replace(settings, **changes)
