"""Implicit search: futures by masked diffusion, and the move that they begin with."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdp.diffusion.discrete import masking
from jdp.diffusion.discrete.losses import linear_cross_entropy
from jdp.errors import UserError
from jdp.loops.fit import fit
from jdp.networks import NetworkConfig
from jdp.planners import implicit_search
from jdp.planners.implicit_search import Layout, Played, SearchConfig
from jdp.tasks import board
from jdp.types import Bound

KEY = jax.random.key(0)
GAME = board.Game(3, walls=2, traps=1)
CONFIG = SearchConfig(features=32, blocks=1)


def rows(count, horizon, game=GAME, distances=(1, 2, 3)):
    solved = board.puzzles(np.random.default_rng(0), game, count, distances)
    start = np.full(count, game.start)
    played = Played(board.shown(solved.boards, start), board.futures(solved, start, horizon))
    return jax.tree.map(jnp.asarray, played), board.optimal(solved)[:, game.start]


def _uniform(params, tokens, level):
    return jnp.zeros((*tokens.shape, 5)) + params * level[:, None, None]


@pytest.mark.parametrize(("length", "levels"), [(1, 20), (3, 20), (3, 1)])
def test_the_loss_of_who_knows_nothing(length, levels):
    """`ln V` times the mean weight of hidden tokens, by hand: at (t + 1) / T hidden, one at least."""
    share = (np.arange(levels) + 1) / levels
    hidden = length * share + (1 - share) ** length
    expected = np.log(5) * (hidden * (1 - share + 1 / levels)).sum() / hidden.sum()
    tokens = jax.random.randint(KEY, (20_000, length), 0, 5)
    found = jax.jit(lambda key: linear_cross_entropy(
        key, _uniform, jnp.ones(()), tokens, levels=levels, mask=5)[0])(KEY)  # fmt: skip
    np.testing.assert_allclose(found, expected, rtol=0.01)


@pytest.fixture(scope="module", params=[0, 2])
def model(request):
    """A network of random weights: the last layer of one that begins is zero, and all tokens alike."""
    layout, (data, _) = Layout(GAME.spans(request.param)), rows(50, request.param)
    shapes = jax.eval_shape(
        lambda key, x: implicit_search.first_state(key, x, layout, CONFIG).params, KEY, data.state
    )
    leaves, tree = jax.tree.flatten(shapes)
    rng = np.random.default_rng(1)
    drawn = [jnp.asarray(rng.normal(0, 0.3, leaf.shape), jnp.float32) for leaf in leaves]
    return layout, data, jax.tree.unflatten(tree, drawn)


def test_a_move_without_a_future_is_the_most_likely_one(model):
    """With a horizon of 0, and in one step with any, it is the argmax of the first categorical."""
    layout, data, params = model

    @jax.jit
    def found(key, params, state):
        learned = implicit_search.denoiser(params, state, layout, CONFIG)
        hidden = jnp.full((50, len(layout.spans)), layout.vocabulary, jnp.int32)
        first = masking.predicted(learned, hidden, layout.vocabulary).logits
        alone = implicit_search.choose(key, params, state, layout=layout, config=CONFIG, steps=1)
        return first, alone, implicit_search.imagine(key, learned, 50, layout, CONFIG.sampling())

    first, alone, drawn = found(jax.random.key(1), params, data.state)
    best = np.asarray(first)[:, 0].argmax(-1) - GAME.cells
    assert len(np.unique(best)) > 1
    np.testing.assert_array_equal(alone, best)
    if len(layout.spans) == 1:
        np.testing.assert_array_equal(drawn.tokens[:, 0] - GAME.cells, best)
    low, high = np.array(layout.spans).T
    tokens = np.asarray(drawn.tokens)
    assert ((tokens >= low) & (tokens < high)).all()
    # The surest token of all is shown first, and stays.
    sure = np.asarray(jax.nn.log_softmax(first, axis=-1)).max(-1)
    one = np.asarray(drawn.states)
    count = (one < layout.vocabulary).sum(-1)[:, 0]
    step = int(np.argmax(count == 1))
    np.testing.assert_array_equal((one[step] < layout.vocabulary).argmax(-1), sure.argmax(-1))


def test_settings_that_mean_nothing():
    with pytest.raises(UserError, match=r"SearchConfig\.levels is 0; it must lie between 1 and"):
        SearchConfig(levels=0)


def _batch(key, data):
    chosen = jax.random.randint(key, (128,), 0, len(data.future))
    return jax.tree.map(lambda leaf: leaf[chosen], data)


def accuracy(horizon, config, updates):
    """On 1000 boards of 4 x 4 that need three moves or more, after learning from 1500 others."""
    game = board.Game(4, walls=3, traps=2)
    (data, best), layout = rows(2500, horizon, game, (3, 4, 5)), Layout(game.spans(horizon))
    train, held = (
        jax.tree.map(lambda leaf, at=at: leaf[at], data) for at in (slice(1000, None), slice(1000))
    )
    state = implicit_search.first_state(KEY, data.state, layout, config)
    settings = (("layout", layout), ("config", config))
    update = Bound(implicit_search.update, settings)
    state = fit(update, _batch, state, train, key=KEY, stop=updates, chunk=updates)
    moves = np.asarray(jax.jit(Bound(implicit_search.choose, settings))(KEY, state.params, held.state))
    right = best[:1000][np.arange(1000), np.minimum(moves, 3)] & (moves < board.END)
    return right.mean(), best[:1000].mean()


@pytest.mark.slow
def test_futures_help_where_boards_are_few():
    config = SearchConfig(features=128, steps=500, learning_rate=3e-3)
    (cloned, chance), (searched, _) = (accuracy(horizon, config, 500) for horizon in (0, 2))
    assert cloned > chance + 0.3
    assert searched >= cloned, (searched, cloned)


@pytest.mark.slow
def test_any_network_of_sequences_can_search():
    config = SearchConfig(network=NetworkConfig("transformer", 32, 2), steps=200, learning_rate=3e-3)
    found, chance = accuracy(1, config, 200)
    assert found > chance + 0.1
