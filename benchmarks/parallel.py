"""Training over devices, over seeds, from files, and with checkpoints, printed as JSON.

    python benchmarks/parallel.py [--updates 20] [--repeats 5] [--devices 1 2 4 8] [--seeds 1 2 4 8]

Devices: updates a second of the cpu preset's trajectory diffuser (batch 64, horizon 32) and windows sampled
a second (20 steps of dpmpp_2m, batch 256), of the same global batch split over 1, 2, 4 and 8 devices. On a
CPU these are virtual: they share the same cores, so they cannot be faster than one, and the figures say what
splitting costs; on accelerators they show what it gives.

Seeds: updates of all seeds together a second, of TD3+BC on one device by one `vmap`.

Streamed: seconds of `--updates` updates of the same diffuser on windows that a thread gathers from a
memory-mapped file, and on windows of rows that lie on the device. Checkpoints: seconds to save and to restore
the diffuser, its size on the disk, and the seconds of the chunk of updates that it is saved after.
"""

import os

if os.environ.get("JAX_PLATFORMS", "cpu") == "cpu":  # before JAX is imported
    flag = "--xla_force_host_platform_device_count=8"
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flag}"

import argparse
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from agents import SPEC, dataset
from common import gflops, interleaved, machine, matmul, median_seconds, seconds

import jdp
from jdp import devices, loops
from jdp.agents.td3_bc import TD3BCConfig
from jdp.data import batches
from jdp.data.draws import WindowRows
from jdp.data.mapped import map_rows, write_rows
from jdp.data.stream import Stream, blocks
from jdp.learning.diffuser import DiffuserConfig, trajectory_diffuser
from jdp.networks import NetworkConfig
from jdp.runs import checkpoints
from jdp.synthesis import SamplerConfig
from jdp.synthesis.generate import sampling_program
from jdp.types import PyTree

HORIZON, BATCH, KEY = 32, 64, jax.random.key(0)
NETWORK, SAMPLER = NetworkConfig("residual_unet", 48, 3), SamplerConfig(sigma_max=42.0)
SMALL = NetworkConfig("residual_unet", 8, 2)


class Fit:
    """`count` updates as a function to time; each call goes on with the state of the last."""

    def __init__(self, state: PyTree, run: Callable[[PyTree], PyTree]) -> None:
        self.state, self.run = state, run

    def __call__(self) -> PyTree:
        self.state = self.run(self.state)
        return self.state


def data_of(rows: int, channels: int) -> WindowRows:
    """Rows of noise, and windows that begin at each but the last."""
    starts = np.arange(rows - HORIZON, dtype=np.int32)
    values = np.random.default_rng(0).normal(size=(rows, channels)).astype(np.float32)
    return WindowRows(values, starts, starts + HORIZON - 1)


def mesh_of(count: int) -> Any:
    return devices.data_mesh(jax.devices()[:count])


def copied(state: PyTree) -> PyTree:
    """The fit loop donates its state."""
    return jax.tree.map(jnp.copy, state)


def by_devices(diffuser: Any, state: PyTree, data: Any, args: argparse.Namespace) -> list[dict]:
    fits, samplers = {}, {}
    shape = (SAMPLER.batch, HORIZON, data.rows.shape[1])
    for count in args.devices:
        mesh = mesh_of(count)
        placed = devices.replicate(data, mesh)

        def updates(state: PyTree, mesh: Any = mesh, data: Any = placed) -> PyTree:
            options = {"key": KEY, "stop": args.updates, "mesh": mesh}
            return loops.fit(
                diffuser.learner.update, batches(diffuser.learner.draws, BATCH), state, data, **options
            )

        denoiser = devices.replicate(diffuser.denoiser(state), mesh)
        program = sampling_program(SAMPLER, shape, mesh, False)
        fits[str(count)] = Fit(devices.replicate(copied(state), mesh), updates)
        samplers[str(count)] = lambda p=program, d=denoiser: p(d, None, KEY, SAMPLER.sigmas(), None)
    trained, sampled = interleaved(fits, args.repeats), interleaved(samplers, args.repeats)
    return [
        {
            "devices": int(count),
            "updates_per_second": round(args.updates / trained[count], 2),
            "windows_sampled_per_second": round(SAMPLER.batch / sampled[count], 1),
        }
        for count in fits
    ]


