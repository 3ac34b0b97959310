"""A planner of a transformer with a cache: products are left out of its program, of warm starts too."""

from dataclasses import replace

import jax
import jax.numpy as jnp
from deciding import row_shapes

from jdp.diffusion.caching import uniform, with_cache
from jdp.learning.plan_models import ModelConfig
from jdp.networks import NetworkConfig
from jdp.planners import SamplingConfig, make
from jdp.planners.diffuser import DiffuserPlannerConfig
from jdp.types import Spec

SPEC, STEPS, WARM = Spec(3, 2, goal=(0, 1)), 6, 2


def products(config):
    """Matrix products in the program of a decision."""
    method = make(config, SPEC)
    key = jax.eval_shape(lambda: jax.random.key(0))
    state = jax.eval_shape(method.learner.init, key, row_shapes(SPEC))
    observation, goal = jnp.zeros((4, 3)), jnp.zeros((4, 2))
    carry = jax.eval_shape(method.policy.init, observation)
    return str(jax.make_jaxpr(method.policy.act)(key, state, carry, observation, goal)).count("dot_general")


def test_a_planner_leaves_out_what_its_schedule_does():
    """A block has 6 products of attention and 2 of its layers, and each branch one of its modulation."""
    sampling = SamplingConfig(steps=STEPS, warm_steps=WARM)
    model = ModelConfig(network=NetworkConfig("transformer", features=8, blocks=1))
    config = DiffuserPlannerConfig(horizon=8, candidates=1, model=model, sampling=sampling)
    every, once = (
        replace(config, sampling=with_cache(sampling, uniform(2, STEPS, budget))) for budget in (STEPS, 1)
    )
    assert products(every) - products(once) == 10 * (STEPS - 1 + WARM - 1)
    again = replace(config, sampling=with_cache(sampling, uniform(2, STEPS, 1)))
    assert make(once, SPEC) is make(again, SPEC)
