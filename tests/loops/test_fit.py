"""The fit loop: chunks, interruptions, donation and compilations change nothing but time."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdp.devices import count_compilations
from jdp.loops import fit
from jdp.types import bind


def _draw(key, data):
    return data[jax.random.randint(key, (16,), 0, data.shape[0])]


def _update(key, state, batch):
    """SGD on a noisy linear regression; sensitive to the key, the batch and the order of updates."""
    w, step = state
    x, y = batch[:, :3], batch[:, 3] + 0.1 * jax.random.normal(key, (batch.shape[0],))

    def loss_fn(w):
        return jnp.mean(jnp.square(x @ w - y))

    loss, gradient = jax.value_and_grad(loss_fn)(w)
    return (w - 0.01 * gradient, step + 1), {"loss": loss, "step": step}


@pytest.fixture
def start():
    def make():
        return jnp.array([1.0, -2.0, 0.5]), jnp.zeros(())

    return make


DATA = np.random.default_rng(0).normal(size=(200, 4)).astype(np.float32)


def run(state, **options):
    return fit(_update, _draw, state, DATA, key=jax.random.key(7), **options)


def bits(tree):
    return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(tree)]


def test_chunks_and_interruptions_change_no_bit(start):
    whole = bits(run(start(), stop=40, chunk=100))
    assert bits(run(start(), stop=40, chunk=7)) == whole
    half = run(start(), stop=17, chunk=7)
    assert bits(run(half, start=17, stop=40, chunk=7)) == whole
    # The steps really differ: another key, another result.
    assert bits(fit(_update, _draw, start(), DATA, key=jax.random.key(8), stop=40)) != whole


def test_updates_equal_a_plain_loop(start):
    """Update `i` draws and updates with the two keys that `fold_in(key, i)` splits into."""
    (w, step), losses = start(), []
    for i in range(10):
        draw_key, update_key = jax.random.split(jax.random.fold_in(jax.random.key(7), i))
        (w, step), metrics = _update(update_key, (w, step), _draw(draw_key, jnp.asarray(DATA)))
        losses.append(float(metrics["loss"]))
    seen = []
    found = run(start(), stop=10, chunk=4, after=lambda at, s, m: seen.append((at, m)))
    np.testing.assert_allclose(found[0], w, rtol=1e-5)
    assert [at for at, _ in seen] == [4, 8, 10]
    for (at, metrics), begin in zip(seen, (0, 4, 8), strict=True):
        np.testing.assert_allclose(metrics["loss"], np.mean(losses[begin:at]), rtol=1e-5)
        np.testing.assert_allclose(metrics["step"], np.mean(range(begin, at)))


def test_the_state_is_donated(start):
    state = start()
    run(state, stop=3)
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(state))


def test_nothing_to_do_returns_the_state(start):
    assert bits(run(start(), start=5, stop=5)) == bits(start())


def test_chunks_of_any_length_and_new_data_share_one_program(start):
    draw = bind(_draw)
    counted = count_compilations()
    state = start()
    before = counted.programs["chunk"] + counted.programs["jit_chunk"]
    for stop, chunk in [(10, 10), (11, 3), (12, 500)]:
        state = fit(_update, draw, state, DATA + stop, key=jax.random.key(stop), stop=stop, chunk=chunk)
    made = sum(n for name, n in counted.programs.items() if "chunk" in name) - before
    assert made == 1
