"""Which blocks go, how fast the others learn, and what is left learns from."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jdp import UserError
from jdp.diffusion import formulations
from jdp.learning import pruning
from jdp.networks.conditional_mlp import conditional_mlp, conditioned
from jdp.networks.depth import depth_prune

NETWORK = conditional_mlp(16, 3)
X, LEVELS, SEEN = jax.random.normal(jax.random.key(0), (8, 2)), jnp.linspace(0.1, 2.0, 8), jnp.zeros((8, 0))
EDM = formulations.edm()


@pytest.fixture(scope="module")
def params():
    """Of a network whose middle block adds nothing."""
    rng, shapes = np.random.default_rng(2), jax.eval_shape(NETWORK.init, jax.random.key(1), X, LEVELS, SEEN)
    made = jax.tree.map(lambda p: rng.normal(scale=0.4, size=p.shape).astype(np.float32), shapes)
    return {"params": {**made["params"], "Dense_5": jax.tree.map(jnp.zeros_like, made["params"]["Dense_5"])}}


def mean_square(network, params):
    return jnp.mean(jnp.square(network.apply(params, X, LEVELS, SEEN)))


def test_sensitivity_is_what_leaving_a_block_out_does(params):
    @jax.jit
    def both(params):
        each = [mean_square(*depth_prune(NETWORK, params, keep)) for keep in ([1, 2], [0, 2], [0, 1])]
        return pruning.sensitivity(NETWORK, params, mean_square), jnp.stack(each) - mean_square(
            NETWORK, params
        )

    found, wanted = both(params)
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)
    assert abs(found[1]) < 1e-5 < abs(found[0])
    with pytest.raises(UserError, match="has none to leave out"):
        pruning.sensitivity(*depth_prune(NETWORK, params, [0]), mean_square)


def test_later_blocks_go_first_and_those_that_are_not_missed():
    assert pruning.kept_blocks([0.1, 0.2, 5.0, 9.0], 2) == (0, 1)  # by position alone
    assert pruning.kept_blocks([0.1, 0.2, 5.0, 9.0], 2, protected=1) == (0, 3)
    assert pruning.kept_blocks([1.0, 2.0, 2.0, 2.0], 2, protected=0) == (1, 2)  # the later of equals goes
    with pytest.raises(UserError, match="cannot be kept"):
        pruning.kept_blocks([1.0, 2.0], 1, protected=2)


def test_a_block_learns_at_the_share_that_its_sensitivity_leaves(params):
    """Rates multiply the updates; what is protected keeps its bits, with all that lies before it."""
    rates = pruning.distillation_rates(NETWORK, params, [4.0, 1.0, 2.0], protected=1)["params"]
    for name, wanted in {
        "Dense_0": 0,
        "NoiseEmbedding_0": 0,
        "Dense_3": 0,
        "Dense_5": 1,
        "Dense_6": 0.5,
        "Dense_8": 1,
    }.items():
        assert {float(leaf) for leaf in jax.tree.leaves(rates[name])} == {wanted}
    every = pruning.distillation_rates(NETWORK, params)
    assert {float(leaf) for leaf in jax.tree.leaves(every)} == {1.0}
    plain, scaled = optax.sgd(0.1), pruning.at_rates(optax.sgd(0.1), {"params": rates})
    gradient = jax.tree.map(jnp.ones_like, params)
    full = plain.update(gradient, plain.init(params))[0]["params"]
    found = scaled.update(gradient, scaled.init(params))[0]["params"]
    for name, layer in found.items():
        for leaf, whole, rate in zip(*map(jax.tree.leaves, (layer, full[name], rates[name])), strict=True):
            np.testing.assert_array_equal(leaf, whole * rate)


def test_a_student_that_is_its_teacher_has_nothing_to_learn(params):
    """And of another the loss is the mean squared distance of what the networks say."""
    smaller, kept = depth_prune(NETWORK, params, [0])
    c_in, c_noise = 1 / jnp.sqrt(LEVELS**2 + 1), jnp.log(LEVELS) / 4

    @jax.jit
    def losses(params, kept):
        whole = (conditioned(NETWORK.apply), (params, SEEN))
        half = (conditioned(smaller.apply), (kept, SEEN))
        said = [
            network.apply(p, c_in[:, None] * X, c_noise, SEEN)
            for network, p in ((NETWORK, params), (smaller, kept))
        ]
        return [
            pruning.distillation_loss(EDM, whole, whole, X, LEVELS)[0],
            pruning.distillation_loss(EDM, half, whole, X, LEVELS)[0],
            jnp.mean(jnp.square(said[0] - said[1])),
        ]

    none, found, wanted = losses(params, kept)
    assert none == 0
    np.testing.assert_allclose(found, wanted, rtol=1e-4)
