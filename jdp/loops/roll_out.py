"""A policy's own experience, in environments on the host: the rows of a dataset, in order."""

from collections.abc import Callable
from functools import lru_cache, partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jdp.loops.host import HostEnvironments, acted
from jdp.loops.play import Make
from jdp.types import Decision, Policy, PyTree, Spec, Transition, named_keys

MOST = 16  # environments at once
EPISODES = 20  # of full length in each environment: of so many one is cut at the end


def environments_for(rows: int, limit: int) -> int:
    """How many environments share `rows` steps, so that few of their episodes are cut at the end."""
    return max(1, min(MOST, rows // (EPISODES * limit)))


def roll_out(
    policy: Policy,
    make: Make,
    spec: Spec,
    state: PyTree,
    *,
    key: Array,
    rows: int,
    progress: Callable[[int], None] | None = None,
) -> tuple[Transition, np.ndarray]:
    """`rows` = n steps of `policy`: `(transitions [n, ...], timeouts [n] bool)`, episode after episode.

    Several environments are stepped at once (`environments_for`); the rows of the first come first. An
    episode that the end of the collection cuts ends in a timeout. Equal arguments give equal bits.

    Args:
        state: of one policy.
        key: of actions and of the episodes' first states; consumed.
        progress: called now and then with the rows so far.
    """
    keys = named_keys(key, "act", "episodes")
    seed = int(jax.random.bits(keys["episodes"]))
    probe = make()
    limit = probe.max_episode_steps
    probe.close()
    count = environments_for(rows, limit or rows)
    steps = -(-rows // count)
    envs = HostEnvironments(make, count, spec.action_dim, seed)
    try:
        taken, timeouts = _steps(policy, envs, state, keys["act"], steps, progress)
    finally:
        envs.close()
    flat = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:])[:rows], taken)
    ends = timeouts.reshape(-1)[:rows]
    ends[-1] = not flat.terminal[-1]
    return flat, ends


@lru_cache(maxsize=8)
def _decisions(policy: Policy) -> Callable[..., tuple[PyTree, Decision]]:
    return jax.jit(partial(acted, policy))


def _steps(
    policy: Policy,
    envs: HostEnvironments,
    state: PyTree,
    key: Array,
    steps: int,
    progress: Callable[[int], None] | None,
) -> tuple[Transition, np.ndarray]:
    """`(transitions [N, T, ...], timeouts [N, T])`."""
    count, (width, actions) = len(envs.envs), (envs.observation.shape[1], envs.state.actions.shape[2])
    seen, following = np.empty((2, count, steps, width), np.float32)
    action, reward = np.empty((count, steps, actions), np.float32), np.empty((count, steps), np.float32)
    terminal, timeouts = np.zeros((2, count, steps), bool)
    act = _decisions(policy)
    states = jax.tree.map(lambda x: x[None], state)
    carry = jax.vmap(policy.init)(jnp.asarray(envs.observation[None]))
    ended = np.zeros((1, count), bool)
    for t in range(steps):
        carry, decision = act(key, t, states, carry, ended, envs.observation[None], envs.goal[None])
        # Clipped as the environments do, so that the rows say what was applied.
        action[:, t] = np.clip(np.asarray(decision.action)[0], -1.0, 1.0)
        seen[:, t] = envs.observation
        outcome = envs.step(action[:, t])
        following[:, t], reward[:, t] = outcome.observation, outcome.reward
        terminal[:, t], timeouts[:, t] = outcome.terminal, outcome.truncated
        ended = outcome.ended[None]
        if progress is not None and (t % 100 == 99 or t == steps - 1):
            progress((t + 1) * count)
    timeouts[:, -1] |= ~terminal[:, -1]
    rows = Transition(seen, action, reward, following, terminal.astype(np.float32))  # type: ignore[arg-type]
    return rows, timeouts
