"""OGBench's rows relabelled for one of its single tasks, by OGBench itself."""

import warnings
from collections.abc import Mapping

import numpy as np

from jdp.errors import UserError
from jdp.tasks.environments import make_env
from jdp.tasks.global_random import GlobalRandom

NEEDED = ("qpos", "button_states")  # what rewards are computed from


def relabelled(env_id: str, arrays: Mapping[str, np.ndarray], where: str) -> dict[str, np.ndarray]:
    """`rewards` and `masks` `[N]` of the task "cube-single-play-singletask-task2-v0" for the rows of a file.

    Of the state of each row, before its action: minus the number of things that are not where the task wants
    them, and 0 of `masks` where all are (`ogbench.relabel_utils`, since ogbench 1.2).

    Args:
        arrays: `qpos` `[N, Q]`, and `button_states` `[N, B]` where there are buttons.

    Raises:
        UserError: if `arrays` lack one, there is no such task, or the package is missing.
    """
    needed = NEEDED if env_id.startswith(("scene", "puzzle")) else NEEDED[:1]
    if missing := [key for key in needed if key not in arrays]:
        raise UserError(f"{where}: no key {', '.join(map(repr, missing))}, which rewards of {env_id} need")
    rows, env = {key: arrays[key] for key in needed}, make_env(env_id)
    from ogbench.relabel_utils import relabel_dataset

    try:
        with warnings.catch_warnings(), GlobalRandom(0).lent():  # it resets the environment, to its one goal
            warnings.simplefilter("ignore")  # of the bounds' precision
            relabel_dataset(env_id, env, rows)
    except (IndexError, ValueError) as error:
        raise UserError(f"{where}: its states are not those of {env_id} ({error})") from error
    finally:
        env.close()
    return {key: rows[key] for key in ("rewards", "masks")}
