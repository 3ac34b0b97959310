"""The command line of a script that trains any registered method: its name first, then its own options."""

from collections.abc import Callable, Mapping
from typing import Any

from command_line import first_words, parse, usual_preset
from options import RunConfig

import jdp
from jdp import registry
from jdp.data.names import full_d4rl_name
from jdp.registry import Entry, Kind, Preset

Rest = Callable[[Mapping[str, Preset]], Mapping[str, dict[str, Any]]]


def method_command(kind: Kind, default: str, config: Any, description: str, rest: Rest) -> tuple[Entry, Any]:
    """The method that `--<kind>` names, and the whole command line with its preset as defaults.

    Args:
        config: the script's dataclass, generic over the method's settings (for which Python has no type).
        rest: what presets say beside the method's own, for the script's other options.
    """
    first = first_words(**{kind: default}, env=RunConfig.env, preset=None, plugin=())
    for plugin in first.plugin:
        registry.load_plugin(plugin)
    entry = registry.entry(kind, getattr(first, kind))
    task, name = registry.task_of(first.env, full_d4rl_name(first.env) or ""), first.preset or usual_preset()
    presets = dict(entry.presets(task)) if entry.presets else {}
    presets = presets or dict.fromkeys(("smoke", "cpu", "paper"), Preset(entry.config(), 1_000, 64))
    if name not in presets:
        raise jdp.UserError(f"--preset {name}: {kind} {entry.name} has {', '.join(presets)}")
    found = presets[name]
    values = {"settings": found.settings, "updates": found.updates, "batch_size": found.batch_size}
    values |= {} if found.seeds is None else {"seeds": found.seeds}
    options = {kind: entry.name, "preset": name, **values, **rest(presets)[name]}
    return entry, parse(
        config[entry.config], config[entry.config](**options), f"{description}\n{listed(kind)}"
    )


def listed(kind: Kind) -> str:
    """All methods of a kind, for --help."""
    lines = [f"  {name:<18} {e.title}: {e.idea}" for name, e in registry.entries(kind).items()]
    return "\n".join([f"--{kind} is one of", *lines])