def by_seeds(args: argparse.Namespace) -> list[dict]:
    agent = jdp.agents.make(TD3BCConfig(), SPEC)
    learner, rows = agent.learner, dataset(args.rows, next_actions=False)
    sample = learner.draws.view(rows[:1000])  # type: ignore[union-attr]
    fits = {}
    for seeds in args.seeds:
        draw, update = batches(learner.draws, 256, seeds), loops.vmapped(learner.update, seeds)  # type: ignore[arg-type]
        state = jax.jit(jax.vmap(learner.init, in_axes=(0, None)))(jax.random.split(KEY, seeds), sample)

        def updates(state: PyTree, update: Any = update, draw: Any = draw) -> PyTree:
            return loops.fit(update, draw, state, rows, key=KEY, stop=args.updates)

        fits[str(seeds)] = Fit(state, updates)
    found = interleaved(fits, args.repeats)
    return [
        {"seeds": int(n), "updates_x_seeds_per_second": round(int(n) * args.updates / found[n], 1)}
        for n in fits
    ]


def streamed(diffuser: Any, state: PyTree, data: Any, args: argparse.Namespace, folder: Path) -> dict:
    write_rows(folder, {"rows": data.rows})
    mapped = WindowRows(map_rows(folder, ["rows"])["rows"], data.starts, data.last)
    stream = Stream(diffuser.learner.draws, mapped, BATCH)
    options: dict[str, Any] = {"key": KEY, "stop": args.updates}

    def from_file(state: PyTree) -> PyTree:
        with blocks(stream, start=0, **options) as made:
            return loops.fit_blocks(diffuser.learner.update, made, state, **options)

    data = jax.tree.map(jnp.asarray, data)

    def in_memory(state: PyTree) -> PyTree:
        return loops.fit(
            diffuser.learner.update, batches(diffuser.learner.draws, BATCH), state, data, **options
        )

    fits = {"in_memory": in_memory, "streamed": from_file}
    found = interleaved({name: Fit(copied(state), run) for name, run in fits.items()}, args.repeats)
    return {
        "rows": len(data.rows),
        "megabytes": round(data.rows.nbytes / 1e6, 1),
        "seconds": {name: round(t, 4) for name, t in found.items()},
        "streamed_to_in_memory": round(found["streamed"] / found["in_memory"], 3),
    }


def checkpointed(diffuser: Any, state: PyTree, data: Any, args: argparse.Namespace, folder: Path) -> dict:
    data = jax.tree.map(jnp.asarray, data)
    shapes, step = jax.eval_shape(lambda: state), iter(range(1, 1000))
    chunk = median_seconds(Fit(copied(state), lambda s: loops.fit(
        diffuser.learner.update, batches(diffuser.learner.draws, BATCH), s, data, key=KEY, stop=args.updates
    )), args.repeats)  # fmt: skip
    save = median_seconds(lambda: checkpoints.save(folder, next(step), state), args.repeats)
    restore = median_seconds(lambda: checkpoints.restore(folder, shapes), args.repeats)
    newest = folder / str(checkpoints.latest(folder))
    size = sum(path.stat().st_size for path in newest.rglob("*") if path.is_file())
    return {
        "save_seconds": round(save, 4),
        "restore_seconds": round(restore, 4),
        "megabytes": round(size / 1e6, 2),
        "chunk_updates": args.updates,
        "chunk_seconds": round(chunk, 4),
        "save_to_chunk": round(save / chunk, 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="training over devices, seeds, files and with checkpoints")
    parser.add_argument("--updates", type=int, default=20, help="in one timed call")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--devices", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--small", action="store_true", help="a tiny network, to see that it works")
    args = parser.parse_args()
    args.devices = [count for count in args.devices if count <= jax.device_count()]
    channels = SPEC.observation_dim + SPEC.action_dim + 2
    data = data_of(args.rows, channels)
    network, config = SMALL if args.small else NETWORK, DiffuserConfig(batch_size=BATCH)
    diffuser = trajectory_diffuser(network, config, HORIZON)
    state = jax.jit(diffuser.learner.init)(KEY, jnp.zeros((1, HORIZON, channels)))
    speed = [gflops(seconds(matmul())) for _ in range(3)]
    with tempfile.TemporaryDirectory() as folder:
        found = {
            "machine": machine(),
            "matmul_gflops": round(max(speed), 1),
            "virtual_devices": jax.default_backend() == "cpu",
            "devices": by_devices(diffuser, state, data, args),
            "seeds": by_seeds(args),
            "streaming": streamed(diffuser, state, data, args, Path(folder) / "rows"),
            "checkpoint": checkpointed(diffuser, state, data, args, Path(folder) / "checkpoints"),
        }
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
