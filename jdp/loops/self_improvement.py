"""Rounds of a planner that learns from its own plans: imagine, keep what passes, train on plans and data."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh

from jdp.data import Episodes, Hindsight, SegmentDraw, SegmentRows, rows_of
from jdp.data.draws import batches
from jdp.devices.mesh import gathered, split_batch
from jdp.errors import UserError
from jdp.loops.chunks import Chunks
from jdp.loops.journal import Journal, Memory
from jdp.loops.train import continue_training, vmapped
from jdp.types import Bound, Imagine, Method, PyTree, Segments, named_keys

BATCH = 240  # plans drawn at once, of which every device gets as many: the test compares plans of one call


@dataclass(frozen=True)
class Imagination:
    """How a round makes its plans."""

    plans: int
    """Plans of each seed, before the test; a pool has as many rows, repeated where fewer passed."""
    share: float
    """Of the batches of a round, plans that passed; the rest is data."""


def improve(
    method: Method,
    states: PyTree,
    rows: SegmentRows,
    data: Episodes,
    settings: Imagination,
    *,
    key: Array,
    seeds: int,
    rounds: int,
    updates: int,
    batch_size: int,
    mesh: Mesh | None = None,
    journal: Journal | None = None,
) -> PyTree:
    """The states `[S, ...]` after `rounds` rounds of `updates` updates; every seed learns from its own plans.

    A round of which no plan passes the method's test ends the rounds: what has been trained is returned.

    Args:
        method: one with `imagine`, whose `learner.draws` is a `SegmentDraw`.
        rows: of that draw.
        key: typed; round `i` uses `fold_in(key, i)`.
        journal: has phases "round_1", "round_2", ..., and keeps "plans".

    Raises:
        UserError: if the method imagines nothing, or does not draw segments.
    """
    journal = Memory() if journal is None else journal
    draw, imagine = method.learner.draws, method.imagine
    if imagine is None or not isinstance(draw, SegmentDraw):
        raise UserError("rounds of self-improvement need a method that imagines and that draws segments")
    source = mixed(draw, batch_size, settings.share, seeds)
    for number in range(rounds):
        phase, keys = f"round_{number + 1}", named_keys(jax.random.fold_in(key, number), "imagine", "train")

        def make(key: Array = keys["imagine"], states: PyTree = states) -> dict[str, np.ndarray]:
            return plans_that_pass(imagine, states, data, settings.plans, key, seeds, mesh, journal)._asdict()

        try:
            found = journal.kept("plans", number, make)
        except UserError as error:  # none passed: what has been trained is played as it is
            journal.note(f"round {number + 1}: {error}; going on without")
            return states
        plans = SegmentRows(*(jnp.asarray(found[name]) for name in SegmentRows._fields))
        states, start = journal.begin(phase, _same, states)
        states = continue_training(
            vmapped(method.learner.update, seeds),
            source,
            states,
            (rows, plans),
            Chunks(journal, phase, updates),
            key=keys["train"],
            start=start,
            stop=updates,
            mesh=mesh,
            batch_axis=1,
        )
    return states


def _same(states: PyTree) -> PyTree:
    return states


def _draw_mixed(
    key: Array, rows: tuple[SegmentRows, SegmentRows], *, real: Bound, imagined: Bound, seeds: int
) -> Segments:
    def one(key: Array, plans: SegmentRows) -> Segments:
        keys = named_keys(key, "real", "imagined")
        parts = real(keys["real"], rows[0]), imagined(keys["imagined"], plans)
        return jax.tree.map(lambda a, b: jnp.concatenate([a, b]), *parts)

    return jax.vmap(one)(jax.random.split(key, seeds), rows[1])


def mixed(draw: SegmentDraw, batch_size: int, share: float, seeds: int) -> Bound:
    """`(key, (rows of the dataset, plans [S, ...])) -> Segments [S, batch_size, ...]`, plans last.

    The goal of a segment of the dataset is drawn as `draw` says, that of a plan from its later rows.
    """
    imagined = round(batch_size * share)
    parts = {
        "imagined": batches(replace(draw, hindsight=Hindsight()), imagined),
        "real": batches(draw, batch_size - imagined),
        "seeds": seeds,
    }
    return Bound(_draw_mixed, tuple(parts.items()))


@lru_cache(maxsize=16)
def imagine_program(imagine: Imagine, mesh: Mesh | None) -> Callable[..., tuple[Segments, Array]]:
    """The jitted `imagine`; its plans are drawn on all devices where they divide over them."""

    def program(key: Array, state: PyTree, observation: Array, goal: Array) -> tuple[Segments, Array]:
        rows = observation.shape[0]
        if mesh is not None and rows % mesh.size == 0:
            observation, goal = split_batch((observation, goal), mesh)
        return gathered(imagine(key, state, observation, goal), mesh)

    return jax.jit(program)


def plans_that_pass(
    imagine: Imagine,
    states: PyTree,
    data: Episodes,
    plans: int,
    key: Array,
    seeds: int,
    mesh: Mesh | None = None,
    journal: Journal | None = None,
) -> SegmentRows:
    """Rows of the plans that pass, of every seed `[S, ...]`, as many for each: repeated where fewer did.

    Raises:
        UserError: if none of a seed did.
    """
    journal = Memory() if journal is None else journal
    program, count, size = imagine_program(imagine, mesh), -(-plans // BATCH), min(plans, BATCH)
    rng = np.random.default_rng(np.asarray(jax.random.key_data(key)))
    pools, shares = [], []
    with journal.progress("imagine plans", seeds * count, "batch") as bar:
        for seed in range(seeds):
            state, parts, keeps = jax.tree.map(lambda x, i=seed: x[i], states), [], []
            for i in range(count):
                observation = data.observations[rng.integers(len(data), size=size)]
                goal = data.observations[rng.integers(len(data), size=size)]
                k = jax.random.fold_in(jax.random.fold_in(key, seed), i)
                made, keep = program(k, state, observation, goal[:, list(data.spec.goal)])
                parts.append(jax.device_get(made))
                keeps.append(np.asarray(keep))
                bar.at(seed * count + i + 1)
            segments = jax.tree.map(lambda *x: np.concatenate(x), *parts)
            chosen = passed(segments, np.concatenate(keeps))
            shares.append(len(chosen.value) / len(segments.value))
            index = np.arange(plans) % len(chosen.value)
            pools.append(rows_of(jax.tree.map(lambda x, i=index: x[i], chosen)))
    kept = ", ".join(f"{100 * share:.0f} %" for share in shares)
    journal.note(f"kept       {kept} of {count * size:,} plans (one a seed)")
    return jax.tree.map(lambda *x: np.stack(x), *pools)


def passed(segments: Segments, keep: np.ndarray) -> Segments:
    """The segments that passed, on the host: `[K, L, ...]`.

    Raises:
        UserError: if none did.
    """
    chosen = np.flatnonzero(keep)
    if not len(chosen):
        best = float(np.asarray(segments.value[:, 0]).max())
        raise UserError(
            f"none of {len(keep)} plans passed the method's test (highest value {best:.4g}): train longer, "
            "or loosen the test"
        )
    return jax.tree.map(lambda x: np.asarray(x)[chosen], segments)
