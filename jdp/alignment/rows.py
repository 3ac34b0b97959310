"""What methods learn from beside conditions: pairs, by a reward or from a file, and experts."""

from pathlib import Path
from zipfile import BadZipFile

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.tree_util import Partial

from jdp.alignment.bases import Base
from jdp.alignment.diffusion_dro import Experts
from jdp.alignment.models import Model
from jdp.alignment.pairs import Pairs, decided, labelled
from jdp.data import Episodes, SegmentDraw
from jdp.errors import UserError
from jdp.learning.candidates import choose, repeated
from jdp.types import Task, named_keys

FIELDS = ("first", "second", "condition", "first_won")
AT_ONCE = 4096  # samples that are drawn together


def own_samples(key: Array, base: Base, condition: Array) -> Array:
    """`[B, *event]`, of the model as it was at conditions `[B, C]`, some at a time; the key is consumed."""
    found, draw = [], jax.jit(base.model.sample)
    for i in range(0, len(condition), AT_ONCE):
        found.append(draw(jax.random.fold_in(key, i), base.params, condition[i : i + AT_ONCE]))
    return jnp.concatenate(found)


def chosen_conditions(key: Array, condition: Array, count: int) -> Array:
    """`[count, C]`, drawn with replacement; the key is consumed."""
    return condition[jax.random.randint(key, (count,), 0, len(condition))]


def drawn_pairs(key: Array, base: Base, judge: Partial, condition: Array, count: int, gain: float) -> Pairs:
    """`count` pairs of the model's own samples, labelled by Bradley and Terry's rule; the key is consumed.

    Args:
        gain: of a reward, in units in which a lead of 1 is preferred 73 % of the time.
    """
    keys = named_keys(key, "condition", "first", "second", "label")
    seen = chosen_conditions(keys["condition"], condition, count)
    first, second = (own_samples(keys[name], base, seen) for name in ("first", "second"))
    lead = jax.jit(lambda judge: judge(first, seen) - judge(second, seen))(judge)
    return labelled(keys["label"], first, second, seen, gain * lead)


def best_samples(key: Array, base: Base, judge: Partial, condition: Array, count: int, of: int) -> Experts:
    """`count` samples of the model, each the best of `of` at its condition; the key is consumed."""
    keys = named_keys(key, "condition", "sample")
    seen = chosen_conditions(keys["condition"], condition, count)
    many = repeated(seen, of)
    x0 = own_samples(keys["sample"], base, many)
    return Experts(choose(x0, jax.jit(lambda judge: judge(x0, many))(judge), of)[0], seen)


def read_pairs(path: Path, model: Model, width: int) -> Pairs:
    """Pairs of a file: `first`, `second` `[N, *event]`, `condition` `[N, width]`, `first_won` `[N]` bool.

    Raises:
        UserError: if it is no npz file of these arrays, or they are not of these shapes and finite.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            found = {name: file[name] for name in FIELDS if name in file.files}
    except (OSError, ValueError, BadZipFile, EOFError, TypeError, AttributeError) as error:
        raise UserError(f"--preferences {path} is no npz file of arrays ({type(error).__name__})") from error
    if missing := [name for name in FIELDS if name not in found]:
        raise UserError(f"--preferences {path} has no {missing[0]}: it needs {', '.join(FIELDS)}")
    first, second, condition, won = (found[name] for name in FIELDS)
    if first.shape != second.shape:
        raise UserError(
            f"--preferences {path}: first is {first.shape}, second {second.shape}: make them equal"
        )
    count = len(first) if first.ndim else 0
    wanted = {"first": (count, *model.event), "condition": (count, width), "first_won": (count,)}
    for name, shape in wanted.items():
        if found[name].shape != shape or not count:
            raise UserError(
                f"--preferences {path}: {name} is {found[name].shape}, it must be {shape or '(N,)'}"
            )
    if won.dtype != bool and not np.isin(won, (0, 1)).all():
        raise UserError(f"--preferences {path}: first_won must be true or false")
    if not all(np.isfinite(x.astype(np.float64)).all() for x in (first, second, condition)):
        raise UserError(f"--preferences {path} holds numbers that are not finite")
    first, second, condition = (jnp.asarray(x, jnp.float32) for x in (first, second, condition))
    return decided(first, second, jnp.asarray(won.astype(bool)), condition)


def conditions_of_data(key: Array, base: Base, draw: SegmentDraw, episodes: Episodes, count: int) -> Array:
    """`[count, C]` of rows of a dataset, with goals in hindsight as the method learned; consumes the key."""
    rows = draw.prepare(episodes)
    found = draw.take(rows, draw.locate(key, draw.tables(rows), count))
    return base.condition(jnp.asarray(found.observation[:, 0]), jnp.asarray(found.goal))


def conditions_of_task(key: Array, base: Base, task: Task, count: int) -> Array:
    """`[count, C]` of episodes of a task that begin, with their goals; the key is consumed."""
    _, observation, goal = jax.jit(jax.vmap(task.reset))(jax.random.split(key, count))
    return base.condition(observation, goal)
