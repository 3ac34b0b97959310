"""Names -> methods: what a method's own file says of itself, for scripts, docs and tables.

A method is one file: its config, its functions, and one decorator on the function that makes it:

    @register("planner", "diffuser", DiffuserConfig, presets, paper="arXiv 2205.09991", idea="...")
    def diffuser(config: DiffuserConfig, spec: Spec, *, guide: Guide | None = None) -> Method: ...

The package's own methods are found when first asked for; `load_plugin` brings a user's file.
"""

import difflib
import importlib
import importlib.util
import inspect
import pkgutil
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, TypeVar

from jdp.errors import UserError

Kind = Literal["agent", "policy", "planner", "world_model", "fine_tuner", "online", "alignment"]
# The rooms whose files are looked into. What lies there and registers nothing is shared by its siblings.
ROOMS: dict[Kind, str] = {
    "agent": "jdp.agents",
    "policy": "jdp.policies",
    "planner": "jdp.planners",
    "world_model": "jdp.world_models",
    "fine_tuner": "jdp.finetune",
    "online": "jdp.online",
    "alignment": "jdp.alignment",
}
# Steps that a plan spans in each maze (Diffuser, arXiv 2205.09991, appendix C).
MAZE_HORIZONS = {"umaze": 128, "open": 128, "medium": 256, "large": 384, "giant": 512}
STITCH_HORIZON = 192  # within the 201 rows of an episode of OGBench's stitch sets
F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True)
class Task:
    """What a preset may depend on: what the name of a dataset tells before it is read."""

    dataset: str  # as on the command line
    name: str = ""  # D4RL's full name of it, e.g. "hopper-medium-v2"; "" where it has none
    maze: str | None = None  # "umaze", "large", ...; None: locomotion and all else

    @property
    def stays(self) -> bool:
        """Whether scores count the steps at the goal, as D4RL's maze2d does: episodes go on there."""
        return self.name.startswith("maze2d-")

    @property
    def way(self) -> int | None:
        """Steps that the way through this maze takes, or None."""
        return None if self.maze is None else MAZE_HORIZONS.get(self.maze, 256)

    @property
    def horizon(self) -> int | None:
        """Steps that a plan spans in this maze, or None: the way through it, where episodes are as long."""
        short = self.way is not None and "-stitch-" in Path(self.dataset).name
        return min(self.way or 0, STITCH_HORIZON) if short else self.way


def task_of(dataset: str, name: str = "") -> Task:
    """The task that the name of a dataset, or of its file, tells."""
    found = re.search(r"maze.*?(umaze|open|medium|large|giant|teleport)|maze.*", Path(dataset).name.lower())
    return Task(dataset, name, None if found is None else found[1] or "unknown")


@dataclass(frozen=True)
class Preset:
    """Defaults of a training run of a method: a script's options of the same names."""

    settings: Any  # the method's config
    updates: int
    batch_size: int
    seeds: int | None = None  # None: the script's own
    episodes: int | None = None


Presets = Callable[[Task], Mapping[str, Preset]]  # of smoke, cpu and paper


@dataclass(frozen=True)
class Entry:
    """What is known of a registered method."""

    kind: Kind
    name: str
    config: type
    make: Callable[..., Any]  # make(config, spec, ...) -> jdp.types.Method
    presets: Presets | None
    title: str  # as its authors write it
    paper: str  # "arXiv 2205.09991"
    idea: str  # one line
    departures: str  # from the paper, for docs/methods.md
    options: Mapping[str, Any] = field(default_factory=dict)  # what a script must know, e.g. model_based=True


_entries: dict[tuple[Kind, str], Entry] = {}


def register(
    kind: Kind,
    name: str,
    config: type,
    presets: Presets | None = None,
    *,
    title: str = "",
    paper: str = "",
    idea: str = "",
    departures: str = "",
    **options: Any,
) -> Callable[[F], F]:
    """Registers the function that makes a method from its `config`.

    Raises:
        UserError: if another function has the name already.
    """

    def add(make: F) -> F:
        before = _entries.get((kind, name))
        if before is not None and _home(before.make) != _home(make):
            raise UserError(f"{kind} {name} is registered twice, by {_home(before.make)} and {_home(make)}")
        title_ = title or name
        _entries[kind, name] = Entry(
            kind, name, config, make, presets, title_, paper, idea, departures, options
        )
        return make

    return add


def _home(make: Callable[..., Any]) -> str:
    return f"{make.__module__}.{getattr(make, '__qualname__', make)}"


