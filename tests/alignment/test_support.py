"""Whether samples lie off the data, told by a denoiser alone, and training that stops where they do."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdp.alignment import ddpo, support, toy
from jdp.alignment.learner import Aligned
from jdp.diffusion.sampling import Sampling
from jdp.learning.optimiser import Trained
from jdp.loops import Memory, train

KEY = jax.random.key(0)
MODEL = toy.model(Sampling(sampler="euler", steps=25))
GIVEN = toy.given(KEY)
N = 2000


@pytest.fixture(scope="module")
def known():
    return jax.jit(support.known, static_argnums=3)(KEY, GIVEN.params, GIVEN.rows, MODEL)


@jax.jit
def shares(known, params, x0):
    """Off the support: as the denoiser tells, and by the density."""
    found = support.off(KEY, known, params, x0, jnp.zeros((N, 0)), MODEL)
    return jnp.mean(found.astype(jnp.float32)), toy.off_support(x0)


def test_the_share_off_the_support_is_that_of_the_density(known):
    """Of samples of the data, of which a tenth is moved off by known amounts, in all directions."""
    x0 = np.array(toy.FOUR.sample(jax.random.key(1), N))
    angle = 2 * np.pi / 7 * np.arange(N)
    way = np.stack([np.cos(angle), np.sin(angle)], axis=1) * (np.arange(N) % 10 == 0)[:, None]
    found = {}
    for by in (0.0, 0.6, 1.8, 3.0, 1000.0):
        found[by], exact = shares(known, GIVEN.params, jnp.asarray(x0 + by * way, jnp.float32))
        np.testing.assert_allclose(found[by], exact, atol=0.02, err_msg=str(by))
    assert found[0.0] <= 0.005 and found[1000.0] >= 0.1
    assert shares(known, GIVEN.params, jnp.full((N, 2), jnp.nan))[0] == 1


def test_the_references_own_samples_are_on_their_support(known):
    x0 = jax.jit(MODEL.sample)(jax.random.key(2), GIVEN.params, jnp.zeros((N, 0)))
    assert shares(known, GIVEN.params, x0)[0] <= 0.005


def test_the_reason_to_stop_is_the_worst_seed(known):
    """The last layer's bias moves a sample by at most a multiple of its level, all in one direction."""
    far = jax.tree.map(jnp.copy, GIVEN.params)
    far["Dense_2"]["bias"] = jnp.array([5.0, 0.0])
    stop = support.Guard(known, GIVEN.params, GIVEN.rows, MODEL, 0.02, 200)

    def states(*seeds):
        params = jax.tree.map(lambda *x: jnp.stack(x), *seeds)
        return Aligned(Trained(params, ()), GIVEN.params, GIVEN.judge)

    assert "of samples lie off the data, more than 2.0%; raise kl_weight" in stop(
        states(GIVEN.params, far), {}
    )
    assert stop(states(GIVEN.params, GIVEN.params), {}) is None


def test_nothing_is_watched_where_none_are_asked_for():
    assert support.guard(KEY, GIVEN, ddpo.DDPOConfig(watched=0), MODEL) is None


def drawn(params, count=8000):
    """How far samples of the model are from the nearest mode."""
    x0 = jax.jit(MODEL.sample)(jax.random.key(2), params, jnp.zeros((count, 0)))
    return np.linalg.norm(np.array(x0)[:, None] - np.array(toy.FOUR.means), axis=-1).min(axis=1)


@pytest.mark.slow
@pytest.mark.parametrize("kl_weight", [0.0, 1.0])
def test_a_reward_without_bound_stops_early_unless_a_divergence_holds_the_model(kl_weight):
    config = ddpo.DDPOConfig(kl_weight=kl_weight, learning_rate=3e-3)
    told = []
    journal = Memory(note=told.append)
    options = {"key": KEY, "updates": 60, "batch_size": 16, "chunk": 3, "journal": journal, "seeds": 1}
    stop = support.guard(KEY, GIVEN, config, MODEL)
    state = train(ddpo.ddpo(config, MODEL), GIVEN, stop_when=stop, **options)
    assert stop(state, {}) is None  # what it goes back to has passed
    was, now = (
        drawn(params) for params in (GIVEN.params, jax.tree.map(lambda x: x[0], state.trained.params))
    )
    usual = np.quantile(was, 0.999)  # farther from a mode than 4 standard deviations: steps are few
    assert np.mean(now > usual) <= 0.03
    last = journal.records("train")[-1]["step"]
    if kl_weight:
        assert not told and last == 60
    else:
        assert len(told) == 1 and "\n" not in told[0] and 3 < last < 60
        assert told[0].startswith(f"train stopped at update {last}, back to {last - 3}: ")
