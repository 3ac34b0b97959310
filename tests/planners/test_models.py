"""Models of plans: every formulation learns the same conditional, flow maps in few calls."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdp import loops
from jdp.errors import UserError
from jdp.networks import NetworkConfig
from jdp.planners import ModelConfig, SamplingConfig
from jdp.planners.models import model
from jdp.planners.trajectory import draw_plan, nothing_planned, plan_schedule

SLOPE, SPREAD, STEPS = 0.8, 0.5, 300
KNOWN = jnp.zeros((2, 1), bool).at[0].set(True)


def draw(key, data):
    """Plans of two rows: the second is SLOPE times the first, with a spread."""
    del data
    first, noise = jax.random.normal(key, (2, 256, 1, 1))
    return jnp.concatenate([first, SLOPE * first + SPREAD * noise], axis=1)


def learn(key, state, x0, *, net):
    return net.update(key, state, x0, jnp.zeros((x0.shape[0], 0)), KNOWN[None], jnp.ones((1, 1, 1)))


@pytest.mark.parametrize(
    ("name", "sampler", "steps"),
    [
        ("flow", "euler", 20),
        ("consistency", "consistency", 2),
        ("shortcut", "flow_map", 2),
    ],
)
def test_draws_have_the_conditional_of_the_data(name, sampler, steps):
    config = ModelConfig(
        network=NetworkConfig("mixer", 32, 1), formulation=name, steps=STEPS, learning_rate=5e-3, ema=0.98
    )
    net = model(config)
    state = net.init(jax.random.key(0), jnp.zeros((1, 2, 1)), jnp.zeros((1, 0)))
    state = loops.fit(lambda *a: learn(*a, net=net), draw, state, (), key=jax.random.key(1), stop=STEPS)
    sampling = SamplingConfig(sampler=sampler, steps=steps, warm_steps=0, sigma_max=None)
    batch = 2000
    present = jnp.linspace(-1.5, 1.5, batch)[:, None]
    known = jnp.zeros((batch, 2, 1)).at[:, 0].set(present)

    def plans(key, state):
        denoiser = net.denoiser(state, jnp.zeros((batch, 0)))
        mask = jnp.broadcast_to(KNOWN[None], known.shape)
        schedule = plan_schedule(sampling, name)
        return draw_plan(key, denoiser, known, mask, nothing_planned(batch, 2, 1), sampling, schedule)

    x = np.asarray(jax.jit(plans)(jax.random.key(2), state))[..., 0]
    assert x[:, 0] == pytest.approx(np.asarray(present)[:, 0], abs=1e-6)  # the present is exact
    slope, offset = np.polyfit(x[:, 0], x[:, 1], 1)
    assert slope == pytest.approx(SLOPE, abs=0.12)
    assert offset == pytest.approx(0.0, abs=0.12)
    assert np.std(x[:, 1] - slope * x[:, 0] - offset) == pytest.approx(SPREAD, rel=0.35)  # after 300 updates


def test_a_sampler_of_another_kind_of_model_is_refused():
    for name, sampler in (("edm", "flow_map"), ("shortcut", "euler"), ("consistency", "dpmpp_2m")):
        with pytest.raises(UserError, match="do not go together"):
            plan_schedule(SamplingConfig(sampler=sampler, warm_steps=0), name)
    with pytest.raises(UserError, match="formulation"):
        model(ModelConfig(formulation="vp_epz"))
