"""What AlignDiff's plans achieve beside what is asked of them, attribute by attribute; printed as JSON.

    python benchmarks/attributes.py --keep results/steering
    python benchmarks/attributes.py --smoke

Speed and clearance in the U-maze of maze2d (the aligned planner of `steering.py`), speed and height of the
bundled hopper. A strength is asked for as the share of the data's segments that are weaker, of one attribute
at a time; `achieved` is the true share (of the labels, not of what was learned of them) of plans from states
of the data, in mazes to where their segments end. `error` is the mean distance of a plan's share from what
was asked, AlignDiff's measure (arXiv 2310.02054); beside it stands that of plans of which nothing is asked.
Student's t over training seeds.
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from common import machine, rounded
from matplotlib.figure import Figure
from steering import SEEDS, told, trained
from steering_worlds import STRENGTHS, maze, small

import jdp
from jdp import planners
from jdp.data import Episodes
from jdp.evaluation.statistics import interval
from jdp.learning import attributes
from jdp.planners.align_diff import FREE, AlignDiffConfig
from jdp.types import PyTree

ASKED = (0.1, 0.3, 0.5, 0.7, 0.9)
SEGMENTS = 4000  # of the data, beside which plans stand


class World(NamedTuple):
    """As `steering.trained` asks for it."""

    data: Episodes
    aligned: AlignDiffConfig


def of_maze(features: int) -> World:
    """The aligned planner of `steering.py`."""
    found = maze(200_000, features)
    return World(found.data, found.aligned)


def of_hopper(features: int) -> World:
    own = AlignDiffConfig(
        **small(features) | {"horizon": 32, "stride": 4, "replan_every": 8},
        attributes=("speed", "height"),
        wish=(FREE, FREE),
        candidates=8,
        strengths=STRENGTHS,
    )
    return World(jdp.data.load("hopper-medium", source="bundled"), own)


WORLDS = {"maze": of_maze, "hopper": of_hopper}  # by the names under which planners are kept


def asked_for(world: World, states: PyTree, seeds: int, plans: int) -> list[dict[str, Any]]:
    """A line for each attribute and strength."""
    config, spec = world.aligned, world.data.spec
    draws, rng = planners.make(config, spec).learner.draws, np.random.default_rng(0)
    rows = jdp.data.prepared(draws, world.data)
    whole = rows.starts[rows.starts + config.horizon <= rows.last]
    at = rng.choice(whole, SEGMENTS)[:, None] + np.arange(0, config.horizon, config.stride)
    segments, lines = np.asarray(rows.observation)[at], []
    seen, goal = segments[:plans, 0], segments[:plans, -1][:, list(spec.goal)]

    def strengths_of(wish: tuple[float, ...]) -> list[np.ndarray]:
        """Observations `[plans, H, O]` of each seed."""
        policy = planners.make(replace(config, wish=wish), spec).policy
        act = jax.jit(policy.act)
        made = []
        for seed in range(seeds):
            own = jax.tree.map(lambda x, seed=seed: x[seed], states)
            decision = act(jax.random.key(seed), own, policy.init(seen), seen, goal)[1]
            made.append(np.asarray(decision.plan.observation))
        return made

    free = strengths_of((FREE,) * len(config.attributes))
    for i, name in enumerate(config.attributes):
        strength = jax.jit(attributes.labeller(name, spec))
        data = np.sort(np.asarray(strength(jnp.asarray(segments))))

        def shares(made: list[np.ndarray], strength: Any = strength, data: np.ndarray = data) -> np.ndarray:
            found = [np.searchsorted(data, np.asarray(strength(jnp.asarray(x)))) for x in made]
            return np.stack(found) / len(data)

        unasked = shares(free)
        for wish in ASKED:
            own = tuple(wish if k == i else FREE for k in range(len(config.attributes)))
            achieved = shares(strengths_of(own))
            errors = {"error": achieved, "error_unasked": unasked}
            line = {"attribute": name, "asked": wish, "achieved": rounded(interval(achieved.mean(1)))}
            line |= {k: rounded(interval(np.abs(x - wish).mean(1))) for k, x in errors.items()}
            lines.append(line | {"unasked": rounded(interval(unasked.mean(1)))})
            told(json.dumps(lines[-1]))
    return lines


def picture(lines: list[dict[str, Any]]) -> Figure:
    """Achieved against asked, an attribute a panel."""
    panels = list(dict.fromkeys((x["world"], x["attribute"]) for x in lines))
    figure = Figure(figsize=(2.1 * len(panels), 2.3), layout="constrained", dpi=160)
    axes = figure.subplots(1, len(panels), sharex=True, sharey=True, squeeze=False)[0]
    for axis, (world, attribute) in zip(axes, panels, strict=True):
        own = [x for x in lines if (x["world"], x["attribute"]) == (world, attribute)]
        mean, low, high = np.array([x["achieved"] for x in own]).T
        asked = np.array([x["asked"] for x in own])
        axis.plot([0, 1], [0, 1], color="0.8", linewidth=0.8)
        axis.axhline(own[0]["unasked"][0], color="0.6", linewidth=0.8, linestyle=":")
        axis.errorbar(asked, mean, yerr=[mean - low, high - mean], fmt="o-", markersize=3, linewidth=0.9)
        axis.set_title(f"{world}: {attribute}", fontsize=8)
        axis.tick_params(labelsize=7)
        axis.spines[["top", "right"]].set_visible(False)
        axis.set_xlabel("asked", fontsize=8)
    axes[0].set_ylabel("achieved (share of the data)", fontsize=8)
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description="strengths achieved beside strengths asked")
    parser.add_argument("--keep", type=Path, help="a folder where trained planners are kept, and found again")
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--plans", type=int, default=100, help="of each seed")
    parser.add_argument("--updates", type=int, default=1200)
    parser.add_argument("--worlds", nargs="*", choices=WORLDS, default=list(WORLDS))
    parser.add_argument("--figure", type=Path, help="a file for the picture")
    parser.add_argument("--smoke", action="store_true", help="tiny sizes, for the plumbing")
    args = parser.parse_args()
    if args.smoke:
        args.seeds, args.plans, args.updates = 2, 4, 4
    lines = []
    for name in args.worlds:
        world = WORLDS[name](8 if args.smoke else 32)
        states = trained(world, args.keep, f"{name} aligned", args.updates, world.aligned)[0]
        lines += [{"world": name} | x for x in asked_for(world, states, args.seeds, args.plans)]
    if args.figure is not None:
        picture(lines).savefig(args.figure)
    settings = {name: x for name, x in vars(args).items() if name not in ("keep", "figure")}
    print(json.dumps({"results": lines, "settings": settings, "machine": machine()}, indent=1))


if __name__ == "__main__":
    main()
