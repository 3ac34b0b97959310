"""Experience goes out: the D4RL layout and Minari, so that other libraries can use what jdp made.

Both writers take `transitions` with fields `[N, ...]` in time order and `timeouts` `[N]` bool, True on
the last row of each fragment that did not end in a terminal.
"""

import json
import shutil
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jdp.data import checks
from jdp.data.ends import find_timeouts
from jdp.data.write import write_columns
from jdp.errors import StorageError, UserError
from jdp.tasks.families import gymnasium_id, register
from jdp.types import Spec, Transition


class _Columns(NamedTuple):
    observations: np.ndarray
    actions: np.ndarray
    rewards: np.ndarray
    next_observations: np.ndarray
    terminals: np.ndarray
    timeouts: np.ndarray


def save_d4rl(
    path: str | Path,
    transitions: Transition,
    timeouts: np.ndarray | None = None,
    *,
    env_id: str | None = None,
    spec: Spec | None = None,
    metadata: Mapping[str, str | int | float] | None = None,
    compact: bool = False,
) -> None:
    """Write a D4RL-layout HDF5 file, complete or not at all; an older file at `path` is replaced.

    Without `timeouts`, a fragment ends where `next_observation` is not the next row's observation. With the
    `spec` of the task, actions are written in its units, and the file says which task it is.
    `compact` leaves `next_observations` out, as many D4RL files do: a reader takes them from the next
    row, so the last one of each fragment is lost.

    Raises:
        StorageError: if it cannot be written.
        UserError: for arrays that `jdp.data.checks` refuses; with `compact` also where within a fragment
            `next_observation` is not the next row's observation.
    """
    path = Path(path)
    columns = _columns(transitions, timeouts, str(path))
    written, level = columns._asdict() | {"actions": _in_task(columns.actions, spec)}, 1
    if compact:
        _require_chained(columns, str(path))
        del written["next_observations"]
        level = 9
    entries = dict(metadata or {}) | _task_entries(env_id, spec)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_columns(path, written, entries, compression="gzip", compression_opts=level, shuffle=True)
    except OSError as error:
        raise StorageError(f"could not write {path}: {error.strerror or error}") from error


def _in_task(actions: np.ndarray, spec: Spec | None) -> np.ndarray:
    return actions if spec is None else np.asarray(spec.task_actions(actions), np.float32)


def _task_entries(env_id: str | None, spec: Spec | None) -> dict[str, str]:
    """What a file says of its task, for `jdp.data.sources`."""
    found = {"env_id": env_id or (spec.env_id if spec is not None else None)}
    if spec is not None and spec.action_low is not None:
        found["action_box"] = json.dumps([spec.action_low, spec.action_high])
    if spec is not None and spec.env_spec is not None:
        found["env_spec"] = spec.env_spec
    return {key: value for key, value in found.items() if value is not None}


def save_minari(
    dataset_id: str,
    transitions: Transition,
    timeouts: np.ndarray | None = None,
    *,
    env_id: str | None = None,
    spec: Spec | None = None,
    score_range: tuple[float, float] | None = None,
    algorithm: str | None = None,
    description: str | None = None,
) -> None:
    """Write a local Minari dataset (`$MINARI_DATASETS_PATH`), each fragment an episode.

    `score_range` goes into its metadata where `env_id` is given, as Minari has it. With the `spec` of the
    task, actions are written in its units, and the dataset recovers the task as it is.

    Raises:
        UserError: if the id exists, is malformed, the arrays are refused, or within a fragment
            `next_observation` is not the next row's observation: Minari has no place for it.
    """
    from jdp.data.minari import minari_path

    columns = _columns(transitions, timeouts, dataset_id)
    _require_chained(columns, dataset_id)
    folder = minari_path(dataset_id)
    if folder.exists():
        raise UserError(f"a Minari dataset {dataset_id} lies at {folder} already; choose another version")
    try:
        _create(dataset_id, columns, env_id, spec, score_range, algorithm, description)
    except Exception as error:
        shutil.rmtree(folder, ignore_errors=True)
        raise UserError(f"could not write Minari dataset {dataset_id}: {error}") from error


def _create(
    dataset_id: str,
    columns: _Columns,
    env_id: str | None,
    spec: Spec | None,
    score_range: tuple[float, float] | None,
    algorithm: str | None,
    description: str | None,
) -> None:
    import minari
    from gymnasium.envs.registration import EnvSpec
    from gymnasium.spaces import Box

    env_id = env_id or (spec.env_id if spec is not None else None)
    if env_id is not None:
        register(env_id)
        env_id = gymnasium_id(env_id)  # Minari makes the task
    low, high = score_range if score_range is not None and env_id is not None else (None, None)
    env = env_id if spec is None or spec.env_spec is None else EnvSpec.from_json(spec.env_spec)
    ones = np.ones(columns.actions.shape[1:], np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # one for each optional entry left out
        minari.create_dataset_from_buffers(
            dataset_id,
            _buffers(columns._replace(actions=_in_task(columns.actions, spec))),
            env=env,
            algorithm_name=algorithm,
            description=description,
            observation_space=Box(-np.inf, np.inf, columns.observations.shape[1:], np.float32),
            action_space=Box(_in_task(-ones, spec), _in_task(ones, spec), dtype=np.float32),
            ref_min_score=low,
            ref_max_score=high,
        )


def _columns(transitions: Transition, timeouts: np.ndarray | None, where: str) -> _Columns:
    observation, action, reward, next_observation, terminal = map(np.asarray, transitions[:5])
    terminals = checks.flag_column(terminal, "terminal", where)
    observations = checks.float_rows(observation, "observation", where)
    next_observations = checks.float_rows(next_observation, "next_observation", where)
    checks.same_length({"observation": observations, "terminal": terminals}, where)
    if timeouts is None:
        timeouts = find_timeouts(observations, next_observations, terminals, None)
    columns = _Columns(
        observations,
        checks.float_rows(action, "action", where),
        checks.float_column(reward, "reward", where),
        next_observations,
        terminals,
        checks.flag_column(np.asarray(timeouts), "timeouts", where) & ~terminals,
    )
    checks.same_length(columns._asdict(), where)
    checks.scaled_actions(columns.actions, where)
    columns.timeouts[-1] = not terminals[-1]
    return columns


def _require_chained(columns: _Columns, where: str) -> None:
    inside = ~(columns.terminals | columns.timeouts)[:-1]
    moved = np.any(columns.next_observations[:-1] != columns.observations[1:], axis=-1)
    if np.any(inside & moved):
        row = int(np.flatnonzero(inside & moved)[0])
        raise UserError(
            f"{where}: next_observation of row {row} is not the observation of row {row + 1}, and "
            "timeouts marks no end there; mark it, or write the D4RL layout in full"
        )


def _buffers(columns: _Columns) -> list:
    from minari.data_collector import EpisodeBuffer

    stops = np.flatnonzero(columns.terminals | columns.timeouts) + 1
    starts = np.concatenate([[0], stops[:-1]])
    observations, actions, rewards, successors, terminals, timeouts = columns
    return [
        EpisodeBuffer(
            observations=np.concatenate([observations[i:j], successors[j - 1 : j]]),  # type: ignore[arg-type]
            actions=actions[i:j],  # type: ignore[arg-type]
            rewards=rewards[i:j],  # type: ignore[arg-type]
            terminations=terminals[i:j],  # type: ignore[arg-type]
            truncations=timeouts[i:j],  # type: ignore[arg-type]
        )
        for i, j in zip(starts, stops, strict=True)
    ]
