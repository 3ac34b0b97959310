"""The options that the training scripts share."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import jdp
from jdp import runs
from jdp.data.actions import Units
from jdp.data.sources import Source
from jdp.networks import Precision


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """What every training script asks for."""

    env: str = "hopper-medium"
    """D4RL name with or without version, Minari id, or path to a D4RL-layout HDF5 file."""
    plugin: tuple[str, ...] = ()
    """Python files or modules whose methods are registered beside those of jdp (see docs/add_a_method.md)."""
    preset: Literal["smoke", "cpu", "paper"] = "cpu"
    """Defaults of everything else; without it, cpu or paper by device."""
    source: Source = "auto"
    """auto: D4RL on disk, D4RL download, else D4RL's recipe or the bundled set; or one of them."""
    env_id: str | None = None
    """Gymnasium task for evaluation, where the dataset does not name one."""
    max_episode_steps: int | None = None
    """Time limit of the task, where it has none or another is wanted."""
    actions: Units = "auto"
    """Units of a dataset's actions: of the task, or scaled to [-1, 1] already, where the task's box is
    another; auto: of the task, refused where they look scaled."""
    seed: int = 0
    """Of everything, from 0 to 4294967295."""
    checkpoint_minutes: float = 3.0
    """Minutes between two checkpoints within a phase."""
    log: tuple[runs.SinkName, ...] = ()
    """Where metrics go besides metrics.jsonl (extras tensorboard and wandb)."""
    resume: str | None = None
    """Go on with the newest unfinished run of this configuration, or with the run directory given; auto: the
    newest unfinished one if there is one, else a new one, but nothing where a finished one is there."""
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
    out: Path = Path("results")
    """Where results are written."""


C = TypeVar("C", bound=RunConfig)
# What changes no number (processes share the batches that one would make).
NOT_IN_HASH = ("out", "resume", "checkpoint_minutes", "log", "stream", "distributed", "processes", "process")


def check_positive(options: Mapping[str, float]) -> None:
    """Raises `UserError` for an option below 1."""
    for option, value in options.items():
        if value < 1:
            raise jdp.UserError(f"{option} is {value}: it must be at least 1")


def refuse_stream(config: RunConfig, why: str) -> None:
    """Raises `UserError` where --stream is given but training keeps its rows on the devices."""
    if config.stream:
        raise jdp.UserError(f"--stream: {why}; leave it out")


def _has(settings: Any, name: str) -> bool:
    nested = [getattr(settings, item.name) for item in dataclasses.fields(settings)]
    return hasattr(settings, name) or any(_has(x, name) for x in nested if dataclasses.is_dataclass(x))


def everywhere(settings: Any, name: str, value: Any) -> Any:
    """`settings` whose fields `name`, those of nested settings too, are `value`."""
    changes: dict[str, Any] = {}
    for item in dataclasses.fields(settings):
        old = getattr(settings, item.name)
        if item.name == name:
            changes[name] = value
        elif dataclasses.is_dataclass(old) and not isinstance(old, type):
            changes[item.name] = everywhere(old, name, value)
    return dataclasses.replace(settings, **changes)


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
        if not any(_has(getattr(config, part), name) for part in parts):
            raise jdp.UserError(f"--{name} {value}: {method} has no network that heeds it: leave it out")
        changes = {part: everywhere(getattr(config, part), name, value) for part in parts}
        config = dataclasses.replace(config, **changes)
    return config