@cache
def _discover(kind: Kind) -> None:
    try:
        room = importlib.import_module(ROOMS[kind])
    except ModuleNotFoundError as error:
        if error.name != ROOMS[kind]:
            raise
        return  # no such methods yet
    for module in pkgutil.iter_modules(room.__path__, f"{ROOMS[kind]}."):
        importlib.import_module(module.name)


def entries(kind: Kind) -> dict[str, Entry]:
    """All methods of a kind by name, in the order of the alphabet; plugins too."""
    _discover(kind)
    return {name: e for (k, name), e in sorted(_entries.items()) if k == kind}


def entry(kind: Kind, name: str) -> Entry:
    """One method.

    Raises:
        UserError: if there is none of this name; it names the nearest ones.
    """
    known = entries(kind)
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise UserError(f"no {kind} {name!r}: {hint}choose one of {', '.join(known)}")
    return known[name]


def entry_of(kind: Kind, config: Any) -> Entry:
    """The method that `config` names, by its type or as a string.

    Raises:
        UserError: if no method of the kind has this name or this type of config.
    """
    if isinstance(config, str):
        return entry(kind, config)
    for one in entries(kind).values():
        if type(config) is one.config:
            return one
    known = ", ".join(e.config.__name__ for e in entries(kind).values())
    raise UserError(f"no {kind} is made from a {type(config).__name__}; give one of {known}")


def make(kind: Kind, config: Any, spec: Any, **parts: Any) -> Any:
    """The method that the type of `config` names.

    Args:
        config: a method's config, or its name, for the defaults.
        parts: what its function takes besides, for instance `guide` or `model`.

    Raises:
        UserError: if no method of the kind has this type of config, or it takes no such part.
    """
    method = entry_of(kind, config)
    given = {name: part for name, part in parts.items() if part is not None}
    known = inspect.signature(method.make).parameters
    for name in given.keys() - known.keys():
        raise UserError(f"{kind} {method.name} takes no {name}: leave it out, or choose another")
    return method.make(method.config() if isinstance(config, str) else config, spec, **given)


def takes(entry: Entry, part: str) -> bool:
    """Whether the function of a method takes `part` beside its config and the spec."""
    return part in inspect.signature(entry.make).parameters


def load_plugin(source: str) -> None:
    """Imports a user's methods: the path of a Python file, or the name of a module.

    Raises:
        UserError: if there is no such file or module, or it cannot be imported.
    """
    imported(source, f"--plugin {source}", "no such file")


def imported(where: str, told: str, missing: str) -> ModuleType:
    """A user's module: the path of a Python file, or the name of a module.

    Args:
        told: how the command line names it, which an error begins with.
        missing: what an error says of a file that is not there.

    Raises:
        UserError: if there is no such file or module, or it cannot be imported.
    """
    path = Path(where).expanduser()
    if path.suffix == ".py" and not path.is_file():
        raise UserError(f"{told}: {missing}")
    try:
        if path.suffix != ".py":
            return importlib.import_module(where)
        name = f"jdp_plugin_{path.stem}"
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
    except UserError:
        raise
    except Exception as error:  # whatever a user's file does wrong
        line = str(error).splitlines()[0] if str(error) else ""
        raise UserError(f"{told} cannot be imported ({type(error).__name__}: {line})") from error
    return module


def named(source: str, option: str) -> Any:
    """What a user's file or module defines: `source` is FILE:NAME, "my_rules.py:barrier".

    Args:
        option: of the command line that names it, which an error begins with.

    Raises:
        UserError: if the file cannot be imported, or has nothing of that name.
    """
    told = f"{option} {source}"
    where, _, name = source.rpartition(":")
    if not where or not name.isidentifier():
        raise UserError(f"{told}: say where it is and how it is called, as my_file.py:name")
    module = imported(where, told, f"there is no file {where}")
    if not hasattr(module, name):
        known = ", ".join(n for n, found in vars(module).items() if _own(module, n, found))
        raise UserError(
            f"{told}: there is no {name} in {where}, {f'but {known}' if known else 'nor anything'}"
        )
    return getattr(module, name)


def _own(module: ModuleType, name: str, found: object) -> bool:
    """Whether a user may mean it: no private name, and no class, function or module from elsewhere."""
    if name.startswith("_") or isinstance(found, ModuleType):
        return False
    made_here = getattr(found, "__module__", None) == module.__name__
    return made_here or not (inspect.isclass(found) or inspect.isroutine(found))
