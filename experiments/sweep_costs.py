"""What a sweep will take, by what runs like its cells have taken: finished ones, or grids/costs.toml."""

import json
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from sweep_grid import GRIDS, Cell


class Measured(NamedTuple):
    """What one run took."""

    script: str  # without .py, which is also the folder of its runs
    method: str
    env: str
    preset: str
    device: str  # "cpu: cpu", "gpu: NVIDIA H200"
    work: float  # device-minutes (on a CPU core-minutes) of one update of one seed
    source: str


class Estimate(NamedTuple):
    """Of one cell: device-minutes, None where nothing like it has been measured."""

    work: float | None
    source: str

    def minutes(self, devices: int, start: float) -> float | None:
        """Wall time on that many devices (cores), taken to be equally well used."""
        return None if self.work is None else start + self.work / devices


def method_of(config: Mapping[str, Any]) -> str:
    """What is trained, as far as the cost depends on it."""
    name = next((str(config[key]) for key in ("planner", "policy", "agent") if key in config), "")
    return " ".join([name, *sorted(config.get("arms", ()))]).strip()


def shipped() -> tuple[float, list[Measured]]:
    """The minutes that a cell takes to start, and the measured costs that come with jdp."""
    table = tomllib.loads((GRIDS / "costs.toml").read_text())
    found = []
    for block in table["measured"]:
        per = block["cores"] / (block["updates"] * block["seeds"])
        where = block["script"], block["env"], block["preset"]
        for method, minutes in block["minutes"].items():
            script, env, preset = where
            found.append(Measured(script, method, env, preset, "cpu: cpu", minutes * per, "costs.toml"))
    return table["start"], found


def past(out: Path) -> Iterator[Measured]:
    """The finished runs under `out`, the newest first."""
    for path in sorted(out.glob("*/*/*/scores.json"), key=lambda p: p.parent.name, reverse=True):
        run = path.parent
        try:
            written, scores = json.loads((run / "config.json").read_text()), json.loads(path.read_text())
            config, devices = written["config"], written["devices"]
            count = written["cores"] if devices[0].startswith("cpu") else len(devices)
            took, size = minutes_of(run, scores), config["updates"] * config["seeds"]
            where = run.parent.parent.name, method_of(config), config["env"], config["preset"]
        except (OSError, ValueError, KeyError, TypeError, IndexError):
            continue  # not a run of a training script
        if took:
            yield Measured(*where, devices[0], took * count / size, str(run))


def minutes_of(run: Path, scores: Mapping[str, Any]) -> float:
    """What a run logged of its time, evaluation included; else what its scores say."""
    if not (run / "metrics.jsonl").exists():
        seconds = scores.get("play_seconds", 0.0)
        return sum(scores.get("minutes", {}).values()) + seconds / 60
    lines = (run / "metrics.jsonl").read_text().splitlines()
    return sum(json.loads(line).get("seconds", 0.0) for line in lines) / 60


def estimates(
    cells: Iterable[Cell],
    configs: Mapping[str, Mapping[str, Any]],
    device: Mapping[str, Any],
    out: Path,
) -> dict[str, Estimate]:
    """One for each cell, by name: from a run of its script, method, preset and device.

    Of its dataset if there is one, else of another; of the runs in `out` rather than those shipped. It is
    scaled by updates x seeds.
    """
    known = [*past(out), *shipped()[1]]
    return {cell.name: estimate(cell, configs.get(cell.name), device, known) for cell in cells}


def estimate(
    cell: Cell, config: Mapping[str, Any] | None, device: Mapping[str, Any], known: list[Measured]
) -> Estimate:
    if config is None or "updates" not in config:
        return Estimate(None, "unknown")
    wanted = cell.script.stem, method_of(config), config["preset"]
    kind = f"{device['platform']}: {device['kind'] or ''}"
    alike = [m for m in known if (m.script, m.method, m.preset) == wanted and m.device.startswith(kind)]
    same = [m for m in alike if m.env == config["env"]]
    if not alike:
        return Estimate(None, f"unknown: no {config['preset']} run of it on {kind.partition(':')[0]} yet")
    found = (same or alike)[0]
    source = found.source if same else f"{found.source} ({found.env})"
    return Estimate(found.work * config["updates"] * config.get("seeds", 1), source)
