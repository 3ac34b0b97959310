"""Generated trajectories become transitions, and transitions become batches beside the real ones."""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jdp.data.draws import TransitionDraw
from jdp.data.episodes import Episodes
from jdp.data.normalise import Normaliser
from jdp.types import AnyArray, Transition, pack


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
    """What batches are drawn from. Seeds share the real data; each may have a synthetic set of its own."""

    real: AnyArray  # [N, P] packed transitions (`jdp.types.pack`)
    synthetic: AnyArray | None  # [C, P], or [S, C, P] of S seeds; None: real data only
    sizes: AnyArray | None  # [] or [S] int32, how many rows of `synthetic` are filled


def pool(real: Transition | AnyArray, made: Experience | None = None, *, capacity: int | None = None) -> Pool:
    """A pool of the dataset's transitions, packed `[N, P]` or not, and those of `made` `[S, M, T, ...]`.

    S = 1 serves all seeds. The synthetic set has `capacity` rows (default `M * T`) whatever the number of
    valid steps, so regeneration keeps all shapes and compiles nothing. Transitions beyond it are left out;
    unfilled rows are never drawn.
    """
    packed = _packed(real) if isinstance(real, Transition) else real
    if made is None:
        return Pool(packed, None, None)
    seeds, count, length = made.valid.shape
    most = count * length if capacity is None else capacity
    rows = np.zeros((seeds, most, packed.shape[-1]), np.float32)
    sizes = np.zeros(seeds, np.int32)
    for s in range(seeds):
        moved, _ = to_transitions(Experience(*(field[s] for field in made)))
        found = _packed(moved)[:most]
        rows[s, : len(found)], sizes[s] = found, len(found)
    return Pool(packed, rows[0], sizes[0]) if seeds == 1 else Pool(packed, rows, sizes)


def _packed(rows: Transition) -> np.ndarray:
    return np.asarray(pack(jax.tree.map(jnp.asarray, rows)))


def seed_axes(pool: Pool) -> Pool:
    """Which leaves of `pool` hold something else for each seed: `axes` of `jdp.data.batches`."""
    own = None if pool.synthetic is None or pool.synthetic.ndim == 2 else 0
    return Pool(None, own, own)


class Mixed(NamedTuple):
    """Where the rows of a batch lie: `k` minibatches one after another in both parts."""

    real: AnyArray  # [k * R]
    synthetic: AnyArray | None  # [k * (B - R)]


@dataclass(frozen=True)
class PoolDraw:
    """Real and synthetic transitions: `round(real_share * B)` of a minibatch of B are real.

    Uniform and with replacement in both; the key is split for them also where there are real rows alone.
    """

    transitions: TransitionDraw  # of the learner: minibatches, and what a packed row holds
    real_share: float = 1.0

    def prepare(self, episodes: Episodes) -> Pool:
        """The dataset, without a synthetic set."""
        return Pool(self.transitions.prepare(episodes), None, None)

    def view(self, rows: Pool) -> Transition:
        """All real transitions."""
        return self.transitions.view(rows.real)

    def tables(self, rows: Pool) -> tuple[AnyArray, AnyArray | None]:
        """How many real rows there are, and how many synthetic ones."""
        return np.int32(rows.real.shape[0]), rows.sizes

    def locate(self, key: Array, tables: tuple[AnyArray, AnyArray | None], batch_size: int) -> Mixed:
        """Where the rows of the minibatches lie."""
        count, size = tables
        key_real, key_synthetic = jax.random.split(key)
        real, k = round(self.real_share * batch_size), self.transitions.minibatches
        at = jax.random.randint(key_real, (k, real), 0, count).reshape(-1)
        if size is None:
            return Mixed(at, None)
        other = jax.random.randint(key_synthetic, (k, batch_size - real), 0, size)
        return Mixed(at, other.reshape(-1))

    def take(self, rows: Pool, located: Mixed) -> Transition:
        """Fields `[k * B, ...]`: of every minibatch the real rows first."""
        found = rows.real[located.real]
        if rows.synthetic is not None and located.synthetic is not None:
            k = self.transitions.minibatches
            parts = (found, rows.synthetic[located.synthetic])
            parts = [x.reshape(k, -1, x.shape[-1]) for x in parts]
            found = jnp.concatenate(parts, axis=1).reshape(-1, found.shape[-1])
        return self.transitions.view(found)
