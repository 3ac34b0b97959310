"""Data of jdp's own scenes: their experts with noise in the action, many episodes at once in one program."""

from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jdp.data import d4rl
from jdp.data.recipes.recipe import Order, Recipe, Store
from jdp.data.write import write_columns
from jdp.errors import UserError
from jdp.tasks.scenes import SCENES, Scene
from jdp.types import PyTree, named_keys

NAMES = tuple(name for name, scene in SCENES.items() if scene.data == name)
ROWS = 20_000
EPISODES = 200  # that are made at once
LICENCE = "MIT: made by jdp"


def recipe(name: str) -> Recipe | None:
    """The recipe of the data of a scene, "jdp/Cue-v0"; None for other names.

    Raises:
        UserError: for a scene that is a variation of another one, and has no data of its own.
    """
    if name not in SCENES:
        return None
    scene = SCENES[name]
    if scene.data != name:
        raise UserError(f"{name} has no data of its own: give --env {scene.data} --env-id {name}")
    facts = {"recipe": "scenes 1", "noise": scene.noise}  # goes up where the same seed gives other rows
    write = partial(_write, scene)
    return Recipe(name, "jdp", ROWS, facts, write, _STORE, LICENCE)


def _write(scene: Scene, path: Path, order: Order) -> None:
    columns = collect(scene, order.seed, order.rows)
    if order.progress is not None:
        order.progress(order.rows)
    write_columns(path, columns, {"env_id": str(scene.task.spec.env_id), **order.facts})


_STORE = Store(partial(d4rl.folder_of, "JDP_DATA_DIR", ".jdp/data"), "JDP_DATA_DIR", ".hdf5", d4rl.told)


def collect(scene: Scene, seed: int, rows: int) -> dict[str, np.ndarray]:
    """The columns of a file: the first `rows` rows of episode after episode; the last one is cut there.

    Equal arguments give equal bits, made on the CPU, beside an accelerator too; more rows begin with fewer.
    """
    found: list[dict[str, np.ndarray]] = []
    with jax.default_device(jax.local_devices(backend="cpu")[0]):
        while sum(len(part["rewards"]) for part in found) < rows:
            columns = jax.device_get(_episodes(jax.random.fold_in(jax.random.key(seed), len(found)), scene))
            kept = columns.pop("kept")
            found.append({name: column[kept] for name, column in columns.items()})
    return {name: np.concatenate([part[name] for part in found])[:rows] for name in found[0]}


@partial(jax.jit, static_argnums=1)
def _episodes(key: Array, scene: Scene) -> dict[str, Array]:
    """Columns `[EPISODES, limit, ...]`, and which rows are `kept`: those up to the end of the episode."""
    limit = scene.task.spec.max_episode_steps
    assert limit is not None

    def step(carry: PyTree, now: tuple[Array, Array]) -> tuple[PyTree, dict[str, Array]]:
        (state, seen, over), (time, key) = carry, now
        keys = named_keys(key, "noise", "step")
        action = scene.expert(state)
        action = jnp.clip(action + scene.noise * jax.random.normal(keys["noise"], action.shape), -1.0, 1.0)
        state, found = scene.task.step(keys["step"], state, action)
        return (state, found.observation, over | found.terminal), {
            "observations": seen,
            "actions": action,
            "rewards": found.reward,
            "next_observations": found.observation,
            "terminals": found.terminal,
            "timeouts": (time == limit - 1) & ~found.terminal,
            "kept": ~over,
        }

    def episode(key: Array) -> dict[str, Array]:
        keys = named_keys(key, "reset", "steps")
        state, seen, _ = scene.task.reset(keys["reset"])
        steps = jnp.arange(limit), jax.random.split(keys["steps"], limit)
        return jax.lax.scan(step, (state, seen, jnp.zeros((), bool)), steps)[1]

    return jax.vmap(episode)(jax.random.split(key, EPISODES))
