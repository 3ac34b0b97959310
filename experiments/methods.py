"""What scripts that train any registered method share: its name first, then its own options and presets."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, Generic, TypeVar

from command_line import first_words, given, parse, usual_preset
from options import RunConfig, TrainingOptions

import jdp
from jdp import registry
from jdp.data import Episodes
from jdp.data.names import full_d4rl_name
from jdp.learning.fitting import Fit, falling_rates
from jdp.registry import Entry, Kind, Preset

T = TypeVar("T")
Options = Mapping[str, object]  # of a command line, as a preset has them
Rest = Callable[[Entry, Mapping[str, Preset]], Mapping[str, Options]]


@dataclass(frozen=True, kw_only=True)
class MethodConfig(RunConfig, Generic[T]):
    """Train a method and play it."""

    settings: T
    """Of the method."""


C = TypeVar("C", bound=TrainingOptions)  # of a class that is generic over the method's settings


def method_command(
    kind: Kind,
    default: str,
    config: type[C],
    description: str,
    rest: Rest,
    option: str | None = None,
    more: Callable[[Entry], type[C]] | None = None,
    env: str | None = None,
) -> tuple[Entry, C]:
    """The method that `--<option>` names, and the whole command line with its preset as defaults.

    Args:
        config: the script's dataclass, generic over the method's settings.
        rest: what presets say of the script's other options, and where it differs from the method's own.
        option: the kind's name, where it is not another.
        more: the dataclass in the place of `config`, where methods of the kind ask for other options.
        env: the task that presets depend on, where no --env says it.
    """
    option = option or kind
    first = first_words(**{option: default}, env=config.env, preset=None, plugin=())
    for plugin in first.plugin:
        registry.load_plugin(plugin)
    entry = registry.entry(kind, getattr(first, option))
    config = config if more is None else more(entry)
    where, name = env or first.env, first.preset or usual_preset()
    task = registry.task_of(where, full_d4rl_name(where) or "")
    presets = dict(entry.presets(task)) if entry.presets else {}
    presets = presets or dict.fromkeys(("smoke", "cpu", "paper"), Preset(entry.config(), 1_000, 64))
    if name not in presets:
        raise jdp.UserError(f"--preset {name}: {kind} {entry.name} has {', '.join(presets)}")
    found = presets[name]
    options: dict[str, Any] = {option: entry.name, "preset": name}
    options |= {"settings": found.settings, "updates": found.updates}
    known = {field.name for field in fields(config)}
    options |= {"batch_size": found.batch_size} if "batch_size" in known else {}
    options |= {} if found.seeds is None else {"seeds": found.seeds}
    options |= rest(entry, presets)[name]
    listed = [f"  {name:<18} {e.title}: {e.idea}" for name, e in registry.entries(kind).items()]
    own: type[C] = config[entry.config]  # pyright: ignore
    return entry, parse(own, own(**options), "\n".join([description, f"--{option} is one of", *listed]))


def fitted(entry: Entry, settings: T, data: Episodes, updates: int, part: str = "settings") -> T:
    """The settings with what depends on data and updates, unless the options --<part>.* give it."""
    fit: Fit = entry.options.get("fit", falling_rates)
    return fit(settings, data, updates, given(part))
