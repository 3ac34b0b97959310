"""How many denoising steps a plan needs, by maze, start and goal (after HBPO); printed as JSON.

    python benchmarks/budgets.py [--seeds 5] [--episodes 200] [--mazes easy hard] [--smoke]

The planners that come with jdp for an easy maze and a harder one draw one plan an episode, with few denoising
steps or many, and follow it. Each budget is tried from the same random starts to the same random goals. Of
these records a small network learns which state needs which budget (`jdp.learning.budgets`), and then it
chooses in new episodes (`jdp.policies.budgeted`). Beside it: the same budget always, and `in hindsight` the
cheapest one that reaches the goal, the first where none does: what no choice before the fact can beat. A
maze's choice is its own, as its planner is. Student's t over seeds, which differ in episodes, in noise and in
what is learned, but not in the planner.
"""

import argparse
import json
import sys
import time
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from common import machine
from jax import Array

import jdp
from jdp.evaluation.statistics import interval
from jdp.learning.budgets import BudgetConfig, Budgets, Records, learn_budgets
from jdp.loops.collect import act, start
from jdp.planners.diffuser import DiffuserPlannerConfig
from jdp.policies.budgeted import BudgetedState, budgeted, learned
from jdp.runs import LoadedRun
from jdp.tasks import simulators
from jdp.types import Bound, Policy, PyTree, Task, named_keys

MODELS = {"easy": "maze2d-umaze-diffuser", "hard": "maze2d-medium-diffuser"}
STEPS = (2, 4, 8, 20)  # of a plan, network calls each
CHOICE = BudgetConfig(updates=1000)


class Asked(NamedTuple):
    """What chooses: `place` where it is not negative, else what was learned."""

    place: Array  # []
    budgets: Budgets


class Played(NamedTuple):
    """N episodes."""

    state: Array  # [N, O + G], what the choice sees at the start
    success: Array  # [N] bool
    calls: Array  # [N] int32, of the network


def ways(fixed: list[Played], chosen: Played) -> dict[str, tuple[float, float]]:
    """Success and mean calls of every budget, of the learned choice, and of what no choice can beat."""
    found = {f"always {n}": p for n, p in zip(STEPS, fixed, strict=True)} | {"learned": chosen}
    success = np.stack([p.success for p in fixed])
    needed = np.where(success.any(0), np.array(STEPS)[success.argmax(0)], STEPS[0])
    told = {way: (float(np.mean(p.success)), float(np.mean(p.calls))) for way, p in found.items()}
    return told | {"in hindsight": (float(success.any(0).mean()), float(needed.mean()))}


def _choose(asked: Asked, observation: Array, goal: Array, *, choose: Any) -> Array:
    own = choose(asked.budgets, observation, goal)
    return jnp.where(asked.place >= 0, asked.place, own)


def policy_of(run: LoadedRun) -> Policy:
    """The planner, with as many denoising steps as are asked for."""
    assert isinstance(run.settings, DiffuserPlannerConfig)
    sampling = run.settings.sampling
    chosen = [replace(run.settings, sampling=replace(sampling, steps=n)) for n in STEPS]
    policies = tuple(jdp.planners.make(settings, run.spec).policy for settings in chosen)
    return budgeted(policies, STEPS, Bound(_choose, (("choose", learned(len(STEPS), CHOICE)),)))


@partial(jax.jit, static_argnames=("policy", "task", "episodes"))
def play(key: Array, state: PyTree, asked: Asked, *, policy: Policy, task: Task, episodes: int) -> Played:
    """Each of so many episodes to its end; the key is consumed."""
    keys = named_keys(key, "begin", "act")
    acting = start(task, policy, keys["begin"], episodes)
    shown = jnp.concatenate([acting.running.observation, acting.running.goal], axis=-1)
    none = jnp.zeros(episodes, bool), jnp.zeros(episodes, jnp.int32), jnp.ones(episodes, bool)

    def body(carry: Any, key: Array) -> Any:
        acting, (success, calls, running) = carry
        acting, (rollout, outcome) = act(task, policy, key, BudgetedState(state, asked), acting)
        success = success | (running & outcome.success)
        spent = rollout.decision.steps
        assert spent is not None  # `budgeted` tells it
        calls = calls + jnp.where(running, spent, 0)
        return (acting, (success, calls, running & ~outcome.ended)), None

    limit = task.spec.max_episode_steps
    assert limit is not None
    (_, (success, calls, _)), _ = jax.lax.scan(body, (acting, none), jax.random.split(keys["act"], limit))
    return Played(shown, success, calls)


