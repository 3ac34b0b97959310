"""DPPO: chains whose last steps learn, their densities, and a bandit whose optimum is known."""

from dataclasses import replace
from functools import lru_cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from bandits import BASE, BEST, KEY, SPEC, base_state, moved, trained

from jdp.diffusion import chains
from jdp.diffusion.transitions import ddim
from jdp.errors import UserError
from jdp.finetune import chain, make
from jdp.finetune.chain import ChainConfig
from jdp.finetune.dppo import DPPOConfig
from jdp.learning.acting import OnPolicyConfig
from jdp.policies import actions
from jdp.policies.beso import BESOConfig


@lru_cache
def drawn(learned, floor=0.1):
    config = ChainConfig(4, learned, std_floor=floor)
    params, shown = moved(base_state().actor.ema), jnp.linspace(-1, 1, 10).reshape(5, 2)
    found = jax.jit(
        lambda key, new: chain.sample(key, base_state().actor.ema, new, shown, config, BASE, SPEC)
    )
    return config, params, shown, found(KEY, params), found(KEY, base_state().actor.ema)


@pytest.mark.parametrize("learned", [1, 3, 4])
def test_the_first_steps_of_a_chain_are_the_base_policys(learned):
    _, _, _, ours, base = drawn(learned)
    assert ours.shape == (learned + 1, 5, 3)
    np.testing.assert_array_equal(ours[0], base[0])
    assert (ours[1] != base[1]).all()


@pytest.mark.parametrize("learned", [1, 3])
def test_the_density_of_each_move_is_that_of_the_chain(learned):
    config, params, shown, found, _ = drawn(learned)
    rows = chain.moves(found, shown)
    flat = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), rows)
    ours = chain.log_prob(params, flat, config, BASE, SPEC).reshape(learned, 5)
    own = actions.denoiser(params, shown, BASE)
    options = {"eta": 1.0, "std_floor": config.std_floor, "memory": ()}
    mask = jnp.array([[True, True, False]])  # two of three actions are executed
    sigmas = chain.levels(config, BASE)[4 - learned :]
    whole = chains.chain_log_prob(ddim, own, found, sigmas, mask=mask, **options)
    np.testing.assert_allclose(ours, whole, rtol=1e-4, atol=1e-4)
    last = (found[-1] - own(found[-2], jnp.full(5, sigmas[-2])))[:, :2] / config.std_floor
    expected = -0.5 * np.sum(np.square(last), 1) - 2 * np.log(config.std_floor * np.sqrt(2 * np.pi))
    np.testing.assert_allclose(ours[-1], expected, rtol=1e-4, atol=1e-4)
    # Steps of two sets of weights have one spread, so their divergence is that of the means.
    base = base_state().actor.ema
    gap = [chain.step_of(weights, flat, config, BASE) for weights in (base, params)]
    apart = np.sum(np.square((gap[0].mean - gap[1].mean) / gap[0].std)[:, :2], 1) / 2
    np.testing.assert_allclose(
        chain.divergence(base, params, flat, config, BASE, SPEC), apart, rtol=1e-4, atol=1e-5
    )


TINY = DPPOConfig(
    acting=OnPolicyConfig(64, 2), chain=ChainConfig(4, 2, std_floor=0.2), critic_hidden=(16,), minibatches=4,
    learning_rate=3e-3, clip=0.2, clip_first=0.2, log_prob="sum",
)  # fmt: skip


def test_before_it_learns_ratios_are_one_and_the_policy_is_the_bases():
    still = replace(TINY, learning_rate=0.0, critic_learning_rate=0.0, epochs=1)
    _, states, (record,) = trained(still, 1)
    np.testing.assert_allclose(record["approximate_kl"], 0, atol=1e-5)
    np.testing.assert_allclose(record["clipped"], 0)
    jax.tree.map(
        lambda ours, base: np.testing.assert_array_equal(ours[0], base),
        states.trained.params["actor"],
        base_state().actor.ema,
    )


@pytest.mark.slow
def test_a_bandits_actions_move_to_the_best_one():
    """To the optimum: what is left of the reward is the floor's variance, in both actions of an episode."""
    method, states, records = trained(TINY, 40)
    before, after = (r["returns"] / r["episodes"] for r in (records[0], records[-1]))
    np.testing.assert_allclose(after, -2 * TINY.chain.std_floor**2, atol=0.015)
    assert (before < -0.3).all()
    one = jax.tree.map(lambda x: x[0], states)
    shown = jnp.zeros((200, 2))
    carry, decision = method.policy.act(KEY, one, method.policy.init(shown), shown, jnp.zeros((200, 0)))
    assert abs(decision.action.mean() - BEST) < 0.15 and decision.decided.all()
    again = method.policy.act(KEY, one, carry, shown, jnp.zeros((200, 0)))[1]
    assert not again.decided.any()  # the second action of the chunk
    jax.tree.map(np.testing.assert_array_equal, one.base, base_state())


def test_other_policies_are_refused():
    with pytest.raises(UserError, match="only diffusion_policy is fine-tuned by its chain, not BESOConfig"):
        make(TINY, SPEC, base=BESOConfig())
    with pytest.raises(UserError, match="sees 2 observations"):
        make(TINY, SPEC, base=replace(BASE, history=2))
    with pytest.raises(UserError, match="learned"):
        ChainConfig(4, 5)
