"""CORL's TD3+BC and IQL (PyTorch): its updates from its own buffer, and its evaluation."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from agents import SPEC
from evaluation import hopper

from peers import Pair, Peer, importing, module, ours

DIM, ACTIONS, COUNT, EPISODES, STEPS = SPEC.observation_dim, SPEC.action_dim, 20, 10, 300


class OldHopper:
    """Hopper-v5 as `evaluation.hopper` plays it, with the functions that gym had."""

    def __init__(self) -> None:
        self.env = gym.make("Hopper-v5", max_episode_steps=STEPS, terminate_when_unhealthy=False)

    def seed(self, seed: int) -> None:
        self.env.reset(seed=seed)

    def reset(self) -> np.ndarray:
        return self.env.reset()[0]

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, dict]:
        observation, reward, terminated, truncated, info = self.env.step(action)
        return observation, float(reward), terminated or truncated, info


def pairs(folder: Path, rows: int) -> list[Pair]:
    with importing(folder):
        files = folder / "algorithms" / "offline"
        td3, iql = (module(files / f"{name}.py", f"corl_{name}") for name in ("td3_bc", "iql"))
    buffer = td3.ReplayBuffer(DIM, ACTIONS, rows)
    rng = np.random.default_rng(0)
    buffer.load_d4rl_dataset(
        {
            "observations": rng.normal(size=(rows, DIM)).astype(np.float32),
            "actions": rng.uniform(-1, 1, (rows, ACTIONS)).astype(np.float32),
            "rewards": rng.normal(size=rows).astype(np.float32),
            "next_observations": rng.normal(size=(rows, DIM)).astype(np.float32),
            "terminals": np.zeros(rows, np.float32),
        }
    )
    agent = td3_bc(td3)
    env, mine = OldHopper(), hopper(STEPS, EPISODES)
    count = {"their_units": COUNT, "our_units": COUNT}
    return [
        # One of our updates is two critic steps and one of the actor, as two of theirs.
        Pair("TD3+BC update", _updates(agent, buffer, 2), ours.updates("td3_bc", rows, COUNT), **count),
        Pair("IQL update", _updates(implicit(iql), buffer, 1), ours.updates("iql", rows, COUNT), **count),
        Pair(f"evaluation, {EPISODES} episodes of {STEPS} steps in Hopper-v5",
             lambda: td3.eval_actor(env, agent.actor, "cpu", EPISODES, 0), mine),
    ]  # fmt: skip


def _updates(agent: Any, buffer: Any, each: int) -> Callable[[], None]:
    def run() -> None:
        for _ in range(each * COUNT):
            agent.train(buffer.sample(256))

    return run


def _adam(net: Any) -> Any:
    import torch

    return torch.optim.Adam(net.parameters(), lr=3e-4)


def td3_bc(peer: Any) -> Any:
    actor, one, two = peer.Actor(DIM, ACTIONS, 1.0), peer.Critic(DIM, ACTIONS), peer.Critic(DIM, ACTIONS)
    return peer.TD3_BC(1.0, actor, _adam(actor), one, _adam(one), two, _adam(two))


def implicit(peer: Any) -> Any:
    actor, q, value = (
        peer.GaussianPolicy(DIM, ACTIONS, 1.0),
        peer.TwinQ(DIM, ACTIONS),
        peer.ValueFunction(DIM),
    )
    return peer.ImplicitQLearning(1.0, actor, _adam(actor), q, _adam(q), value, _adam(value))


PEER = Peer("CORL", "corl-team/CORL", "eeeeef2", ("torch",), pairs)
