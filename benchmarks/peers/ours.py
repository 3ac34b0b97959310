"""Our side of the pairs, from the other benchmarks."""

from collections.abc import Callable
from functools import partial
from typing import Any

import agents
import jax

from jdp.agents import make


def updates(name: str, rows: int, count: int) -> Callable[[], Any]:
    """`count` updates of the agent `name` with the sizes of Hopper, on `rows` transitions."""
    agent = make(name, agents.SPEC)
    draws: Any = agent.learner.draws
    data = agents.dataset(rows, next_actions=draws.next_actions)
    run = jax.jit(partial(agents.updates, agent=agent, batch_size=256, count=count))
    key = jax.random.key(1)
    state = jax.jit(agent.learner.init)(key, draws.view(data[:10_000]))
    return lambda: run(key, state, data)
