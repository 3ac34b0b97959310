"""Streamed training is training: the same rows, the same updates, the same numbers."""

import threading
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jdp
from jdp.data import RowFiles, SegmentDraw, TransitionDraw, WindowDraw, batches, prepared
from jdp.data.d4rl import read
from jdp.data.draws import WindowRows
from jdp.data.mapped import copy_d4rl, map_rows, write_rows, write_windows
from jdp.data.pools import Pool, PoolDraw
from jdp.data.segments import Hindsight
from jdp.data.stream import Stream, _gather, _locate_program, blocks
from jdp.devices import data_mesh
from jdp.errors import UserError
from jdp.loops import fit, fit_blocks
from jdp.types import named_keys

B, T, D, ROWS, KEY = 16, 4, 3, 300, jax.random.key(7)


def _update(key, state, batch):
    """SGD on a noisy regression; sensitive to the key, the batch and the order of updates."""
    w, step = state
    x, y = batch[..., :-1].reshape(B, -1), batch[:, 0, -1] + 0.1 * jax.random.normal(key, (B,))
    loss, gradient = jax.value_and_grad(lambda w: jnp.mean(jnp.square(x @ w - y)))(w)
    return (w - 0.01 * gradient, step + 1), {"loss": loss, "step": step}


def begin():
    return jnp.linspace(-1.0, 1.0, T * (D - 1)), jnp.zeros(())


def bits(tree):
    return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(tree)]


