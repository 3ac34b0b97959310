"""Methods that learn from their own chains: pairs of chains, teachers, and a new condition."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdp.alignment import ctrl, d3po, opd, toy
from jdp.alignment.learner import Aligned
from jdp.diffusion.sampling import Sampling
from jdp.errors import UserError
from jdp.learning.optimiser import Trained

KEY = jax.random.key(0)
MODEL = toy.model(Sampling(sampler="euler", steps=4))


def begun(given):
    return Aligned(Trained(given.params, ()), given.params, given.judge)


def test_pairs_of_chains_are_those_that_the_reward_prefers():
    given, config = toy.given(KEY), d3po.D3POConfig(noise=False)
    rows, _ = d3po._collect(KEY, begun(given), jnp.zeros((5, 0)), config=config, model=MODEL)
    last = np.array(rows.winner.step) == 3
    better, worse = (np.array(m.following)[last] @ np.array(toy.SLOPE) for m in (rows.winner, rows.loser))
    assert (better > worse).all() and len(better) == 5
    np.testing.assert_array_equal(rows.winner.step, rows.loser.step)
    loss, _ = d3po._loss(given.params, rows, reference=given.params, config=config, model=MODEL)
    np.testing.assert_allclose(loss, np.log(2), rtol=1e-6)
    with pytest.raises(UserError, match="group is 2, not 3"):
        d3po.D3POConfig(group=3)


def test_a_student_that_is_its_teacher_has_nothing_to_learn():
    given, config = toy.given_teachers(KEY, (toy.FOUR, toy.FOUR.tilted(toy.SLOPE, 1.0))), opd.OPDConfig()
    batch = jnp.array([[1.0, 0.0], [0.0, 1.0]])
    for i, taught in ((0, False), (1, True)):
        rows, _ = opd._collect(KEY, begun(given), batch[i : i + 1], config=config, model=MODEL)
        loss = partial(opd._loss, rows=rows, reference=given.params, config=config, model=MODEL)
        value, gradient = jax.value_and_grad(lambda p, loss=loss: loss(p)[0])(given.params)
        size = sum(float(jnp.sum(jnp.abs(x))) for x in jax.tree.leaves(gradient))
        assert (value > 1e-4 and size > 1e-3) if taught else (value < 1e-9 and size < 1e-4)


def test_the_gradient_of_a_new_condition_goes_through_the_chain():
    given = toy.given_modes(KEY)
    config = ctrl.CTRLConfig(kl_weight=0.3)
    direction = jax.tree.map(
        lambda x: jnp.cos(jnp.arange(x.size, dtype=x.dtype)).reshape(x.shape), given.params
    )
    params = jax.tree.map(lambda x, d: x + 0.05 * d, given.params, direction)
    batch = jnp.eye(4)

    def value(share, config=config):
        moved = jax.tree.map(lambda x, d: x + share * d, params, direction)
        return ctrl.objective(moved, KEY, begun(given), batch, config, MODEL)[0]

    step = 2e-3
    slope = jax.grad(value)(0.0)
    np.testing.assert_allclose(slope, (value(step) - value(-step)) / (2 * step), rtol=0.02)
    short = jax.grad(partial(value, config=ctrl.CTRLConfig(kl_weight=0.3, last=1)))(0.0)
    assert abs(short - slope) > 0.05 * abs(slope)  # what earlier steps would have said is missing
