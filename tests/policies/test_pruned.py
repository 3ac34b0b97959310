"""A policy with fewer blocks: with all it is the same, with half of them it learns what the whole says."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from policy_batches import GOALS, TINY, offsets_of, rows_like, segments

from jdp import UserError, loops
from jdp.data.normalise import identity
from jdp.learning.averaged import Averaged
from jdp.policies import make
from jdp.policies.chunks import CloneState
from jdp.policies.pruned import pruned

CONFIG = replace(TINY["diffusion_policy"], blocks=2, features=16, sampling_steps=2)


@pytest.fixture(scope="module")
def whole():
    """A method, a state as if it were trained, rows to learn from, and observations; nothing is compiled."""
    method = make(CONFIG, GOALS)
    rows, rng = rows_like(segments(0, offsets_of(method))), np.random.default_rng(5)
    shapes = jax.eval_shape(method.learner.init, jax.random.key(0), rows).actor.ema
    ema = jax.tree.map(lambda p: rng.normal(scale=0.2, size=p.shape).astype(np.float32), shapes)
    state = CloneState(Averaged(ema, ema, (), jnp.zeros((), jnp.int32)), identity(3))
    return method, state, rows, rng.normal(size=(8, 3)).astype(np.float32)


def acted(method, state, observation):
    """The first action; of plain states, so that few programs are compiled."""
    plain = CloneState(state.actor._replace(opt_state=()), state.standardise)
    carry = method.policy.init(observation)
    act = jax.jit(method.policy.act)
    return np.asarray(act(jax.random.key(1), plain, carry, observation, observation[:, :2])[1].action)


def test_with_all_its_blocks_it_is_the_same_policy(whole):
    """Its settings are equal, so its programs are; and its weights have the same bits."""
    method, state, rows, _ = whole
    config, same = pruned(CONFIG, GOALS, state, (0, 1), steps=CONFIG.steps)
    assert config == CONFIG and same.policy == method.policy
    began = same.learner.init(jax.random.key(0), rows)
    for a, b in zip(jax.tree.leaves(began.actor.ema), jax.tree.leaves(state.actor.ema), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.slow
def test_half_of_it_learns_what_the_whole_says(whole):
    """And is a policy of its own config; what is protected keeps its bits, and the teacher keeps all."""
    method, state, rows, observation = whole
    config, half = pruned(CONFIG, GOALS, state, (0,), learning_rate=1e-2, steps=200)
    assert half.policy == make(config, GOALS).policy
    began = half.learner.init(jax.random.key(0), rows)
    learned = loops.train(half.learner, rows, key=jax.random.key(1), updates=200, batch_size=32, chunk=200)
    wanted = acted(method, state, observation)
    gaps = [np.abs(acted(half, s, observation) - wanted).mean() for s in (began, learned)]
    assert gaps[1] < 0.6 * gaps[0], gaps
    for a, b in zip(jax.tree.leaves(learned.teacher), jax.tree.leaves(state.actor.ema), strict=True):
        np.testing.assert_array_equal(a, b)


def test_what_is_protected_does_not_learn(whole):
    _, half = pruned(CONFIG, GOALS, whole[1], (0,), protected=1)
    rates = half.learner.init(jax.random.key(0), whole[2]).rates["params"]
    learns = {name for name, layer in rates.items() if any(np.asarray(r) for r in jax.tree.leaves(layer))}
    assert learns == {"Dense_4"}  # the last layer


def test_what_has_no_such_blocks_is_refused(whole):
    with pytest.raises(UserError, match="fql is not a diffusion_policy"):
        pruned(TINY["fql"], GOALS, whole[1], (0,))
    with pytest.raises(UserError, match="blocks 0 to 1"):
        pruned(CONFIG, GOALS, whole[1], (2,))
