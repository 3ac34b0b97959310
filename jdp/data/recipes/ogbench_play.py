"""OGBench's robot arm that plays: scripted plans to one random target after another."""

from collections.abc import Iterator
from typing import NamedTuple, Protocol, cast

import gymnasium as gym
import numpy as np

from jdp.data.recipes.blocks import MakeEpisode
from jdp.tasks.environments import make_env
from jdp.tasks.global_random import GlobalRandom

PLAN_NOISE = 0.1  # of the way points of a plan
SMOOTHING = 0.5  # steps, standard deviation of the Gaussian that smooths this noise along a plan
STACKED = {  # the range of the probability, one an episode, that a cube's target is another cube
    "cube-single": (0.0, 0.0),
    "cube-double": (0.0, 0.25),
    "scene": (0.5, 0.5),
    "puzzle-3x3": (0.5, 0.5),
}
_CUBE = slice(14, 17)  # of qpos: where the first cube is
Rows = dict[str, np.ndarray]


class _Oracle(Protocol):
    """A scripted oracle of OGBench, which follows a plan that it draws at its reset."""

    @property
    def done(self) -> bool: ...
    def reset(self, ob: np.ndarray, info: dict) -> None: ...
    def select_action(self, ob: np.ndarray, info: dict) -> np.ndarray: ...


class _Targets(Protocol):
    """OGBench's environment in its mode for data collection."""

    def set_new_target(self, *, p_stack: float) -> tuple[np.ndarray, dict]: ...


class _Arm(NamedTuple):
    env: gym.Env
    oracles: dict[str, _Oracle]  # by kind of target


def opened_play(scene: str, steps: int) -> MakeEpisode:
    """The maker of episodes `[steps, ...]` of the scene "cube-single" or another of `STACKED`.

    Raises:
        UserError: if the package is not installed.
    """
    env = make_env(
        f"{scene}-v0",
        max_episode_steps=steps,
        terminate_at_goal=False,
        mode="data_collection",
        disable_env_checker=True,
    )
    arm = _Arm(env, _oracles(scene, env))

    def episode(seed: int, number: int) -> Rows:
        rng = np.random.default_rng([seed, number])
        reset_seed = int(rng.integers(1 << 32))
        with GlobalRandom(int(rng.integers(1 << 32))).lent():  # plans draw from it
            while True:
                rows = _played(arm, reset_seed, float(rng.uniform(*STACKED[scene])), steps)
                if scene != "scene" or healthy(rows["qpos"]):
                    return rows
                reset_seed = None  # what the environment drew goes on

    return episode


def healthy(qpos: np.ndarray) -> bool:
    """Whether scene's cube stays in sight of the camera or in the drawer, at all states `[N, 25]`."""
    _, y, z = qpos[:, _CUBE].T
    in_drawer = (z >= 0.06) & (z <= 0.08)
    return not np.any((y >= 0.29) | ((y <= -0.3) & ~in_drawer))


def _oracles(scene: str, env: gym.Env) -> dict[str, _Oracle]:
    from ogbench.manipspace.oracles.plan.button_plan import ButtonPlanOracle
    from ogbench.manipspace.oracles.plan.cube_plan import CubePlanOracle
    from ogbench.manipspace.oracles.plan.drawer_plan import DrawerPlanOracle
    from ogbench.manipspace.oracles.plan.window_plan import WindowPlanOracle

    noise = {"env": env, "noise": PLAN_NOISE, "noise_smoothing": SMOOTHING}
    if scene.startswith("cube"):
        return {"cube": CubePlanOracle(**noise)}
    if scene.startswith("puzzle"):
        return {"button": ButtonPlanOracle(gripper_always_closed=True, **noise)}
    return {
        "cube": CubePlanOracle(**noise),
        "button": ButtonPlanOracle(**noise),
        "drawer": DrawerPlanOracle(**noise),
        "window": WindowPlanOracle(**noise),
    }


def _played(arm: _Arm, reset_seed: int | None, stacked: float, steps: int) -> Rows:
    rows = list(_rows(arm, reset_seed, stacked, steps))
    kinds = {key: np.int64 if key == "button_states" else np.float32 for key in rows[0]}
    columns = {key: np.array([row[key] for row in rows], kind) for key, kind in kinds.items()}
    return columns | {"terminals": np.arange(steps) == steps - 1}


def _rows(arm: _Arm, reset_seed: int | None, stacked: float, steps: int) -> Iterator[Rows]:
    targets = cast(_Targets, arm.env.unwrapped)
    observation, info = arm.env.reset(seed=reset_seed)
    oracle = arm.oracles[info["privileged/target_task"]]
    oracle.reset(observation, info)
    for _ in range(steps):
        action = np.clip(oracle.select_action(observation, info), -1, 1)
        following, _, _, _, info = arm.env.step(action)
        if oracle.done:
            seen, target = targets.set_new_target(p_stack=stacked)
            oracle = arm.oracles[target["privileged/target_task"]]
            oracle.reset(seen, target)
        row = {"observations": observation, "actions": action}
        row |= {"qpos": info["prev_qpos"], "qvel": info["prev_qvel"]}
        if "prev_button_states" in info:
            row["button_states"] = info["prev_button_states"]
        yield row
        observation = following