@pytest.fixture
def windowed(tmp_path):
    """`(in-memory data, stream of the same rows in a file, the folder)`."""
    rows = np.random.default_rng(0).normal(size=(ROWS, D)).astype(np.float32)
    starts = np.arange(ROWS - 1, dtype=np.int32)
    last = np.minimum((starts // 50 + 1) * 50 - 1, ROWS - 1).astype(np.int32)
    write_rows(tmp_path, {"rows": rows}, piece=64)
    mapped = map_rows(tmp_path, ("rows",))["rows"]
    assert isinstance(mapped, np.memmap)
    np.testing.assert_array_equal(mapped, rows)
    stream = Stream(WindowDraw(T), WindowRows(mapped, starts, last), B, block=6)
    return WindowRows(rows, starts, last), stream, tmp_path


def streamed(stream, state=None, start=0, stop=40, chunk=15, mesh=None, **options):
    with blocks(stream, key=KEY, start=start, stop=stop, chunk=chunk, mesh=mesh) as made:
        state = begin() if state is None else state
        return fit_blocks(_update, made, state, key=KEY, stop=stop, chunk=chunk, mesh=mesh, **options)


@pytest.mark.parametrize("devices", [1, 8])
def test_a_streamed_run_ends_with_the_bits_of_one_in_memory(windowed, devices):
    data, stream, _ = windowed
    mesh, told = data_mesh(jax.devices()[:devices]), ([], [])
    options = {"key": KEY, "stop": 40, "chunk": 15, "mesh": mesh}
    after = [lambda *a, seen=seen: seen.append((a[0], a[2])) for seen in told]
    whole = fit(_update, batches(WindowDraw(T), B), begin(), data, after=after[0], **options)
    found = streamed(stream, mesh=mesh, after=after[1])
    assert bits(found) == bits(whole)
    assert [at for at, _ in told[0]] == [at for at, _ in told[1]] == [15, 30, 40]
    for (_, one), (_, other) in zip(*told, strict=True):
        np.testing.assert_allclose(other["loss"], one["loss"], rtol=1e-6)
        np.testing.assert_allclose(other["step"], one["step"])


def test_a_streamed_run_goes_on_from_any_step(windowed):
    _, stream, _ = windowed
    whole = bits(streamed(stream))
    assert bits(streamed(stream, streamed(stream, stop=17), start=17)) == whole
    assert bits(streamed(Stream(stream.draw, stream.rows, B))) == whole  # in other blocks


def drawn_and_streamed(draw, rows, seeds=2, processes=2):
    """Both halves of the batches of three updates, as two processes gather them, and the whole ones."""
    for process in range(processes):
        stream = Stream(draw, rows, B, seeds, block=3, process=process, processes=processes)
        found = _gather(stream, KEY, 5, 1)
        on_devices = jax.tree.map(jnp.asarray, rows)
        for i in range(3):
            key = named_keys(jax.random.fold_in(KEY, 5 + i), "draw", "update")["draw"]
            yield process, i, found, batches(draw, B, seeds)(key, on_devices)


@pytest.mark.parametrize("goal", [(), (0, 1)])
def test_segments_with_goals_in_hindsight_are_those_of_the_draw(goal, tmp_path):
    data = jdp.data.load("hopper-medium", source="bundled")
    draw = SegmentDraw((-1, 0, 3), goal, Hindsight(0.2, 0.5, 0.3))
    rows, files = draw.prepare(data), prepared(draw, data, RowFiles(tmp_path))
    for a, b in zip(files, rows, strict=True):
        assert isinstance(a, np.memmap)
        np.testing.assert_array_equal(a, b)
    for process, i, found, wanted in drawn_and_streamed(draw, files):
        part = slice(process * B // 2, (process + 1) * B // 2)
        for name, a, b in zip(wanted._fields, found, wanted, strict=True):
            np.testing.assert_array_equal(np.asarray(a)[i], np.asarray(b)[:, part], err_msg=name)


@pytest.mark.parametrize("next_actions", [False, True])
def test_transitions_in_minibatches_are_those_of_the_draw(next_actions, tmp_path):
    data = jdp.data.load("hopper-medium", source="bundled")
    draw = TransitionDraw(data.spec.observation_dim, data.spec.action_dim, 2, next_actions)
    rows, files = draw.prepare(data), prepared(draw, data, RowFiles(tmp_path))
    assert isinstance(files, np.memmap)
    np.testing.assert_array_equal(files, rows)
    for kind, there in ((draw, files), (PoolDraw(draw), Pool(files, None, None))):
        for process, i, found, wanted in drawn_and_streamed(kind, there):
            part = slice(process * B, (process + 1) * B)  # of two minibatches, one after another
            for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
                np.testing.assert_array_equal(np.asarray(a)[i], np.asarray(b)[:, part])


def test_rows_of_windows_are_written_once_for_a_dataset(tmp_path):
    data = jdp.data.load("hopper-medium", source="bundled")
    draw, files = WindowDraw(T), RowFiles(tmp_path)
    first, rows = prepared(draw, data, files), draw.prepare(data)
    path = Path(first.rows.filename)
    before = path.stat().st_mtime_ns
    again = prepared(draw, data, files)
    for a, b, c in zip(first, again, rows, strict=True):
        np.testing.assert_array_equal(a, c)
        np.testing.assert_array_equal(b, c)
    assert Path(again.rows.filename) == path and path.stat().st_mtime_ns == before
    other = prepared(WindowDraw(T + 1), data, files)  # other windows of the same rows
    assert Path(other.rows.filename) == path


def test_batches_arrive_split_over_the_devices(windowed):
    _, stream, _ = windowed
    with blocks(stream, key=KEY, start=0, stop=3, mesh=data_mesh()) as made:
        (_, _, batches), *_ = made
    assert {s.data.shape for s in batches.addressable_shards} == {(6, B // 8, T, D)}


def test_the_reader_works_ahead_and_ends_with_its_user(windowed):
    _, stream, _ = windowed
    gathered = []

    class Counting(WindowDraw):
        def take(self, rows, located):
            gathered.append(0)
            return super().take(rows, located)

    ahead = Stream(Counting(T), stream.rows, B, block=5)
    with blocks(ahead, key=KEY, start=0, stop=1000) as made:
        next(made)
        for _ in range(100):
            if len(gathered) >= 3:
                break
            threading.Event().wait(0.05)
        assert 3 <= len(gathered) <= 5  # one taken, two waiting, one in the reader's hands; and no more
    assert not any(t.name == "jdp stream" for t in threading.enumerate())


def test_a_file_that_vanishes_or_is_cut_ends_training_with_one_line(windowed):
    _, stream, folder = windowed
    path = folder / "rows.npy"
    whole = path.read_bytes()
    for mischief, line in [
        (lambda: path.write_bytes(whole[:200]), "was cut"),
        (path.unlink, "cannot be read"),
    ]:
        path.write_bytes(whole)
        rows = stream.rows._replace(rows=map_rows(folder, ("rows",))["rows"])
        mapped = Stream(stream.draw, rows, B, block=5)
        mischief()
        with pytest.raises(UserError, match=line) as error:
            streamed(mapped)
        assert "\n" not in str(error.value) and "rows.npy" in str(error.value)
    with pytest.raises(UserError, match="cannot be read"):
        map_rows(folder, ("rows",))


def test_whatever_the_reader_raises_reaches_the_user(windowed):
    _, stream, _ = windowed

    class Broken(WindowDraw):
        def take(self, rows, located):
            raise ZeroDivisionError("of the reader")

    with pytest.raises(ZeroDivisionError, match="of the reader"):
        streamed(Stream(Broken(T), stream.rows, B))


def test_hdf5_is_copied_in_pieces_and_windows_written_in_pieces(tmp_path):
    path = jdp.data.names.BUNDLED_DIR / "hopper-medium.hdf5"
    found, whole = copy_d4rl(path, tmp_path / "d4rl", piece=999), read(path)
    for name, a, b in zip(whole._fields, found, whole, strict=True):
        if isinstance(b, np.ndarray):
            np.testing.assert_array_equal(a, b, err_msg=name)
    assert isinstance(found.observations, np.memmap)
    data = jdp.data.load("hopper-medium", source="bundled")
    normaliser = jdp.data.fit_normaliser(data)
    rows, _ = jdp.data.training_rows(data, normaliser)
    assert data.terminated.any()
    np.testing.assert_array_equal(write_windows(data, normaliser, tmp_path / "rows", piece=777), rows)


def test_equal_draws_are_located_by_one_program():
    assert _locate_program(WindowDraw(T), 4, None, 5) is _locate_program(WindowDraw(T), 4, None, 5)
    assert _locate_program(SegmentDraw((0, 1)), 4, 2, 5) is _locate_program(SegmentDraw((0, 1)), 4, 2, 5)
