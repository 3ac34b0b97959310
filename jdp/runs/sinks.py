"""Optional second homes of metrics, beside `metrics.jsonl`: TensorBoard and Weights & Biases."""

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np

from jdp.errors import UserError
from jdp.types import Json, Logged

Sink = Callable[[str, int, Logged], None]  # (phase, step, metrics)
SinkName = Literal["tensorboard", "wandb"]


def _scalars(phase: str, metrics: Logged) -> dict[str, float]:
    """Every metric as `phase/name`; of a metric with several values (seeds, episodes) the mean."""
    return {f"{phase}/{name}": float(np.mean(np.asarray(value))) for name, value in metrics.items()}


def _tensorboard(path: Path, config: Json) -> Sink:
    from tensorboardX import SummaryWriter  # type: ignore[import-not-found]

    writer = SummaryWriter(str(path / "tensorboard"))
    writer.add_text("config", str(config))

    def log(phase: str, step: int, metrics: Logged) -> None:
        for name, value in _scalars(phase, metrics).items():
            writer.add_scalar(name, value, step)
        writer.flush()

    return log


def _wandb(path: Path, config: Json) -> Sink:
    import wandb  # type: ignore[import-not-found]

    run = wandb.init(
        project="jdp", name=path.name, dir=str(path), config=dict(config), resume="allow", id=path.name
    )

    def log(phase: str, step: int, metrics: Logged) -> None:
        # Phases count their own steps, and W&B wants one axis that grows: each phase brings its own.
        run.log({**_scalars(phase, metrics), f"{phase}/step": step})

    return log


_PACKAGES = {"tensorboard": "tensorboardX", "wandb": "wandb"}
_MAKERS = {"tensorboard": _tensorboard, "wandb": _wandb}


def check_sink(name: SinkName) -> None:
    """Raises `UserError` if the package of the sink `name` is not installed."""
    try:
        importlib.import_module(_PACKAGES[name])
    except ImportError as error:
        raise UserError(f"--log {name} needs its package: pip install 'jdp[{name}]'") from error


def make_sink(name: SinkName, path: Path, config: Json) -> Sink:
    """The sink `name` of the run directory `path`.

    Raises:
        UserError: if its package is not installed.
    """
    check_sink(name)
    return _MAKERS[name](path, config)
