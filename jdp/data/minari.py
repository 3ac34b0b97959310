"""Reader of Minari datasets with vectors as observations and actions, or dicts of goal tasks."""

import contextlib
import hashlib
import io
import re
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium.envs.registration import EnvSpec

from jdp.data import checks, names
from jdp.data.actions import Asked, unit_box
from jdp.data.episodes import Episodes, Origin, make_episodes
from jdp.errors import UserError
from jdp.tasks.environments import box_of, description, settings_of
from jdp.tasks.families import goal_entries
from jdp.types import Spec


def load_minari(dataset_id: str, asked: Asked = Asked()) -> Episodes:  # noqa: B008 (frozen)
    """A Minari dataset, downloaded only if it is not in `$MINARI_DATASETS_PATH`.

    Its task is the environment that it names for evaluation, else that of the recording: with its settings,
    wrappers and time limit, as `recover_environment(eval_env=True)` makes it.

    An episode of `T` steps holds `T + 1` observations there, so every successor is exact. Of the dict
    observations of goal tasks, "observation" is read; of AntMaze the position "achieved_goal" before it,
    which gives D4RL's 29 entries. Goals are left out: they are drawn in hindsight.

    Raises:
        UserError: for an unknown id, a failed download, spaces that are neither flat boxes nor such
            dicts, or values that `jdp.data.checks` refuses.
    """
    if not re.search(r"-v\d+$", dataset_id):
        raise UserError(
            f"{dataset_id!r} is no file here, and a Minari id needs a version, such as {dataset_id}-v0"
        )
    dataset = _open(dataset_id)
    keys = _observation_keys(dataset)
    where = f"Minari dataset {dataset_id}"
    columns = {key: np.concatenate(parts) for key, parts in _collect(dataset, keys, where).items()}
    observations = checks.float_rows(columns["observations"], "observations", where)
    actions = checks.float_rows(columns["actions"], "actions", where)
    spec = _spec(dataset, observations.shape[1], actions.shape[1], asked)
    box = box_of(dataset.action_space)
    units = "task" if box is not None and asked.actions == "auto" else asked.actions
    actions, spec, notice = unit_box(actions, spec, where, units, box)
    return make_episodes(
        observations,
        actions,
        checks.float_column(columns["rewards"], "rewards", where),
        checks.float_rows(columns["next_observations"], "observations", where),
        columns["terminals"].astype(bool),
        columns["timeouts"].astype(bool),
        spec=spec,
        origin=_origin(dataset, dataset_id, spec).noting(_task_notice(spec), notice),
    )


def _open(dataset_id: str) -> Any:
    import minari

    try:
        return minari.load_dataset(dataset_id)
    except FileNotFoundError:
        pass
    except Exception as error:
        raise UserError(f"Minari dataset {dataset_id} on disk cannot be read: {_line(error)}") from error
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # minari prints
            return minari.load_dataset(dataset_id, download=True)
    except ImportError as error:
        raise UserError(
            f"Minari dataset {dataset_id} is not on disk, and to download it jdp needs an extra: "
            "pip install 'jdp[hf]'"
        ) from error
    except Exception as error:  # of several HTTP libraries, which are not ours to know
        raise UserError(
            f"could not download Minari dataset {dataset_id}: {_line(error)}; check the id and the "
            f"network, or put the dataset at {minari_path(dataset_id)}"
        ) from error


def minari_path(dataset_id: str) -> Path:
    """The folder of a local Minari dataset, whether or not it is there."""
    from minari.storage.datasets_root_dir import get_dataset_path

    return get_dataset_path(dataset_id)


def _line(error: Exception) -> str:
    text = str(error).strip().splitlines()
    return text[0] if text else type(error).__name__


