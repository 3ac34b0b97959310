"""The ring buffer against a Python list that forgets its oldest rows."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdp import UserError
from jdp.world_models import push, ring

CAPACITY, WIDTH, ROWS = 12, 3, 5


def slow(pushes):
    """All kept rows in order, of which the last `CAPACITY` remain."""
    kept = [row for rows, keep in pushes for row, k in zip(rows, keep, strict=True) if k]
    return np.array(kept[-CAPACITY:])


def test_it_holds_the_newest_kept_rows_and_nothing_else():
    rng = np.random.default_rng(0)
    program, found, pushes = jax.jit(push), ring(CAPACITY, WIDTH), []
    for _ in range(20):
        rows = rng.normal(size=(ROWS, WIDTH)).astype(np.float32)
        keep = rng.random(ROWS) < rng.choice([0.0, 0.5, 1.0])
        pushes.append((rows, keep))
        found = program(found, rows, keep)
        expected = slow(pushes)
        assert int(found.size) == len(expected)
        filled = np.asarray(found.rows[: int(found.size)])
        # Rows may stand in any order: those that are there are those of the list.
        np.testing.assert_array_equal(np.sort(filled, axis=0), np.sort(expected.reshape(-1, WIDTH), axis=0))
    assert int(found.size) == CAPACITY and program._cache_size() == 1


def test_what_was_never_written_is_not_counted():
    found = push(ring(CAPACITY, WIDTH), jnp.ones((ROWS, WIDTH)), jnp.array([True, False, True, False, False]))
    assert int(found.size) == 2 and float(found.rows.sum()) == 2 * WIDTH


def test_more_rows_than_it_holds_are_refused_in_one_line():
    with pytest.raises(UserError, match="13 rows do not fit a ring buffer of 12") as error:
        push(ring(CAPACITY, WIDTH), jnp.ones((13, WIDTH)), jnp.ones(13, bool))
    assert "\n" not in str(error.value)
    with pytest.raises(UserError, match="capacity 0"):
        ring(0, WIDTH)
