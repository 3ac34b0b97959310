"""What finetune.py asks of methods that learn in a world model, and the dataset that it is trained on."""

from dataclasses import dataclass, replace
from typing import Any

from models import MODEL_PRESETS, ModelOptions
from options import DatasetOptions

import jdp
from jdp.data import Episodes
from jdp.data.checks import check_same_task
from jdp.finetune.dream import check_dream, check_goalless
from jdp.registry import Entry
from jdp.runs import LoadedRun
from jdp.runs.job import load_dataset
from jdp.types import Json
from jdp.world_models.diffusion_step import DiffusionStepConfig

TWO_HOT = {"history": 2, "action_bins": 41}  # what a diffusion model sees in World4RL (arXiv 2509.19080)


@dataclass(frozen=True, kw_only=True)
class DreamOptions(ModelOptions):
    """A world model to learn in."""

    dataset: str = ""
    """What the world model is trained on and dreams begin in: another dataset than the policy's own."""


def options(entry: Entry, preset: str) -> Json:
    """What presets say of the world model of a method: its own choice of a model."""
    found = MODEL_PRESETS[preset]
    step = found.get("diffusion_step", DiffusionStepConfig())
    return found | {"world_model": entry.options["dreams"], "diffusion_step": replace(step, **TWO_HOT)}  # type: ignore[type-var]


def own_dataset(base: LoadedRun, instead: str) -> Episodes:
    """The dataset that the base policy was trained on.

    Raises:
        UserError: if another file has its name now; `instead` is what to do then.
    """
    names = ("env", "source", "env_id", "max_episode_steps", "actions")
    own = DatasetOptions(**{name: base.config[name] for name in names if name in base.config})
    data = load_dataset(own.load)
    if data.origin.sha256 != base.written["sha256"]:
        found = f"{own.env} is now {data.origin.name}, another file than {base.path} was trained on"
        raise jdp.UserError(f"{found}: {instead}")
    return data


def dataset_of(config: Any, base: LoadedRun, execute: int) -> Episodes:
    """The dataset that the base policy was trained on, or --dataset; `execute` are actions of a decision.

    Raises:
        UserError: if it is not the file that the policy was trained on, or of another task; or where there
            could be no world model of it, or no dreams in that.
    """
    if config.dataset:
        data = load_dataset(lambda: jdp.data.load(config.dataset))
    else:
        data = own_dataset(base, "give the dataset for the world model with --dataset")
    check_same_task(data.origin.name, data.spec, base.spec)
    check_goalless(data.spec)
    check_dream(config.check_world_model(data), config.settings.dream, data.spec, execute)
    return data
