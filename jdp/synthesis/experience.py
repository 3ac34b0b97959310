"""Generated trajectories become transitions, and transitions become batches beside the real ones."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jdp.data import Normaliser
from jdp.types import Bound, Lookup, Transition, pack, unpack


class Experience(NamedTuple):
    """Generated trajectories in the units of the task."""

    observation: np.ndarray  # [..., T, O]
    action: np.ndarray  # [..., T, A], within (-1, 1)
    reward: np.ndarray  # [..., T]
    terminal: np.ndarray  # [..., T], 0 or 1
    valid: np.ndarray  # [..., T], bool: steps that are transitions


def experience(x: np.ndarray, normaliser: Normaliser) -> Experience:
    """Decodes normalised trajectories `[..., T, D]` and marks which steps are transitions.

    A flag above 1/2 is a terminal. Nothing after the first terminal is valid. The last step has no
    generated successor, so it is a transition only where it is terminal, which needs none.
    """
    observation, action, reward, flag = normaliser.decode(x)
    terminal = flag > 0.5
    before = np.cumsum(terminal, axis=-1) - terminal  # terminals strictly earlier
    valid = before == 0
    valid[..., -1] &= terminal[..., -1]
    return Experience(observation, action, reward, (terminal & valid).astype(np.float32), valid)


def to_transitions(made: Experience) -> tuple[Transition, np.ndarray]:
    """`[N, ...]` transitions in time order, and where a fragment ended without a terminal `[N]` bool.

    `made` has shapes `[M, T, ...]`. The next observation of a terminal last step is its own (masked by
    the terminal wherever it is used).
    """
    following = np.concatenate([made.observation[:, 1:], made.observation[:, -1:]], axis=1)
    keep = made.valid
    last = np.zeros(keep.shape, bool)
    last[np.arange(len(keep)), keep.shape[1] - 1 - np.argmax(keep[:, ::-1], axis=1)] = True
    terminal = made.terminal
    timeouts = last & (terminal == 0)
    fields = (made.observation, made.action, made.reward, following, terminal)
    return Transition(*(f[keep] for f in fields)), timeouts[keep]


class Pool(NamedTuple):
    """What batches are drawn from. S agents share the real data; each has its own synthetic set."""

    real: Array | np.ndarray  # [N, P] packed transitions
    synthetic: Array | np.ndarray | None  # [S, capacity, P]; None: real data only
    sizes: Array | np.ndarray | None  # [S] int32, how many rows of `synthetic` are filled


def pool(real: Transition, made: Experience | None = None, *, capacity: int | None = None) -> Pool:
    """A pool of packed rows. `made` has shapes `[S, M, T, ...]`; S = 1 serves all agents.

    It has `capacity` rows (default `M * T`) whatever the number of valid steps, so regeneration keeps all
    shapes and compiles nothing. Transitions beyond it are left out; unfilled rows are never drawn.
    """
    packed = np.asarray(pack(jax.tree.map(jnp.asarray, real)))
    if made is None:
        return Pool(packed, None, None)
    seeds, count, length = made.valid.shape
    most = count * length if capacity is None else capacity
    rows = np.zeros((seeds, most, packed.shape[-1]), np.float32)
    sizes = np.zeros(seeds, np.int32)
    for s in range(seeds):
        moved, _ = to_transitions(Experience(*(field[s] for field in made)))
        found = np.asarray(pack(jax.tree.map(jnp.asarray, moved)))[:most]
        rows[s, : len(found)], sizes[s] = found, len(found)
    return Pool(packed, rows, sizes)


def _draw(
    key: Array,
    data: Pool,
    *,
    agents: int,
    batches: int,
    real: int,
    synthetic: int,
    dims: tuple[int, int],
):
    def one(key: Array, rows: Any, size: Any) -> Transition:
        key_real, key_synthetic = jax.random.split(key)
        index = jax.random.randint(key_real, (batches, real), 0, data.real.shape[0])
        batch = data.real[index]
        if rows is not None:
            index = jax.random.randint(key_synthetic, (batches, synthetic), 0, size)
            batch = jnp.concatenate([batch, rows[index]], axis=1)
        return unpack(batch.reshape(-1, batch.shape[-1]), *dims)

    keys = jax.random.split(key, agents)
    if data.synthetic is None or data.sizes is None:
        return jax.vmap(lambda k: one(k, None, None))(keys)
    if data.synthetic.shape[0] == 1:  # one set for all agents
        rows, size = data.synthetic[0], data.sizes[0]
        return jax.vmap(lambda k: one(k, rows, size))(keys)
    return jax.vmap(one)(keys, data.synthetic, data.sizes)


def draw_batches(*, agents: int, batches: int, batch_size: int, real_share: float, dims: tuple[int, int]):
    """A `draw(key, pool) -> Transition [S, batches * batch_size, ...]` for `jdp.loops.fit`.

    Each of the `batches` minibatches holds `round(real_share * batch_size)` real rows and synthetic
    rows for the rest, uniform and with replacement. `dims` is `(O, A)`.
    """
    real = round(real_share * batch_size)
    settings = dict(agents=agents, batches=batches, real=real, synthetic=batch_size - real, dims=dims)
    return Bound(_draw, tuple(settings.items()))


def _locate_windows(key: Array, tables: tuple[Array, Array], *, batch_size: int, length: int) -> Array:
    starts, last = tables
    w = jax.random.randint(key, (batch_size,), 0, starts.shape[0])
    steps = jnp.arange(length, dtype=starts.dtype)[None]
    return jnp.minimum(starts[w][:, None] + steps, last[w][:, None])


def _take_rows(rows: Any, at: Any) -> Any:
    return rows[at]


def _draw_windows(key: Array, data: tuple[Array, Array, Array], *, batch_size: int, length: int) -> Array:
    rows, starts, last = data
    return rows[_locate_windows(key, (starts, last), batch_size=batch_size, length=length)]


def draw_windows(batch_size: int, length: int):
    """A `draw(key, (rows [M, D], starts [W], last [W])) -> x0 [batch_size, length, D]` for `fit`."""
    return Bound(_draw_windows, (("batch_size", batch_size), ("length", length)))


def window_lookup(batch_size: int, length: int) -> Lookup:
    """`draw_windows` in two halves, of `(starts, last)` and of `rows`, for `jdp.data.stream`."""
    return Lookup(
        Bound(_locate_windows, (("batch_size", batch_size), ("length", length))), Bound(_take_rows, ())
    )
