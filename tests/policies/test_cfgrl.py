"""CFGRL against the product policy in closed form, and on the bandit of two modes."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from policy_batches import GOALS, SHARE, TINY, actions_of, offsets_of, programs, segments, trained

from jdp import UserError
from jdp.data.normalise import Affine
from jdp.diffusion import exact
from jdp.learning.averaged import Averaged
from jdp.learning.critics import lower_q
from jdp.policies import actions, make
from jdp.policies.cfgrl import CFGRLConfig, _from_present, cfgrl
from jdp.policies.chunks import CloneState
from jdp.policies.composed import composed
from jdp.policies.relabelled import transitions
from jdp.types import Spec, bind

ROWS, STD, STEP = 4096, 0.1, 0.15
BLANK = CloneState(Averaged(*[None] * 4), Affine(jnp.zeros(1), jnp.ones(1)))
GOOD, APART = 0.3, 0.5  # share of the mode at .5, beside one at -.5
OPTIMAL = {1: 0.6, -1: 0.3}  # how often an action of either mode beats the average


def drawn(monkeypatch, own, weight):
    """`[ROWS]` actions at that weight, where `own(optimal [B, 1])` is the denoiser."""
    monkeypatch.setattr(actions, "denoiser", lambda params, seen, config: own(seen[:, -2:-1]))
    config = CFGRLConfig(guidance=weight, sampler="heun", sampling_steps=24, sigma_min=0.01, sigma_max=20.0)
    policy = cfgrl.__wrapped__(config, Spec(1, 1)).policy
    here, none = jnp.zeros((ROWS, 1)), jnp.zeros((ROWS, 0))
    return np.asarray(policy.act(jax.random.key(0), BLANK, policy.init(here), here, none)[1].action)[:, 0]


@pytest.mark.parametrize("weight", [0.0, 1.0, 3.0])
def test_an_optimality_that_tilts_a_gaussian_improves_it_by_the_weight(monkeypatch, weight):
    """`N(0, s^2)` and `p(o | a)` of slope `c / s^2` make `N(w c, s^2)`."""
    found = drawn(monkeypatch, lambda optimal: exact.gaussian(STEP * optimal, STD), weight)
    assert found.mean() == pytest.approx(weight * STEP, abs=0.01)
    assert found.std() == pytest.approx(STD, rel=0.05)


def _modes(share, x, sigma):
    sides = jnp.array([APART, -APART])[None]
    total = STD**2 + jnp.square(sigma)[:, None]
    log = jnp.log(jnp.concatenate([share, 1 - share], axis=1)) - jnp.square(x - sides) / (2 * total)
    clean = (STD**2 * x + jnp.square(sigma)[:, None] * sides) / total
    return jnp.sum(jax.nn.softmax(log, axis=1) * clean, axis=1, keepdims=True)


def modes(optimal):
    """Of the data, and by Bayes' rule of those told that they are optimal."""
    told = GOOD * OPTIMAL[1] / (GOOD * OPTIMAL[1] + (1 - GOOD) * OPTIMAL[-1])
    return bind(_modes, GOOD + (told - GOOD) * optimal)


def test_a_bandit_gets_better_with_the_weight_as_the_product_says(monkeypatch):
    """Shares in proportion to `p(k) p(o | k)^w`; exact to w = 1, and near it beyond."""
    shares = []
    for weight in (0.0, 0.5, 1.0, 2.0, 4.0):
        odds = GOOD / (1 - GOOD) * (OPTIMAL[1] / OPTIMAL[-1]) ** weight
        shares.append((drawn(monkeypatch, modes, weight) > 0).mean())
        assert shares[-1] == pytest.approx(odds / (1 + odds), abs=0.03 if weight <= 1 else 0.08), weight
    assert (np.diff(shares) > 0).all()


def test_an_action_is_labelled_by_its_advantage():
    """Of the lower target Q over V, which has learned from the batch; another drop changes no critic."""
    method, state, update, _ = programs("cfgrl")
    config, batch = TINY["cfgrl"], segments(0, offsets_of(method))
    after, metrics = update(jax.random.key(0), state, batch)
    step = transitions(batch, state.standardise, GOALS, config)
    q = lower_q(state.target_critic, step.observation, step.action, config)
    v = config.value().apply(after.value.params, step.observation)[..., 0]
    assert metrics["optimal"] == pytest.approx(np.mean(np.asarray(q) >= np.asarray(v)), abs=1 / 64)
    other, _ = update(jax.random.key(1), state, batch)
    jax.tree.map(np.testing.assert_array_equal, after.critic.params, other.critic.params)


def test_a_history_and_a_chunk_are_judged_from_the_present_on():
    config = replace(TINY["cfgrl"], history=2, chunk=3, execute=2)
    assert config.offsets() == (-1, 0, 1, 2) and TINY["cfgrl"].offsets() == (0, 1)
    learner = make(config, GOALS).learner
    batch = segments(0, config.offsets())
    found, wanted = _from_present(batch, config), np.asarray(batch.observation)
    np.testing.assert_array_equal(found.observation[:, 0], wanted[:, 1])
    assert learner.draws.offsets == config.offsets() and learner.draws.hindsight.anywhere == 0.3
    assert composed([make(config, GOALS).policy] * 2)  # chunks as any other
    with pytest.raises(UserError, match=r"CFGRLConfig\.drop"):
        CFGRLConfig(drop=1.5)


@pytest.mark.slow
def test_of_a_trained_policy_the_weight_decides_how_much_better_it_is():
    """Without guidance the data's share of .3, with it nearly all of the mode that is worth more."""
    state, shares = trained("cfgrl", 500), []
    for weight in (0.0, 1.0, 3.0):
        method = make(replace(TINY["cfgrl"], guidance=weight), GOALS)
        shares.append((actions_of(method, state) > 0.2).mean())
    assert shares[0] == pytest.approx(SHARE, abs=0.12) and shares[1] > 0.8 and shares[2] > 0.95