def _observation_keys(dataset: Any) -> tuple[str, ...]:
    """The entries of a dict observation to read, in this order; () where observations are vectors."""
    from gymnasium.spaces import Box, Dict

    observations, keys = dataset.observation_space, ()
    if isinstance(observations, Dict):
        env = dataset.env_spec.id if dataset.env_spec is not None else ""
        ant = "antmaze" in dataset.id.lower() or env.startswith("AntMaze_")
        keys = ("achieved_goal", "observation") if ant else ("observation",)
        if missing := [key for key in keys if key not in observations.spaces]:
            raise UserError(
                f"Minari dataset {dataset.id}: observations are a dict with keys "
                f"{', '.join(observations.keys())}, without {' and '.join(map(repr, missing))}"
            )
    spaces = [("observations", observations[key]) for key in keys] or [("observations", observations)]
    for what, space in (*spaces, ("actions", dataset.action_space)):
        if not isinstance(space, Box) or len(space.shape) != 1:
            raise UserError(f"Minari dataset {dataset.id}: {what} are {space}; jdp reads flat boxes")
    return keys


def _flat(observations: Any, keys: tuple[str, ...]) -> np.ndarray:
    return np.concatenate([observations[key] for key in keys], axis=1) if keys else np.asarray(observations)


def _collect(dataset: Any, observation_keys: tuple[str, ...], where: str) -> dict[str, list[np.ndarray]]:
    keys = ("observations", "actions", "rewards", "next_observations", "terminals", "timeouts")
    columns: dict[str, list[np.ndarray]] = {key: [] for key in keys}
    for episode in dataset.iterate_episodes():
        steps, observations = len(episode.rewards), _flat(episode.observations, observation_keys)
        if len(observations) != steps + 1:
            raise UserError(
                f"{where}: episode {episode.id} has {len(observations)} observations for "
                f"{steps} steps, not {steps + 1}"
            )
        ends = np.arange(1, steps + 1) == steps
        for key, values in zip(
            keys,
            (
                observations[:-1],
                episode.actions,
                episode.rewards,
                observations[1:],
                episode.terminations,
                ends,
            ),
            strict=True,
        ):
            columns[key].append(np.asarray(values))
    if not columns["rewards"]:
        raise UserError(f"{where}: it holds no episodes")
    return columns


def _spec(dataset: Any, observation_dim: int, action_dim: int, asked: Asked) -> Spec:
    metadata, told = dataset.storage.metadata, None
    judge = getattr(dataset, "_eval_env_spec", None)  # no public name gives it without making the task
    found = dataset.env_spec if judge is None else judge
    env_id = asked.env_id or (found.id if found is not None else None)
    if found is not None and asked.env_id is None:
        told = description(found)
    said = found.max_episode_steps if found is not None and found.id == env_id else None
    limit = asked.limit(None if said is None else int(said), env_id)
    # Returns under other settings are not on D4RL's scale.
    reference = names.locomotion_reference(env_id, limit) if told is None else None
    low, high = metadata.get("ref_min_score"), metadata.get("ref_max_score")
    if low is not None and high is not None and high > low:
        score_range = (float(low), float(high))
    else:
        score_range = reference.score_range if reference else None
    goal = goal_entries(env_id, observation_dim)
    return Spec(observation_dim, action_dim, env_id, limit, score_range, goal, env_spec=told)


def _task_notice(spec: Spec) -> str:
    """What distinguishes the dataset's task from that of its id."""
    if spec.env_spec is None:
        return ""
    told = settings_of(spec)
    wrappers = [w.name for w in EnvSpec.from_json(spec.env_spec).additional_wrappers]
    parts = [*(f"{k}={v}" if len(str(v)) < 40 else k for k, v in told.items()), *wrappers]
    return f"plays in {spec.env_id} as the dataset says ({', '.join(parts) or 'not registered here'})"


def _origin(dataset: Any, dataset_id: str, spec: Spec) -> Origin:
    metadata = dataset.storage.metadata
    digest, size = hashlib.sha256(), 0
    folder = Path(dataset.storage.data_path)
    for path in sorted(p for p in folder.rglob("*") if p.is_file() and p.name != "metadata.json"):
        digest.update(path.relative_to(folder).as_posix().encode())
        with open(path, "rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
        size += path.stat().st_size
    name = f"{dataset_id} (Minari)"
    own_scale = metadata.get("ref_max_score") is not None
    return Origin(
        name=name,
        kind="minari",
        path=str(folder),
        sha256=digest.hexdigest(),
        size=size,
        licence=str(metadata.get("license") or "see the dataset's page at minari.farama.org"),
        notice="" if own_scale or spec.score_range is None else names.scale_notice(name, spec.env_id),
    )
