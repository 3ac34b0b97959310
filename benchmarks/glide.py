"""A planner's demonstrations cloned by a diffusion policy (GLIDE): success and times of both.

    python benchmarks/glide.py --noise 0.3 0 --seeds 3

Prints JSON. Demonstrations are those of the planner of `jdp/Clutter-v0` (`jdp.tasks.scenes`), made where they
are missing, with noise in what is executed and without; clones learn what was planned. All are scored on
scenes that are not in the data, `jdp/Clutter-v0` and `jdp/Shaken-v0`, in which a force pushes the point.
Intervals are Clopper and Pearson's over the episodes of all seeds. Times are of one environment on the host,
in turns: `decision` of a step at which the policy drew anew, `step` the mean of all steps, for a clone
executes some actions of each chunk. `batch` is a decision in one of 64 environments in one program, where
nothing is lost between the steps.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from common import interleaved, machine

import jdp
from jdp.data.recipes import Making, made
from jdp.data.recipes.scenes import planner_of, recipe_of
from jdp.evaluation import environment_maker
from jdp.evaluation.statistics import success_interval
from jdp.loops.latency import latency
from jdp.loops.online import score_together
from jdp.policies.diffusion_policy import DiffusionPolicyConfig
from jdp.tasks.scenes import SCENES, Scene
from jdp.types import Method, PyTree

DATA, OTHERS = "jdp/Clutter-v0", ("jdp/Clutter-v0", "jdp/Shaken-v0")
ROUNDS, DECISIONS, BATCH = 5, 20, 64  # of times
Player = tuple[Method, PyTree]  # with states [S, ...]


def planner(agent: str, samples: int) -> Player:
    """The agent with the expert's settings, but for the number of draws, of which as large a share counts."""
    scene = SCENES[DATA]
    settings = dict(scene.expert.settings)
    elites = max(2, samples * settings["elites"] // settings["samples"])
    as_agent = scene._replace(expert=scene.expert._replace(agent=agent))
    method = planner_of(as_agent, samples=samples, elites=elites)
    return method, jax.tree.map(lambda x: x[None], method.learner.init(jax.random.key(0), ()))


def clone(scene: Scene, args: Any) -> tuple[Player, dict[str, Any]]:
    """Policies trained on data with the scene's noise, and what is known of these."""
    data = jdp.data.load(str(made(recipe_of(scene), Making(rows=args.rows))))
    config = DiffusionPolicyConfig(
        features=args.features,
        learning_rate=1e-3,
        steps=args.updates,
        execute=args.execute,
        sampling_steps=args.steps,
        ema=args.ema,
    )
    method, began = jdp.policies.make(config, data.spec), time.process_time()
    states = jdp.loops.train(
        method.learner,
        jdp.data.prepared(method.learner.draws, data),
        key=jax.random.key(0),
        updates=args.updates,
        batch_size=args.batch,
        seeds=args.seeds,
    )
    jax.block_until_ready(states)
    known = {"rows": len(data), "episodes": len(data.starts)}
    return (method, states), known | {"training_seconds": round(time.process_time() - began, 1)}


def scores(player: Player, args: Any) -> dict[str, Any]:
    """Of each scene the success in percent, its interval, that of each seed, and steps of a success."""
    method, states = player
    seeds = jax.tree.leaves(states)[0].shape[0]
    found = {}
    for name in OTHERS:
        task, key = SCENES[name].task, jax.random.key(1)
        options = {"key": key, "seeds": seeds, "episodes": args.episodes}
        played = score_together(method.policy, states, task, **options)
        success, lengths = played["success"] > 0, played["lengths"]
        rate = success_interval(success)
        limit = task.spec.max_episode_steps
        found[name] = {
            "success": [round(x, 1) for x in (rate.estimate, rate.low, rate.high)],
            "each": [round(100 * float(x), 1) for x in success.mean(1)],
            "steps": round(float(lengths[success].mean()), 1) if success.any() else None,
            "out_of_time": round(100 * float(((lengths == limit) & ~success).mean()), 1),
        }
    return found


def batched(player: Player) -> Callable[[], Any]:
    """A decision in each of `BATCH` environments at the beginning of an episode."""
    (method, states), task = player, SCENES[DATA].task
    state, keys = jax.tree.map(lambda x: x[0], states), jax.random.split(jax.random.key(2), BATCH)
    seen = jax.vmap(lambda key: task.reset(key)[1])(keys)
    act, carry = jax.jit(method.policy.act), method.policy.init(seen)
    return lambda: act(keys[0], state, carry, seen, jnp.zeros((BATCH, 0)))[1].action


def times(players: dict[str, Player]) -> dict[str, dict[str, float]]:
    """Milliseconds of each, medians over rounds of turns: a busy machine disturbs all alike."""
    make, taken = environment_maker(SCENES[DATA].task.spec), {name: [] for name in players}
    for turn in range(ROUNDS):
        for name, (method, states) in players.items():
            state = jax.tree.map(lambda x: x[0], states)
            found = latency(method.policy, jax.random.key(turn), state, make, decisions=DECISIONS, seed=turn)
            taken[name].append(found)
    together = interleaved({name: batched(player) for name, player in players.items()}, ROUNDS)
    return {
        name: {
            "batch": round(1e3 * together[name] / BATCH, 4),
            "decision": round(1e3 * statistics.median(x.median for x in found), 3),
            "step": round(1e3 * statistics.median(x.step for x in found), 3),
        }
        for name, found in taken.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--planners", nargs="*", default=["cem:128", "mppi:128"], help="agent:draws")
    parser.add_argument("--noise", type=float, nargs="*", default=[0.3, 0.0], help="in what is executed")
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--seeds", type=int, default=3, help="of training")
    parser.add_argument("--updates", type=int, default=2000)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--features", type=int, default=256)
    parser.add_argument("--execute", type=int, default=8, help="actions of a chunk of 16")
    parser.add_argument("--steps", type=int, default=5, help="of the clone's sampler")
    parser.add_argument("--ema", type=float, default=0.99)
    parser.add_argument("--episodes", type=int, default=256, help="of each seed")
    args = parser.parse_args()
    players: dict[str, Player] = {}
    lines: dict[str, dict[str, Any]] = {}
    for told in args.planners:
        agent, samples = told.split(":")
        players[told] = planner(agent, int(samples))
        lines[told] = scores(players[told], args)
        print(told, json.dumps(lines[told]), file=sys.stderr, flush=True)
    for noise in args.noise:
        name = f"clone, noise {noise}"
        players[name], known = clone(SCENES[DATA]._replace(noise=noise), args)
        lines[name] = known | scores(players[name], args)
        print(name, json.dumps(lines[name]), file=sys.stderr, flush=True)
    for name, taken in times(players).items():
        lines[name]["milliseconds"] = taken
    print(json.dumps({"results": lines, "settings": vars(args), "machine": machine()}, indent=1))


if __name__ == "__main__":
    main()
