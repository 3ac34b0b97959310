"""Whether a method can be trained and played at all, asked before anything is."""

import jax
import jax.numpy as jnp

from jdp.data import Episodes
from jdp.data.draws import together
from jdp.types import Method


def check_method(method: Method, data: Episodes) -> None:
    """Traces the first decision of `method`, untrained, on `data`: no number is computed.

    Raises:
        UserError: what the method has against its settings, the dataset or its task.
    """
    draw = together(method.learner.draws)
    rows = draw.prepare(data)
    observation, goal = jnp.zeros((1, data.spec.observation_dim)), jnp.zeros((1, len(data.spec.goal)))

    def decide(key: jax.Array) -> object:
        state = method.learner.init(key, draw.view(rows))
        return method.policy.act(key, state, method.policy.init(observation), observation, goal)

    jax.eval_shape(decide, jax.random.key(0))
