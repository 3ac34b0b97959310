"""Checkpoints: the same bits, or the previous ones; never half of anything."""

import resource
import shutil
import signal
import subprocess
import sys
import textwrap

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdp.errors import StorageError, UserError
from jdp.runs import checkpoints


def tree(seed, width=3):
    keys = jax.random.split(jax.random.key(seed), 3)
    return {
        "params": [jax.random.normal(keys[0], (4, width)), jax.random.normal(keys[1], (width,))],
        "step": jnp.int32(seed),
        "half": jax.random.normal(keys[2], (5,), jnp.bfloat16),
        "nothing": jnp.zeros((2, 0)),  # as goals of tasks without goals
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


def damaged(data: bytes, how: str) -> bytes | None:
    return {"cut": data[: len(data) // 2], "zeros": bytes(len(data)), "gone": None}[how]


@pytest.mark.parametrize("how", ["cut", "zeros", "gone"])
def test_of_a_damaged_checkpoint_the_older_one_is_restored_or_nothing_was_lost(tmp_path, how):
    whole = tmp_path / "whole"
    for step in (1, 2):
        checkpoints.save(whole, step, tree(step, width=40))
    files = [p.relative_to(whole) for p in (whole / "2").rglob("*") if p.is_file()]
    older = 0
    for file in files:
        folder = tmp_path / "damaged"
        shutil.copytree(whole, folder)
        left = damaged((folder / file).read_bytes(), how)
        (folder / file).unlink()
        if left is not None:
            (folder / file).write_bytes(left)
        found, step, reasons = checkpoints.restore_newest(folder, jax.eval_shape(lambda: tree(0, width=40)))
        same(found, tree(step, width=40))
        assert len(reasons) == (step == 1) and all("2 cannot be read (" in reason for reason in reasons)
        assert checkpoints.latest(folder) == step
        older += step == 1
        shutil.rmtree(folder)
    assert 0 < older < len(files)


def test_what_was_set_aside_is_made_again(tmp_path):
    for step in (1, 2):
        checkpoints.save(tmp_path, step, tree(step))
    (tmp_path / "2" / "default" / "_METADATA").unlink()
    assert checkpoints.restore_newest(tmp_path, tree(0))[1] == 1
    checkpoints.save(tmp_path, 2, tree(5))
    found, step, reasons = checkpoints.restore_newest(tmp_path, tree(0))
    assert (step, reasons) == (2, [])
    same(found, tree(5))
    assert (tmp_path / "2.unreadable").is_dir()


def test_another_network_is_no_damage(tmp_path):
    for step in (1, 2):
        checkpoints.save(tmp_path, step, tree(step))
    for like in (tree(0, width=4), {**tree(0), "params": [jnp.zeros((3,)), jnp.zeros((4, 3))]}):
        with pytest.raises(UserError, match="checkpoint"):
            checkpoints.restore_newest(tmp_path, like)
    assert checkpoints.steps(tmp_path) == [2, 1]  # nothing was set aside


def test_a_checkpoint_that_does_not_fit_on_the_disk_leaves_the_older_one(tmp_path):
    small, large = {"w": jnp.zeros(8)}, {"w": jax.random.normal(jax.random.key(0), (100_000,))}
    checkpoints.save(tmp_path, 1, small)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:  # the system refuses to write on, as on a full disk
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, before[1]))
        with pytest.raises(StorageError, match="make room and add --resume") as error:
            checkpoints.save(tmp_path, 2, large)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert len(str(error.value).splitlines()) == 1 and "File too large" in str(error.value)
    assert checkpoints.latest(tmp_path) == 1
    same(checkpoints.restore(tmp_path, small), small)
    checkpoints.save(tmp_path, 2, large)
    same(checkpoints.restore(tmp_path, large), large)


KILLED = """
    import os, pathlib, signal, sys
    import jax.numpy as jnp
    from jdp.runs import checkpoints

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
