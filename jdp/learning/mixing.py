"""The value of what several agents choose together, mixed of their own (QMIX, arXiv 1803.11605).

In GMAH (arXiv 2408.11416) each agent's high level rates its own subgoals, and a mixer that rises in every
rating says what all are worth together. So the best subgoals together are each agent's own best one: nobody
searches the joint choices, and each agent can choose alone once it is trained.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax import Array

from jdp.networks.mlp import mlp
from jdp.types import Network, Params, named_keys


@dataclass(frozen=True)
class Mixer:
    """The mixing of `agents` = n values at states `[B, S]`; hashable."""

    agents: int
    hidden: int = 32
    """Units between the values and their mixture."""

    def init(self, key: Array, state: Array) -> Params:
        """Weights for states like `state` `[B, S]`; the key is consumed."""
        networks = self._networks()
        keys = named_keys(key, *networks)
        return {name: network.init(keys[name], state) for name, network in networks.items()}

    def mix(self, params: Params, values: Array, state: Array) -> Array:
        """`[B]`, what `values` `[B, n]` are worth together at states `[B, S]`: it falls in none of them.

        The state makes the weights, of which the absolute values are taken, and the biases.
        """
        made = {name: network.apply(params[name], state) for name, network in self._networks().items()}
        first = jnp.abs(made["first"]).reshape(-1, self.agents, self.hidden)
        between = jax.nn.elu(jnp.einsum("bn,bnh->bh", values, first) + made["first_bias"])
        return jnp.einsum("bh,bh->b", between, jnp.abs(made["last"])) + made["last_bias"][:, 0]

    def _networks(self) -> dict[str, Network]:
        """Of states, to what the mixing is made of."""
        return {
            "first": mlp((self.agents * self.hidden,)),
            "first_bias": mlp((self.hidden,)),
            "last": mlp((self.hidden,)),
            "last_bias": mlp((self.hidden, 1)),
        }


def together(values: Array) -> Array:
    """`[B, n]` int32, the best joint choice of a mixture of `values` `[B, n, K]`: each agent's own best."""
    return jnp.argmax(values, axis=-1).astype(jnp.int32)
