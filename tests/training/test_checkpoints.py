"""Checkpoints: the same bits, or the previous ones; never half of anything."""

import signal
import subprocess
import sys
import textwrap

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdp.errors import UserError
from jdp.training import checkpoints


def tree(seed, width=3):
    keys = jax.random.split(jax.random.key(seed), 3)
    return {
        "params": [jax.random.normal(keys[0], (4, width)), jax.random.normal(keys[1], (width,))],
        "step": jnp.int32(seed),
        "half": jax.random.normal(keys[2], (5,), jnp.bfloat16),
    }


def same(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert x.dtype == y.dtype and np.asarray(x).tobytes() == np.asarray(y).tobytes()


def test_a_round_trip_keeps_every_bit_and_the_newest_two(tmp_path):
    for step in (1, 5, 12):
        checkpoints.save(tmp_path, step, tree(step))
    assert checkpoints.latest(tmp_path) == 12
    same(checkpoints.restore(tmp_path, tree(0)), tree(12))
    same(checkpoints.restore(tmp_path, tree(0), 5), tree(5))
    with pytest.raises(UserError):
        checkpoints.restore(tmp_path, tree(0), 1)


@pytest.mark.parametrize(
    "like",
    [
        tree(0, width=4),
        {"params": tree(0)["params"]},
        {**tree(0), "more": jnp.zeros(2)},
        {**tree(0), "params": [jnp.zeros((3,)), jnp.zeros((4, 3))]},  # equal shapes, other places
    ],
    ids=["wider", "fewer", "more", "swapped"],
)
def test_another_network_is_refused(tmp_path, like):
    checkpoints.save(tmp_path, 1, tree(1))
    with pytest.raises(UserError, match="checkpoint"):
        checkpoints.restore(tmp_path, like)


def test_an_absent_checkpoint_is_said_to_be(tmp_path):
    assert checkpoints.latest(tmp_path / "none") is None
    with pytest.raises(UserError, match="no checkpoint"):
        checkpoints.restore(tmp_path / "none", tree(0))


def test_a_half_written_folder_is_ignored(tmp_path):
    checkpoints.save(tmp_path, 1, tree(1))
    left = tmp_path / "2.orbax-checkpoint-tmp-1700000000"
    (left / "default").mkdir(parents=True)
    assert checkpoints.latest(tmp_path) == 1
    same(checkpoints.restore(tmp_path, tree(0)), tree(1))
    checkpoints.save(tmp_path, 2, tree(2))
    same(checkpoints.restore(tmp_path, tree(0)), tree(2))


KILLED = """
    import os, pathlib, signal, sys
    import jax.numpy as jnp
    from jdp.training import checkpoints

    folder = pathlib.Path(sys.argv[1])
    checkpoints.save(folder, 1, {"w": jnp.full((1000,), 1.0)})

    def die(event, args):  # just before the finished folder gets its name
        if event == "os.rename" and pathlib.Path(os.fsdecode(args[1])).name == "2":
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(die)
    checkpoints.save(folder, 2, {"w": jnp.full((1000,), 2.0)})
"""


def test_a_killed_save_leaves_the_previous_checkpoint(tmp_path):
    child = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(KILLED), str(tmp_path)], capture_output=True
    )
    assert child.returncode == -signal.SIGKILL, child.stderr.decode()[-2000:]
    assert len([p for p in tmp_path.iterdir() if "tmp" in p.name]) == 1  # it was in the middle
    assert checkpoints.latest(tmp_path) == 1
    like = {"w": jnp.zeros((1000,))}
    same(checkpoints.restore(tmp_path, like), {"w": jnp.full((1000,), 1.0)})
    checkpoints.save(tmp_path, 2, {"w": jnp.full((1000,), 3.0)})
    same(checkpoints.restore(tmp_path, like), {"w": jnp.full((1000,), 3.0)})
