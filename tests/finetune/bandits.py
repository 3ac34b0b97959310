"""A bandit of two steps whose best action is known, and untrained policies for it."""

from functools import lru_cache

import jax
import jax.numpy as jnp

from jdp.data import segment_rows
from jdp.finetune import make
from jdp.loops import Memory, train_online
from jdp.policies import chunks
from jdp.policies.diffusion_policy import DiffusionPolicyConfig
from jdp.runs.models import stand_in
from jdp.tasks.simulators import chunked
from jdp.types import Spec, Stepped, Task

KEY = jax.random.key(0)
SPEC = Spec(2, 1, "bandit", 2)
BASE = DiffusionPolicyConfig(features=16, blocks=1, chunk=3, execute=2)
BEST = 0.4


def _reset(key):
    return jnp.zeros(()), jnp.zeros(2), jnp.zeros(0)


def _step(key, state, action):
    """Rewards actions near `BEST`; ends after two of them."""
    state = state + 1
    seen = jnp.stack([state, jnp.zeros(())])
    return state, Stepped(seen, -jnp.square(action[0] - BEST), state == 2, action[0] > 2)


BANDIT = Task(_reset, _step, SPEC)


@lru_cache
def base_state(base=BASE):
    """Not trained: the last layer of its network is 0."""
    rows = jax.tree.map(jnp.asarray, segment_rows(stand_in(SPEC), 2))
    return chunks.init(jax.random.key(0), rows, config=base, spec=SPEC)


def moved(params, size=0.3):
    """Other weights of the same shapes."""
    leaves, structure = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(7), len(leaves))
    return structure.unflatten(
        [x + size * jax.random.normal(k, x.shape) for x, k in zip(leaves, keys, strict=True)]
    )


def trained(config, updates, base=BASE, seeds=2):
    """The fine-tuner, what its seeds have learned, and the records of its updates."""
    method, journal = make(config, SPEC, base=base), Memory()
    task, options = chunked(BANDIT, base.execute), {"key": KEY, "updates": updates, "seeds": seeds}
    states = train_online(
        method, task, config.acting, rows=base_state(base), chunk=5, journal=journal, **options
    )
    return method, states, journal.records("online")