def in_maze(name: str, seeds: int, episodes: int) -> dict[str, np.ndarray]:
    """`[seeds, 2]`, success and mean calls of every way to choose."""
    run = jdp.load_pretrained(name)
    task, state, policy = simulators.simulator(run.spec.env_id or ""), run.state(), policy_of(run)
    own = partial(play, policy=policy, task=task)
    rows: dict[str, list[tuple[float, float]]] = {}
    width = run.spec.observation_dim + len(run.spec.goal)
    blank = Records(jnp.zeros((1, width)), jnp.zeros(1, jnp.int32), jnp.zeros(1))
    learn = jax.jit(partial(learn_budgets, budgets=len(STEPS), config=CHOICE))
    unlearned = learn(jax.random.key(0), blank)

    def every(key: Array) -> list[Played]:  # of every budget, on the same episodes
        asked = [Asked(jnp.asarray(i), unlearned) for i in range(len(STEPS))]
        return [own(key, state, each, episodes=episodes) for each in asked]

    for seed in range(seeds):
        keys = named_keys(jax.random.key(seed), "records", "choice", "report")
        tried = every(keys["records"])
        budget = jnp.repeat(jnp.arange(len(STEPS)), episodes)
        states, won = (jnp.concatenate([getattr(p, k) for p in tried]) for k in ("state", "success"))
        choice = learn(keys["choice"], Records(states, budget, won.astype(jnp.float32)))
        fixed = every(keys["report"])
        chosen = own(keys["report"], state, Asked(jnp.asarray(-1), choice), episodes=episodes)
        for way, pair in ways(fixed, chosen).items():
            rows.setdefault(way, []).append(pair)
    return {way: np.array(found) for way, found in rows.items()}


def rounded(values: Any) -> list[float]:
    return [round(float(x), 3) for x in values]


def told(found: dict[str, np.ndarray]) -> dict[str, Any]:
    """Intervals of success and of calls, and of what the learned choice has more than the dearest budget."""
    rows = {
        way: {"success": rounded(interval(x[:, 0])), "calls": rounded(interval(x[:, 1]))}
        for way, x in found.items()
    }
    most = found[f"always {STEPS[-1]}"]
    less = {
        "success": rounded(interval(found["learned"][:, 0] - most[:, 0])),  # of the same episodes
        "share_of_calls": rounded(interval(found["learned"][:, 1] / most[:, 1])),
    }
    return {**rows, f"learned, beside always {STEPS[-1]}": less}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--episodes", type=int, default=200, help="of each maze and budget, twice")
    parser.add_argument("--mazes", nargs="*", choices=MODELS, default=tuple(MODELS))
    parser.add_argument("--smoke", action="store_true", help="tiny sizes, for the plumbing")
    args = parser.parse_args()
    if args.smoke:
        args.seeds, args.episodes = 2, 4
    results, all_of = {}, []
    for maze, name in ((maze, MODELS[maze]) for maze in args.mazes):
        began = time.process_time()
        all_of.append(found := in_maze(name, args.seeds, args.episodes))
        results[maze] = {**told(found), "processor_seconds": round(time.process_time() - began, 1)}
        print(json.dumps({maze: results[maze]}), file=sys.stderr, flush=True)
    results["all"] = told({way: np.mean([found[way] for found in all_of], axis=0) for way in all_of[0]})
    settings = {"settings": vars(args), "models": MODELS, "steps": STEPS, "machine": machine()}
    print(json.dumps({"results": results, **settings}, indent=1))


if __name__ == "__main__":
    main()
