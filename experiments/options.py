"""The options that the scripts share, and what they refuse."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import Literal, TextIO, TypeVar

from progress import MakingBar, show_download

import jdp
from jdp import devices, runs
from jdp.data import Episodes
from jdp.data.actions import Units
from jdp.data.recipes import Making
from jdp.data.sources import Source
from jdp.networks import Precision
from jdp.runs.settings import flat
from jdp.tasks import groups

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class DatasetOptions:
    """Which dataset, and where results go."""

    env: str = "hopper-medium"
    """D4RL name with or without version (then the newest), Minari id, OGBench name, scene (jdp/Cue-v0), or
    path to a file."""
    source: Source = "auto"
    """auto: a file, D4RL on disk, D4RL download, its recipe or the bundled set, OGBench on disk; or one of
    these (recipe also makes some of OGBench's sets, with the extra ogbench)."""
    env_id: str | None = None
    """Gymnasium task for evaluation and reference returns, where the dataset does not name one."""
    max_episode_steps: int | None = None
    """Time limit of the task, where it has none or another is wanted."""
    actions: Units = "auto"
    """Units of a dataset's actions: of the task, or scaled to [-1, 1] already, where the task's box is
    another; auto: of the task, refused where they look scaled."""
    groups: tuple[str, ...] = ()
    """Named groups of the observation's entries, for policies that tell them apart: position:0-1 velocity:2,3
    (known for mazes and MuJoCo's bodies)."""
    out: Path = Path("results")
    """Where results are written."""

    def load(self, file: TextIO | None = None, mapped: Path | None = None) -> Episodes:
        """The dataset, with progress on `file`; `mapped` is where its rows lie in files."""
        found = jdp.data.load(
            self.env,
            source=self.source,
            env_id=self.env_id,
            max_episode_steps=self.max_episode_steps,
            actions=self.actions,
            progress=partial(show_download, file=file),
            making=Making(progress=MakingBar(file)),
            mapped=mapped,
        )
        if not self.groups:
            return found
        named = groups.parse(self.groups, found.spec.observation_dim)
        return dataclasses.replace(found, spec=dataclasses.replace(found.spec, groups=named))


@dataclass(frozen=True)
class EvaluationConfig:
    """Scores in the simulator, of the last checkpoint."""

    episodes: int = 10
    """Episodes of every seed."""


@dataclass(frozen=True, kw_only=True)
class TrainingOptions:
    """What every training script asks for, with a dataset or without."""

    env: str = "Pendulum-v1"
    """The task."""
    out: Path = Path("results")
    """Where results are written."""
    plugin: tuple[str, ...] = ()
    """Python files or modules whose methods are registered beside those of jdp (see docs/add_a_method.md)."""
    preset: Literal["smoke", "cpu", "paper"] = "cpu"
    """Defaults of everything else; without it, cpu or paper by device."""
    seed: int = 0
    """Of everything, from 0 to 4294967295."""
    seeds: int = 3
    """Training seeds, trained at once; they share one world model and diffuser."""
    updates: int = 10_000
    """Gradient steps (of td3_bc and rebrac: 2 critic steps and 1 actor step each)."""
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    checkpoint_minutes: float = 3.0
    """Minutes between two checkpoints within a phase."""
    log: tuple[runs.SinkName, ...] = ()
    """Where metrics go besides metrics.jsonl (extras tensorboard and wandb)."""
    resume: str | None = None
    """Go on with the newest unfinished run of this configuration, or with the run directory given; auto: the
    newest unfinished one if there is one, else a new one, but nothing where a finished one is there."""


@dataclass(frozen=True, kw_only=True)
class RunConfig(DatasetOptions, TrainingOptions):
    """What every script asks for that trains on a dataset."""

    batch_size: int = 256
    """Rows in a batch of one seed, over all devices."""
    precision: Precision = "float32"
    """Of the arithmetic of diffusion networks and judges of plans; bf16 is for accelerators. Weights,
    optimisers, averages, losses and targets stay float32, and so do the MLPs of agents, of critics of actions
    and of inverse models."""
    accumulate: int = 1
    """Micro-batches that a batch of a trajectory diffuser or planner is computed in, one after another: less
    memory, the same gradient."""
    stream: bool = False
    """Keep the rows of the dataset in files (under OUT/streams), and gather batches ahead of the updates: for
    datasets larger than the devices."""
    distributed: str | None = None
    """One of many processes of this run: HOST:PORT of process 0, or auto on a cluster that JAX knows
    ($JDP_COORDINATOR)."""
    processes: int | None = None
    """How many there are ($JDP_PROCESSES)."""
    process: int | None = None
    """Which one this is, from 0 ($JDP_PROCESS)."""


C = TypeVar("C", bound=RunConfig)
O = TypeVar("O", bound=TrainingOptions)  # noqa: E741
# What changes no number (processes share the batches that one would make).
NOT_IN_HASH = ("out", "resume", "checkpoint_minutes", "log", "stream", "distributed", "processes", "process")


def changed(settings: T, change: Callable[[str, object], object], name: str = "") -> T:
    """`settings` with every field, of nested settings and tuples too, as `change(name, value)` gives it."""
    if isinstance(settings, tuple) and not hasattr(settings, "_fields"):
        return type(settings)(changed(item, change, name) for item in settings)
    if not dataclasses.is_dataclass(settings) or isinstance(settings, type):
        return change(name, settings)  # type: ignore[return-value]
    old = {item.name: getattr(settings, item.name) for item in dataclasses.fields(settings) if item.init}
    new = {key: changed(value, change, key) for key, value in old.items()}
    return settings if new == old else dataclasses.replace(settings, **new)


def check_positive(options: Mapping[str, float], least: int = 1) -> None:
    """Raises `UserError` for an option below `least`."""
    for option, value in options.items():
        if value < least:
            raise jdp.UserError(f"{option} is {value}: it must be at least {least}")


def check_rates(option: str, rates: Sequence[float] | None) -> None:
    """Raises `UserError` for a rate in Hz that is not above 0."""
    if wrong := [hz for hz in rates or () if not 0 < hz < float("inf")]:
        raise jdp.UserError(f"{option} is {wrong[0]}: it must be above 0")


def check_counts(config: RunConfig, *options: str) -> None:
    """Raises `UserError` where one of these is below 1, or of --seeds, --updates, --batch-size and
    --evaluation.episodes; "diffusion.steps" is the option --diffusion.steps."""
    options = ("seeds", "updates", "batch_size", "evaluation.episodes", *options)
    check_positive({"--" + name.replace("_", "-"): attrgetter(name)(config) for name in options})


def check_batches(config: RunConfig, *parts: str) -> None:
    """Raises `UserError` where --batch-size, or that of a part, does not divide over the devices."""
    mesh = devices.data_mesh()
    for option, home in [("--", config), *((f"--{part}.", getattr(config, part)) for part in parts)]:
        option = option.replace("_", "-") + "batch-size"
        devices.check_divisible(home.batch_size, mesh, option, getattr(home, "accumulate", 1))


def refuse_stream(config: RunConfig, why: str) -> None:
    """Raises `UserError` where --stream is given but training keeps its rows on the devices."""
    if config.stream:
        raise jdp.UserError(f"--stream: {why}; leave it out")


def with_options(config: C, method: str, *parts: str) -> C:
    """`config` whose `parts` (fields with settings) compute as --precision and --accumulate say.

    Raises:
        UserError: if one of these is given and nothing in the parts has a use for it.
    """
    check_positive({"--accumulate": config.accumulate})
    for name, default in (("precision", "float32"), ("accumulate", 1)):
        value = getattr(config, name)
        if value == default:  # what --settings.*.precision says stays
            continue
        given = {part: getattr(config, part) for part in parts}
        paths = flat({part: dataclasses.asdict(settings) for part, settings in given.items()})
        if name not in {path.rpartition(".")[2] for path in paths}:
            raise jdp.UserError(f"--{name} {value}: {method} has no network that heeds it: leave it out")

        def told(key: str, old: object, name: str = name, value: object = value) -> object:
            return value if key == name else old

        config = dataclasses.replace(config, **{part: changed(s, told) for part, s in given.items()})
    return config
