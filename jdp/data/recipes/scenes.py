"""Data of jdp's own scenes: their experts with noise in the action, many episodes at once in one program.

Where the expert plans they are demonstrations as of GLIDE (Li et al. 2024, arXiv 2412.02676): of a planner,
in scenes that are drawn anew, without those that failed.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jdp import registry
from jdp.data import d4rl
from jdp.data.recipes.recipe import Order, Recipe, Store
from jdp.data.write import write_columns
from jdp.errors import UserError
from jdp.tasks.scenes import SCENES, Expert, Planner, Scene
from jdp.types import Method, PyTree, named_keys

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
    return recipe_of(scene)


def recipe_of(scene: Scene) -> Recipe:
    """The recipe of the data of any scene: of one with other noise, other discs, or one of yours."""
    facts = {"recipe": "scenes 1", "noise": scene.noise}  # goes up where the same seed gives other rows
    if isinstance(scene.expert, Planner):
        told = ", ".join(f"{setting} {value}" for setting, value in scene.expert.settings)
        planned = "as planned; those executed have the noise"
        facts |= {"planner": f"{scene.expert.agent} ({told})", "actions": planned, "episodes": "successes"}
    write = partial(_write, scene)
    return Recipe(str(scene.task.spec.env_id), "jdp", ROWS, facts, write, _STORE, LICENCE)


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


def planner_of(scene: Scene, **settings: object) -> Method:
    """The agent that is the scene's expert; it has nothing to learn, so `learner.init(key, ())` is its state.

    Args:
        settings: of its config, in the place of the expert's.

    Raises:
        UserError: for a scene whose expert does not plan, or settings that cannot be.
    """
    if not isinstance(planner := scene.expert, Planner):
        raise UserError(f"the expert of {scene.task.spec.env_id} is a function: call it")
    config = registry.entry("online", planner.agent).config(**{**dict(planner.settings), **settings})
    model = scene.task._replace(step=planner.step)
    return registry.make("online", config, model.spec, task=model)


class _Expert(NamedTuple):
    """Who acts in one episode."""

    begin: Callable[[Array], PyTree]  # of the first observation [O], what it remembers
    act: Callable[[Array, PyTree, PyTree, Array], tuple[PyTree, Array]]
    # act(key, memory, state, observation [O]) -> (memory, action [A])


def _function_of(expert: Expert) -> _Expert:
    return _Expert(lambda seen: (), lambda key, memory, state, seen: (memory, expert(state)))


def _planner_of(scene: Scene) -> _Expert:
    policy, learner = (method := planner_of(scene)).policy, method.learner
    learned = learner.init(jax.random.key(0), ())

    def act(key: Array, memory: PyTree, state: PyTree, seen: Array) -> tuple[PyTree, Array]:
        del state
        memory, decision = policy.act(key, learned, memory, seen[None], jnp.zeros((1, 0)))
        return memory, decision.action[0]

    return _Expert(lambda seen: policy.init(seen[None]), act)


@partial(jax.jit, static_argnums=1)
def _episodes(key: Array, scene: Scene) -> dict[str, Array]:
    """Columns `[EPISODES, limit, ...]`, and which rows are `kept`: those up to the end of the episode."""
    limit = scene.task.spec.max_episode_steps
    assert limit is not None
    plans = isinstance(scene.expert, Planner)
    expert = _planner_of(scene) if isinstance(scene.expert, Planner) else _function_of(scene.expert)
    uses = ("noise", "step", "plan") if plans else ("noise", "step")

    def step(carry: PyTree, now: tuple[Array, Array]) -> tuple[PyTree, dict[str, Array]]:
        (memory, state, seen, over), (time, key) = carry, now
        keys = named_keys(key, *uses)
        memory, wanted = expert.act(keys.get("plan", key), memory, state, seen)
        noisy = wanted + scene.noise * jax.random.normal(keys["noise"], wanted.shape)
        executed = jnp.clip(noisy, -1.0, 1.0)
        state, found = scene.task.step(keys["step"], state, executed)
        columns = {
            "observations": seen,
            "actions": jnp.clip(wanted, -1.0, 1.0) if plans else executed,
            "rewards": found.reward,
            "next_observations": found.observation,
            "terminals": found.terminal,
            "timeouts": (time == limit - 1) & ~found.terminal,
            "kept": ~over,
        }
        columns |= {"executed": executed} if plans else {}
        return (memory, state, found.observation, over | found.terminal), columns

    def episode(key: Array) -> dict[str, Array]:
        keys = named_keys(key, "reset", "steps")
        state, seen, _ = scene.task.reset(keys["reset"])
        steps = jnp.arange(limit), jax.random.split(keys["steps"], limit)
        begun = (expert.begin(seen), state, seen, jnp.zeros((), bool))
        columns = jax.lax.scan(step, begun, steps)[1]
        if plans:
            columns["kept"] &= jnp.any(columns["kept"] & (columns["rewards"] > 0))
        return columns

    return jax.vmap(episode)(jax.random.split(key, EPISODES))
