"""One episode with an exported policy, without jdp: pip install jax flatbuffers "gymnasium[mujoco]"

python experiments/act_exported.py policy.jaxexport
"""

import json
import sys
import zipfile

import gymnasium
import jax
import numpy as np
from gymnasium.envs.registration import EnvSpec
from jax import export


def load(path):
    """`(card, start, act)`: what is known of the policy, and its two functions."""
    with zipfile.ZipFile(path) as box:
        made = [export.deserialize(bytearray(box.read(name))) for name in ("start", "act")]
        return json.loads(box.read("card.json")), *(jax.jit(function.call) for function in made)


def seen(observation):
    """What the policy takes of one environment: [1, O], and [1, G] where the task has goals."""
    names = ("observation", "desired_goal")
    parts = [observation[n] for n in names] if isinstance(observation, dict) else [observation]
    return [np.asarray(part, np.float32)[None] for part in parts]


def play(card, start, act, seed=0):
    """The return of one episode."""
    if card.get("env_spec"):  # a task that its id does not tell
        env = gymnasium.make(EnvSpec.from_json(card["env_spec"]))
    else:
        env = gymnasium.make(**(card["make"] or {"id": card["task"]}))
    box = env.action_space
    assert isinstance(box, gymnasium.spaces.Box)
    observation, _ = env.reset(seed=seed)
    carry, key, total, over = start(seen(observation)[0]), jax.random.key(seed), 0.0, False
    while not over:
        key, now = jax.random.split(key)
        carry, action = act(jax.random.key_data(now), carry, *seen(observation))
        action = np.clip(np.asarray(action)[0], box.low, box.high)
        observation, reward, terminated, truncated, _ = env.step(action)
        total, over = total + float(reward), terminated or truncated
    return total


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python experiments/act_exported.py policy.jaxexport")
    try:
        card, start, act = load(sys.argv[1])
        print(f"{card['method']} on {card['task']}: return {play(card, start, act):.1f}")
    except FileNotFoundError:
        sys.exit(f"error: there is no file {sys.argv[1]}: make one with experiments/export.py")
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        sys.exit(f"error: give a file made by experiments/export.py for this task ({error})")
