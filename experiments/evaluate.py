"""Plays what a run has trained, or a model that comes with jdp, again: more episodes, other ones, many goals.

    python experiments/evaluate.py results/plan/maze2d-umaze-v1/<run> --episodes 100
    python experiments/evaluate.py maze2d-umaze-diffuser --many-goals
    python experiments/evaluate.py maze2d-umaze-diffuser --hz 10 50 200
    python experiments/evaluate.py hopper-medium-policy --warm.levels 3
    python experiments/evaluate.py hopper-medium-policy --real-time.delay 1 --real-time.execute 2
    python experiments/evaluate.py maze2d-umaze-diffuser --guide rules.py:keep_out --guide-strength 20
    python experiments/evaluate.py maze2d-umaze-diffuser --filter my_rules.py:barrier
    python experiments/evaluate.py hopper-medium-policy --compose.run hopper-medium-flow --compose.weight .4

RUN is a run of plan.py, policies.py, offline_rl.py, online_rl.py, finetune.py or pgd_d4rl.py (of which --arm
names the agent), a file of `export.py --weights`, or the name of a model (docs/pretrained.md). Every training
seed plays the episodes; scores.json and report.txt go to results/evaluate/<dataset>/<run>/, with --pictures
plans and a film too. With --hz the task does not wait while the policy decides; with --guide a rule of yours
steers what a planner or a policy draws, and --filter has the last word (docs/steering.md). --compose.run adds
the scores of another trained policy, or planner, to those of RUN; --compose.search 11 finds its weight first,
on episodes of its own.
"""

import dataclasses
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated

import jax
import tyro
from closed_loop import draw_episodes
from command_line import parse, run_main
from composing import ComposeOptions, Composition
from guiding import GuideOptions, executed, rule_lines, satisfaction
from opening import filter_lines, rate_lines, score_line, trained_run
from options import check_positive, check_rates
from playing import PlayingOptions
from progress import Bar

import jdp
from jdp import devices, evaluation, loops
from jdp.errors import check_seed
from jdp.runs import LoadedRun, RunJournal, start_run
from jdp.runs.directories import replace_text
from jdp.tasks import maze2d
from jdp.types import Json, named_keys


@dataclass(frozen=True)
class Config(PlayingOptions, GuideOptions):
    """Play a trained method."""

    run: Annotated[Path, tyro.conf.Positional]
    """A run directory, a file of weights, or the name of a model that comes with jdp."""
    compose: ComposeOptions = field(default_factory=ComposeOptions)
    arm: str | None = None
    """Which of the agents of a run of pgd_d4rl.py: dataset, unguided, guided or world_model."""
    episodes: int = 100
    """Episodes of every training seed, played as one batch."""
    many_goals: bool = False
    """In maze2d, whose goal is one, draw a goal for each episode: Multi2D of Diffuser's paper."""
    seed: int = 2_000_000
    """Of initial states, goals and plans; training scripts score from 1000000 on."""
    decisions: int = 30
    """Decisions that are timed, in one environment, after compilation."""
    hz: tuple[float, ...] | None = None
    """Score also as if the task ticked so often a second and waited for nobody: 10 50 200. A decision that
    takes longer than a tick acts late."""
    pictures: int = 0
    """Episodes of the first seed that are drawn, the first of them as a film too."""
    out: Path = Path("results")
    """Where results are written."""


