"""Rounds of a planner that learns from its own plans: imagine, keep what passes, train on plans and data."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from common import Bar
from job import Job
from phases import begin, kept, train, vmapped

import jdp
from jdp.devices import gathered, split_batch
from jdp.planners.adapt_diffuser import kept as passing
from jdp.types import Bound, Segments, named_keys

BATCH = 240  # plans drawn at once, of which every device gets as many: the test compares plans of one call


def _draw_mixed(key: jax.Array, data: Any, *, real: Any, imagined: Any, seeds: int) -> Any:
    def one(key: jax.Array, plans: Any) -> Segments:
        keys = named_keys(key, "real", "imagined")
        parts = real(keys["real"], data[0]), imagined(keys["imagined"], plans)
        return jax.tree.map(lambda a, b: jnp.concatenate([a, b]), *parts)

    return jax.vmap(one)(jax.random.split(key, seeds), data[1])


def adapt(job: Job, planner: Any, states: Any, rows: Any, hindsight: Any) -> Any:
    """The states after all rounds of `settings.rounds`; every seed learns from plans of its own."""
    config, settings = job.config, job.config.settings
    each, _ = settings.steps(config.updates)
    share = round(config.batch_size * settings.imagined_share)
    goal, offsets = job.data.spec.goal, planner.offsets
    draw = Bound(
        _draw_mixed,
        (
            ("imagined", jdp.data.draw_segments(share, offsets, goal)),
            ("real", jdp.data.draw_segments(config.batch_size - share, offsets, goal, hindsight)),
            ("seeds", config.seeds),
        ),
    )
    for number in range(settings.rounds):
        phase, key = f"round_{number + 1}", jax.random.fold_in(job.keys["adapt"], number)
        keys = named_keys(key, "imagine", "train")
        try:
            found = kept(
                job, "plans", number, lambda k=keys["imagine"], s=states: imagine(job, planner, k, s)
            )
        except jdp.UserError as error:  # none passed: what has been trained is played as it is
            print(f"round {number + 1}: {error}; going on without")
            return states
        plans = jdp.data.SegmentRows(*(jnp.asarray(found[name]) for name in jdp.data.SegmentRows._fields))
        states, start = begin(job, phase, lambda states: states, states)
        states = train(
            job,
            phase,
            vmapped(planner.update, config.seeds),
            draw,
            states,
            (rows, plans),
            key=keys["train"],
            start=start,
            stop=each,
            batch_axis=1,
        )
    return states


def program_of(planner: Any, mesh: Any) -> Any:
    """The jitted `planner.imagine`; its plans are drawn on all devices where they divide over them."""

    def program(key: jax.Array, state: Any, observation: jax.Array, goal: jax.Array) -> Any:
        rows = observation.shape[0]
        if mesh is not None and rows % mesh.size == 0:
            observation, goal = split_batch((observation, goal), mesh)
        return gathered(planner.imagine(key, state, observation, goal), mesh)

    return jax.jit(program)


def imagine(job: Job, planner: Any, key: jax.Array, states: Any) -> dict[str, np.ndarray]:
    """Rows of the plans that pass, of every seed `[S, ...]`, as many for each: repeated where fewer did."""
    config, settings = job.config, job.config.settings
    program = program_of(planner, job.mesh)
    count = -(-settings.plans // BATCH)
    size = min(settings.plans, BATCH)
    rng = np.random.default_rng(np.asarray(jax.random.key_data(key)))
    pools, shares = [], []
    with Bar("imagine plans", config.seeds * count, "batch") as bar:
        for seed in range(config.seeds):
            state, parts, keeps = jax.tree.map(lambda x, i=seed: x[i], states), [], []
            for i in range(count):
                observation = job.data.observations[rng.integers(len(job.data), size=size)]
                goal = job.data.observations[rng.integers(len(job.data), size=size)]
                k = jax.random.fold_in(jax.random.fold_in(key, seed), i)
                made, keep = program(k, state, observation, goal[:, list(job.data.spec.goal)])
                parts.append(jax.device_get(made))
                keeps.append(np.asarray(keep))
                bar.at(seed * count + i + 1)
            segments = jax.tree.map(lambda *x: np.concatenate(x), *parts)
            chosen = passing(segments, np.concatenate(keeps), settings)
            shares.append(len(chosen.value) / len(segments.value))
            index = np.arange(settings.plans) % len(chosen.value)
            pools.append(jdp.data.rows_of(jax.tree.map(lambda x, i=index: x[i], chosen)))
    print(
        f"kept       {', '.join(f'{100 * s:.0f} %' for s in shares)} of {count * size:,} plans (one a seed)"
    )
    return jax.tree.map(lambda *x: np.stack(x), *pools)._asdict()
