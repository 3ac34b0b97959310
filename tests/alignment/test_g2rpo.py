"""G2RPO: the reward of a branch is that of the one step in which there was noise."""

from itertools import pairwise

import jax
import jax.numpy as jnp
import level_table as table
import numpy as np
import pytest

from jdp.alignment import advantages, chain, g2rpo, toy
from jdp.alignment.g2rpo import G2RPOConfig
from jdp.alignment.learner import Aligned
from jdp.diffusion import chains
from jdp.diffusion.exact import gaussian
from jdp.diffusion.sampling import Sampling
from jdp.diffusion.transitions import flow_sde
from jdp.errors import UserError
from jdp.learning.optimiser import Trained

KEY = jax.random.key(2)


def explained(noise, reward):
    """R^2 of a linear regression of `reward` `[K]` on `noise` `[K, D]`."""
    x = np.concatenate([noise, np.ones((len(noise), 1))], axis=1)
    left = reward - x @ np.linalg.lstsq(x, reward)[0]
    return 1 - left.var() / reward.var()


def test_the_noise_of_its_step_explains_the_reward_three_times_as_well_as_in_the_full_sde():
    model = toy.model(Sampling(sampler="euler", steps=10, sigma_min=0.1))
    given, steps, starts, branches = toy.given(KEY), 6, 2, 256
    config = G2RPOConfig(group=branches, branching=steps, strides=(1,), spread="none", eta=1.0)
    state = Aligned(Trained(given.params, ()), given.params, given.judge)
    settings = {"config": config, "model": model}

    @jax.jit
    def both():
        own = {"advantage": advantages.centred, "step": flow_sde}
        rows, _ = g2rpo._collect(KEY, state, jnp.zeros((starts, 0)), **settings, **own)
        start = rows.moves.state.reshape(steps, -1, 2)[0]
        sigmas, denoiser = model.sampling.sigmas(), model.denoiser(given.params, jnp.zeros((len(start), 0)))
        options = {"eta": config.eta, "std_floor": config.std_floor, "memory": (), "trace": True}
        states = chains.sample(flow_sde, denoiser, start, sigmas, key=KEY, **options)
        full, _ = chain.judged_chains(
            states, jnp.zeros((len(start), 0)), state, config, model, advantages.centred, flow_sde
        )

        def noise(rows):
            found = chain.drawn(given.params, rows.moves, config, model, flow_sde)
            return (rows.moves.following - found.mean) / found.std, rows.advantage

        return noise(rows), noise(full)

    shares = []
    for noise, reward in both():
        groups = zip(
            np.asarray(noise).reshape(-1, branches, 2)[: steps * starts],
            np.asarray(reward).reshape(-1, branches)[: steps * starts],
            strict=True,
        )
        shares.append(np.mean([explained(*group) for group in groups]))
    assert shares[0] > 3 * shares[1], shares


@pytest.mark.parametrize(("begin", "stride", "path"), [(1, 2, (1, 3, 4)), (0, 3, (0, 3, 4)), (3, 1, (3, 4))])
def test_the_rest_of_a_branch_is_the_ode_in_strides(begin, stride, path):
    sigmas, x = np.array([4.0, 2.0, 1.0, 0.5, 0.0], np.float32), np.float32([[1.0, -2.0]])
    wanted, v = x.copy(), 1.5**2
    for now, following in pairwise(sigmas[list(path)]):
        denoised = (v * wanted + now**2 * 0.5) / (v + now**2)
        wanted = denoised + following / now * (wanted - denoised)
    found = FINISHED(gaussian(0.5, 1.5), x, begin, sigmas, stride=stride)
    np.testing.assert_allclose(found, wanted, rtol=1e-5)


FINISHED = jax.jit(g2rpo.finished, static_argnames="stride")


def test_advantages_are_summed_over_the_strides():
    def worth(*strides):
        config = G2RPOConfig(group=4, branching=2, strides=strides)
        own = {"config": config, "model": table.MODEL, "advantage": advantages.group, "step": flow_sde}
        rows, _ = g2rpo._collect(KEY, table.state(), table.conditions(2), **own)
        return rows.moves.following, rows.advantage

    (drawn, one), (_, two), (again, both) = jax.jit(lambda: (worth(1), worth(2), worth(1, 2)))()
    np.testing.assert_array_equal(drawn, again)
    np.testing.assert_allclose(both, one + two, rtol=1e-4, atol=1e-5)
    assert not np.allclose(one, two, atol=1e-3)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: G2RPOConfig(strides=()), "strides is"),
        (lambda: G2RPOConfig(kl_to_go=True), "leave it out"),
        (lambda: g2rpo.g2rpo(G2RPOConfig(branching=5), table.MODEL), "branching is 5, of chains of 4"),
    ],
)
def test_settings_that_cannot_be_are_refused(make, said):
    with pytest.raises(UserError, match=said):
        make()
