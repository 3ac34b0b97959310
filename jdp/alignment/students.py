"""A student of several teachers, which are one model with different parameters: it is told which one counts.

A network that embeds a condition has a first layer for it (`condition_0`). The student's has one row more for
each teacher, 0 at the start. To be told is to add a row to the bias: so the student, told a teacher, is a
network of the teachers' own shape.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.tree_util import Partial, keystr

from jdp.alignment.bases import Base
from jdp.alignment.models import Given, Model
from jdp.learning.candidates import repeated
from jdp.types import Bound, Denoiser, Params, PyTree, bind

LAYER = "['condition_0']"
LOUD = 50.0  # a teacher's name: rows that begin at 0 learn as slowly as weights that have learned already


class Student(NamedTuple):
    """What learns from teachers."""

    base: Base  # its conditions are `[B, C + K]`: which of the K teachers counts stands in the last K entries
    given: Given
    told: int  # K; 0 where the network cannot be told, and the student comes to lie between its teachers


def student(base: Base, teachers: list[Params], condition: Array) -> Student:
    """A student of K teachers, which are `base` with other parameters, at conditions `[N, C]` of each."""
    count, width = len(teachers), condition.shape[1]
    names = LOUD * jnp.tile(jnp.eye(count), (len(condition), 1))
    rows = jnp.concatenate([repeated(condition, count), names], axis=-1)
    stacked = jax.tree.map(lambda *x: jnp.stack(x), *teachers)
    units = bind(_units, base.units, width=width)
    judge = bind(_teacher, stacked, model=base.model, width=width)
    wide = widened(base.params, count) if base.kind == "plans" else None
    if wide is None:
        own = Bound(_deaf, (("model", base.model), ("width", width)))
        deaf = base._replace(model=base.model._replace(denoiser=own), units=units)
        return Student(deaf, Given(base.params, judge, rows), 0)
    return Student(base._replace(params=wide, units=units), Given(wide, judge, rows), count)


def widened(params: Params, count: int) -> Params | None:
    """`params` with `count` rows of 0 before those of the network's conditions; None: it embeds none."""
    found = [path for path, _ in jax.tree_util.tree_leaves_with_path(params) if LAYER in keystr(path)]
    if not found:
        return None

    def more(path: tuple, x: Array) -> Array:
        if LAYER not in keystr(path) or x.ndim != 2:
            return x
        return jnp.concatenate([jnp.zeros((count, x.shape[1]), x.dtype), x])

    return jax.tree_util.tree_map_with_path(more, params)


def told(params: Params, count: int, which: int) -> Params:
    """The student of `count` teachers, told the one of number `which`: a network of the base's own shape."""
    rows = {
        keystr(path[:-1]): LOUD * x[which]
        for path, x in jax.tree_util.tree_leaves_with_path(params)
        if LAYER in keystr(path) and x.ndim == 2
    }

    def fewer(path: tuple, x: Array) -> Array:
        if keystr(path[:-1]) not in rows:
            return x
        return x[count:] if x.ndim == 2 else x + rows[keystr(path[:-1])]

    return jax.tree_util.tree_map_with_path(fewer, params)


def _deaf(params: Params, condition: Array, *, model: Model, width: int) -> Denoiser:
    return model.denoiser(params, condition[:, :width])


def _units(units: Partial, x0: Array, condition: Array, *, width: int) -> PyTree:
    return units(x0, condition[:, :width])


def _teacher(stacked: Params, condition: Array, *, model: Model, width: int) -> Denoiser:
    return bind(_taught, stacked, condition, model=model, width=width)


def _taught(stacked: Params, condition: Array, x: Array, sigma: Array, *, model: Model, width: int) -> Array:
    each = jax.vmap(lambda params: model.denoiser(params, condition[:, :width])(x, sigma))(stacked)
    weight = condition[:, width:].T / LOUD
    return jnp.einsum("kb,kb...->b...", weight, each)
