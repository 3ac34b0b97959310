"""Methods of alignment on the mixture whose optimum is known: how near each comes to the exact tilt."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import pytest

from jdp.alignment import toy
from jdp.alignment.ddpo import DDPOConfig, ddpo
from jdp.alignment.fiberpo import FiberPOConfig, fiberpo
from jdp.alignment.flow_grpo import FlowGRPOConfig, flow_grpo
from jdp.alignment.g2rpo import G2RPOConfig, g2rpo
from jdp.alignment.loop import LOOPConfig, loop
from jdp.diffusion import chains, transitions
from jdp.diffusion.sampling import Sampling
from jdp.loops import train

BETA = 1.0
TILT = toy.FOUR.tilted(toy.SLOPE, BETA)
MODEL = toy.model(Sampling(sampler="euler", steps=25))


class Row(NamedTuple):
    """A method, how it is trained, and what it must reach."""

    make: Any
    config: Any
    updates: int
    conditions: int  # of a batch
    mark: float  # highest energy distance to the tilt; that of the model as it was is 1.08


# Noise that keeps no memory of the start, and rewards in their own unit: the optimum is the tilt.
EXACT = {"eta": 1.0, "spread": "none", "kl_weight": BETA}
ROWS = [
    Row(ddpo, DDPOConfig(learning_rate=3e-3), 150, 16, 0.15),
    Row(loop, LOOPConfig(learning_rate=2e-3), 60, 64, 0.15),
    Row(
        flow_grpo,
        FlowGRPOConfig(learning_rate=4e-3, group=16, epochs=4, levels=None, **EXACT),
        60,
        16,
        0.15,
    ),
    Row(fiberpo, FiberPOConfig(learning_rate=3e-3), 60, 16, 0.15),
    # Twice beta, for advantages are summed over two strides; all steps branch, for the last keep the support.
    Row(
        g2rpo, G2RPOConfig(learning_rate=2e-3, branching=25, **EXACT | {"kl_weight": 2 * BETA}), 60, 16, 0.15
    ),
]


@pytest.mark.slow
@pytest.mark.optimised
@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.make.__name__)
def test_it_comes_near_the_exact_tilt_and_stays_on_the_support(row):
    given = toy.given(jax.random.key(1))
    state = train(
        row.make(row.config, MODEL),
        given,
        key=jax.random.key(0),
        updates=row.updates,
        batch_size=row.conditions,
        seeds=None,
    )
    denoiser = MODEL.denoiser(state.trained.params, jnp.zeros((2000, 0)))
    keys = jax.random.split(jax.random.key(7), 3)
    sigmas, start = MODEL.sampling.sigmas(), MODEL.start(keys[0], 2000)
    x = chains.sample(transitions.ddim, denoiser, start, sigmas, key=keys[1], eta=1.0, memory=())
    found = toy.measured(x, TILT)
    assert found.energy_distance <= row.mark and found.off_support < 0.02, found