def main() -> None:
    config = parse(Config, None, __doc__ or "")
    check_positive({"--episodes": config.episodes, "--decisions": config.decisions})
    check_positive({"--pictures": config.pictures}, 0)
    check_rates("--hz", config.hz)
    check_seed(config.seed, "--seed")
    run = trained_run(config.run)
    arm = config.arm or (next(iter(run.states)) if len(run.states) == 1 else None)
    run.state(0, arm)  # fails where there are several, or none of that name
    rule = config.rule(run.settings)
    if (steered := config.guided(run.kind, run.settings, run.spec)) is not None:
        if config.compose.run is not None:
            raise jdp.UserError("--guide steers one run, and --compose.run plays two: leave one out")
        run = dataclasses.replace(run, method=steered)
    whole = config.compose.of(run)
    own = config.played(whole.policy, run.spec)
    make = evaluation.environment_maker(run.task, many_goals=config.many_goals)
    make().close()
    make = make if run.task == run.spec else evaluation.seeing_goals(make)
    if rule is not None:
        chunk = getattr(run.settings, "chunk", 1)
        loops.check_guided(rule, own, run.state(0, arm), make, chunk=chunk)
    journal = RunJournal(begin(config, run, arm), 3.0, Bar, print)
    print(f"{run.kind:<10} {run.name}, {run.config['seeds']} seeds, of {run.path}")
    print(f"trained    on {run.written['dataset']}: {run.command}")
    print(f"run        {journal.run.path}")
    play = partial(
        loops.play_in_turn,
        make=make,
        keys=named_keys(jax.random.key(config.seed), "play", "latency"),
        seeds=run.config["seeds"],
        episodes=config.episodes,
        seed=config.seed,
        mesh=devices.data_mesh(),
    )
    formula = config.formula(run.settings)

    def after(seed: int, record: Json, played: loops.Played, recorder: loops.Recorder) -> None:
        if formula is not None:
            record["executed"] = executed(formula, played)
        drawn(config, run, journal, seed, played, recorder)

    if config.compose.search:
        span = (config.seed, config.seed + config.episodes)
        whole = whole.searched(partial(play, own), config.compose, span)
    play = partial(play, states=whole.states(run.states[arm or ""]), journal=journal)
    records = play(
        own,
        decisions=config.decisions,
        pictures=min(config.pictures, config.episodes),
        after=after,
    )
    found = evaluation.summary_of_seeds(records, run.task)
    if formula is not None:
        found["rule"] = satisfaction(config, [r["executed"] for r in records])
    if config.hz:
        late = partial(config.late, whole.policy, spec=run.spec)
        delay = config.real_time.delay or 0
        found["at_rates"] = evaluation.scores_at_rates(config.hz, found, run.task, play, late, delay)
    report(config, run, journal, found, whole)


def drawn(
    config: Config,
    run: LoadedRun,
    journal: RunJournal,
    seed: int,
    played: loops.Played,
    recorder: loops.Recorder,
) -> None:
    """The figures of the first seed, where they are asked for."""
    if seed or not config.pictures:
        return
    folder, entries = journal.run.path / "figures", len(run.task.goal)
    folder.mkdir(exist_ok=True)
    assert played.observation is not None
    if run.task != run.spec:  # the goal is the end of what was seen
        played = played._replace(goal=played.observation[0, :, -entries:])
    draw_episodes(folder, run.task, f"{run.name}, {dataset_of(config, run)}", played, recorder)


def begin(config: Config, run: LoadedRun, arm: str | None) -> jdp.runs.Run:
    """The run directory of this evaluation, which names the method as that of the training does."""
    settings = dataclasses.asdict(config) | {"run": str(config.run), "out": None}
    of_run = {key: run.config.get(key) for key in ("env", "preset", "updates", "seeds")}
    settings |= (
        of_run
        | config.otherwise()
        | config.compose.otherwise()
        | {run.kind: run.name, "arm": arm, "evaluation": {"episodes": config.episodes}}
    )
    kept = {key: run.written.get(key) for key in ("sha256", "spec")} | {"dataset": dataset_of(config, run)}
    facts = kept | {"trained_by": run.command, "trained_at": run.written.get("commit")}
    return start_run(config.out, "evaluate", str(settings["env"] or run.spec.env_id), settings, facts)


def dataset_of(config: Config, run: LoadedRun) -> str:
    """The name of the run's data; of maze2d with many goals that of Multi2D, "multi2d-umaze (...)"."""
    name, _, kind = str(run.written["dataset"]).partition(" ")
    maze = maze2d.parse(name)
    return f"multi2d-{maze.maze} {kind}" if config.many_goals and maze else f"{name} {kind}".strip()


def report(config: Config, run: LoadedRun, journal: RunJournal, found: Json, whole: Composition) -> None:
    """`scores.json` and `report.txt`."""
    name, dataset = evaluation.score_name(run.task), dataset_of(config, run)
    how = config.told() + whole.told()
    what = f"{dataset}, {run.task.env_id}: {run.name}{how}, {config.episodes} episodes a seed"
    lines = [score_line(name, found), *rule_lines(found), *filter_lines(found), *rate_lines(name, found)]
    text = "\n".join([what, "", *lines, *whole.lines(name), f"trained by {run.command}"])
    replace_text(journal.run.path / "report.txt", text + "\n")
    facts = {
        "dataset": dataset,
        "task": run.spec.env_id,
        "method": run.name,
        "score_name": name,
    }
    facts |= {"preset": run.config.get("preset"), "updates": run.config.get("updates")}
    facts |= whole.facts()
    facts |= {"minutes": (run.scores or {}).get("minutes")}  # of the training
    journal.run.write("scores.json", facts | {"episodes": config.episodes, **found, "behaviour": None})
    print(f"\n{text}\nwritten to {journal.run.path}")


if __name__ == "__main__":
    run_main(main)
