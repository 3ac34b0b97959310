"""What a number depends on besides the configuration, and what changed where a run goes on."""

import importlib.metadata
import os
import platform
import shlex
import subprocess
import sys
import time
from pathlib import Path

from jdp.errors import UserError
from jdp.types import Json

PACKAGES = (
    "jax",
    "jaxlib",
    "flax",
    "optax",
    "orbax-checkpoint",
    "gymnasium",
    "mujoco",
    "minari",
    "numpy",
)
# Settings of JAX under which the same key gives other numbers, or arithmetic has other types.
SETTINGS = {
    "jax_enable_x64": "JAX_ENABLE_X64",
    "jax_default_prng_impl": "JAX_DEFAULT_PRNG_IMPL",
    "jax_threefry_partitionable": "JAX_THREEFRY_PARTITIONABLE",
    "jax_default_matmul_precision": "JAX_DEFAULT_MATMUL_PRECISION",
}


def provenance() -> Json:
    """Versions, commit, machine, devices and JAX's settings, of this process."""
    import jax

    return {
        "command": shlex.join(["python", *sys.argv]),
        "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "packages": {package: _version(package) for package in PACKAGES},
        "python": platform.python_version(),
        "commit": _commit(),
        "devices": [f"{d.platform}: {d.device_kind}" for d in jax.devices()],
        "processes": jax.process_count(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "settings": {name: getattr(jax.config, name, None) for name in SETTINGS},
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _commit() -> str | None:
    """The commit of this checkout; None where there is none, or no git to ask."""
    try:
        git = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=False,
        )
    except OSError:
        return None
    return git.stdout.strip() or None


def check_settings_of_jax(path: Path, began: Json, now: Json) -> None:
    """Raises `UserError` where JAX is set so that the run `began` would go on with other numbers."""
    before = began.get("settings", {})
    differ = [name for name in before if name in SETTINGS and before[name] != now["settings"].get(name)]
    if differ:
        named = ", ".join(f"{SETTINGS[n]}: {before[n]} there, {now['settings'].get(n)} here" for n in differ)
        raise UserError(
            f"{path} began under other settings of JAX ({named}): set them so, or start a new run"
        )


def changes(began: Json, now: Json) -> str:
    """What differs between two processes of a run and may change digits, in one line; "" if nothing does."""
    before, after = began.get("packages", {}), now["packages"]
    found = [f"{p} {before[p]} there, {after.get(p)} here" for p in before if before[p] != after.get(p)]
    for key in ("python", "commit", "cores", "processes"):
        if key in began and began[key] != now[key]:
            found.append(f"{key} {began[key]} there, {now[key]} here")
    if "devices" in began and began["devices"] != now["devices"]:
        found.append(f"devices {_counted(began['devices'])} there, {_counted(now['devices'])} here")
    return "; ".join(found)


def _counted(devices: list[str]) -> str:
    return ", ".join(f"{devices.count(kind)} x {kind}" for kind in dict.fromkeys(devices))
