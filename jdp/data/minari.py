"""Reader of Minari datasets with flat observations and actions, local or remote."""

import contextlib
import hashlib
import io
import re
from pathlib import Path
from typing import Any

import numpy as np

from jdp.data import checks, names
from jdp.data.episodes import Episodes, Origin, make_episodes
from jdp.errors import UserError
from jdp.types import Spec


def load_minari(dataset_id: str, *, env_id: str | None = None) -> Episodes:
    """A Minari dataset, downloaded only if it is not in `$MINARI_DATASETS_PATH`.

    An episode of `T` steps holds `T + 1` observations there, so every successor is exact.

    Raises:
        UserError: for an unknown id, a failed download, spaces that are not flat boxes, or values
            that `jdp.data.checks` refuses.
    """
    if not re.search(r"-v\d+$", dataset_id):
        raise UserError(
            f"{dataset_id!r} is no file here, and a Minari id needs a version, such as {dataset_id}-v0"
        )
    dataset = _open(dataset_id)
    _require_flat(dataset)
    where = f"Minari dataset {dataset_id}"
    columns = {key: np.concatenate(parts) for key, parts in _collect(dataset, where).items()}
    observations = checks.float_rows(columns["observations"], "observations", where)
    actions = checks.float_rows(columns["actions"], "actions", where)
    checks.scaled_actions(actions, where)
    spec = _spec(dataset, observations.shape[1], actions.shape[1], env_id)
    return make_episodes(
        observations,
        actions,
        checks.float_column(columns["rewards"], "rewards", where),
        checks.float_rows(columns["next_observations"], "observations", where),
        columns["terminals"].astype(bool),
        columns["timeouts"].astype(bool),
        spec=spec,
        origin=_origin(dataset, dataset_id, spec),
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


def _require_flat(dataset: Any) -> None:
    from gymnasium.spaces import Box, Dict

    for key, space in (("observations", dataset.observation_space), ("actions", dataset.action_space)):
        if isinstance(space, Dict):
            raise UserError(
                f"Minari dataset {dataset.id}: {key} are a dict with keys {', '.join(space.keys())}, "
                "which jdp does not support yet; choose a dataset with flat observations"
            )
        if not isinstance(space, Box) or len(space.shape) != 1:
            raise UserError(f"Minari dataset {dataset.id}: {key} are {space}; jdp reads flat boxes")


def _collect(dataset: Any, where: str) -> dict[str, list[np.ndarray]]:
    keys = ("observations", "actions", "rewards", "next_observations", "terminals", "timeouts")
    columns: dict[str, list[np.ndarray]] = {key: [] for key in keys}
    for episode in dataset.iterate_episodes():
        steps = len(episode.rewards)
        if len(episode.observations) != steps + 1:
            raise UserError(
                f"{where}: episode {episode.id} has {len(episode.observations)} observations for "
                f"{steps} steps, not {steps + 1}"
            )
        ends = np.arange(1, steps + 1) == steps
        for key, values in zip(
            keys,
            (
                episode.observations[:-1],
                episode.actions,
                episode.rewards,
                episode.observations[1:],
                episode.terminations,
                ends,
            ),
            strict=True,
        ):
            columns[key].append(np.asarray(values))
    if not columns["rewards"]:
        raise UserError(f"{where}: it holds no episodes")
    return columns


def _spec(dataset: Any, observation_dim: int, action_dim: int, env_id: str | None) -> Spec:
    metadata, env_spec = dataset.storage.metadata, dataset.env_spec
    env_id = env_id or (env_spec.id if env_spec is not None else None)
    reference = names.locomotion_reference(env_id)
    low, high = metadata.get("ref_min_score"), metadata.get("ref_max_score")
    if low is not None and high is not None:
        score_range = (float(low), float(high))
    else:
        score_range = reference.score_range if reference else None
    steps = env_spec.max_episode_steps if env_spec is not None else None
    return Spec(observation_dim, action_dim, env_id, steps, score_range)


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
