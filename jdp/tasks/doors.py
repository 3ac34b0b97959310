"""A row of rooms with one open door each: a task of two levels, whose values and gradients are exact.

In every room a high level names a door, and a low level, which sees that name but not the room, walks to one
within a few steps. Who stands at the open door when they are over is rewarded with 1 and enters the next
room; who stands at another one is out. Both levels are tables of logits, so the expected return is a closed
form of them, and its gradient is JAX's.
"""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jdp.errors import check_settings
from jdp.types import named_keys

MOVES = 3  # left, stay, right


@dataclass(frozen=True)
class Doors:
    """The rooms."""

    rooms: int = 4
    """In a row."""
    reach: int = 2
    """Steps that are walked in a room, from its middle: so far lie its last doors on either side."""
    slip: float = 0.1
    """How often a move is one by chance instead."""

    def __post_init__(self) -> None:
        check_settings("Doors", rooms=(self.rooms, 1, 100), reach=(self.reach, 1, 20), slip=(self.slip, 0, 1))

    @property
    def doors(self) -> int:
        """W, doors of a room."""
        return 2 * self.reach + 1

    @property
    def steps(self) -> int:
        """T, of a whole episode."""
        return self.rooms * self.reach

    def open_doors(self) -> np.ndarray:
        """`[rooms]`, which one is open."""
        return (np.arange(self.rooms) * 3 + self.doors - 1) % self.doors


class Tables(NamedTuple):
    """Numbers of every situation of both levels: logits, or values; rooms, doors named, steps, places."""

    high: Array  # logits [rooms, W]; values [rooms + 1], 0 after the last
    low: Array  # logits [W, reach, W, 3]; values [rooms, W, reach + 1, W]


def first_logits(doors: Doors, skill: float = 1.0) -> Tables:
    """A high level that knows nothing, and a low level that walks to the named door, surely by `skill`."""
    named, _, place, move = np.indices((doors.doors, doors.reach, doors.doors, MOVES))
    nearer = np.abs(place + move - 1 - named) < np.abs(place - named)
    there = (place == named) & (move == 1)
    return Tables(jnp.zeros((doors.rooms, doors.doors)), jnp.asarray(skill * (nearer | there), jnp.float32))


def _moved(place: Array, move: Array, doors: Doors) -> Array:
    return jnp.clip(place + move - 1, 0, doors.doors - 1)


def exact_values(logits: Tables, doors: Doors) -> Tables:
    """What is still to be expected: a room at its beginning, and under a named door; undiscounted.

    `high[0]` is the expected return. Differentiable.
    """
    moves = jax.nn.softmax(logits.low)
    moves = (1 - doors.slip) * moves + doors.slip / MOVES  # [W, reach, W, 3]
    after = _moved(jnp.arange(doors.doors)[:, None], jnp.arange(MOVES)[None], doors)  # [W, 3]
    there = jnp.eye(doors.doors)[jnp.asarray(doors.open_doors())]  # [rooms, W]
    arrive = jnp.broadcast_to(there[:, None], (doors.rooms, doors.doors, doors.doors))
    by_step = [arrive]
    for step in reversed(range(doors.reach)):
        arrive = jnp.sum(moves[None, :, step] * arrive[:, :, after], axis=-1)
        by_step.append(arrive)
    arrives = jnp.stack(by_step[::-1], axis=2)  # [rooms, W named, reach + 1, W]
    through = jnp.sum(jax.nn.softmax(logits.high) * arrives[:, :, 0, doors.reach], axis=1)  # [rooms]
    high = [jnp.zeros(())]
    for room in reversed(range(doors.rooms)):
        high.append(through[room] * (1 + high[-1]))
    high = jnp.stack(high[::-1])
    return Tables(high, arrives * (1 + high[1:])[:, None, None, None])


def success(logits: Tables, doors: Doors) -> Array:
    """`[]`, how often all rooms are passed."""
    high = exact_values(logits, doors).high
    return jnp.prod(high[:-1] / (1 + high[1:]))


class Walk(NamedTuple):
    """T steps of N episodes; rows after an episode's end are not `alive`."""

    room: Array  # [T, N] int32
    named: Array  # [T, N] int32, the door
    step: Array  # [T, N] int32, within the room; 0 where a door was named
    place: Array  # [T, N] int32
    move: Array  # [T, N] int32
    following: Array  # [T, N] int32, the place reached
    reward: Array  # [T, N]
    terminal: Array  # [T, N] bool
    alive: Array  # [T, N] bool

    @property
    def switch(self) -> Array:
        """`[T + 1, N]` bool, where a door was named."""
        first = self.step == 0
        return jnp.concatenate([first, jnp.ones_like(first[:1])])


def play(key: Array, logits: Tables, doors: Doors, episodes: int, named: Array | None = None) -> Walk:
    """N = `episodes` episodes; the key is consumed.

    Args:
        named: `[rooms, N]` int32, doors that are named whatever the high level says.
    """
    keys = named_keys(key, "high", "low", "slip", "chance")
    if named is None:
        named = jax.random.categorical(keys["high"], logits.high[:, None], shape=(doors.rooms, episodes))
    count = (doors.steps, episodes)
    gumbel = jax.random.gumbel(keys["low"], (*count, MOVES))
    slips = jax.random.bernoulli(keys["slip"], doors.slip, count)
    chance = jax.random.randint(keys["chance"], count, 0, MOVES)
    opened = jnp.asarray(doors.open_doors())

    def body(carry: tuple[Array, Array], row: tuple[Array, ...]) -> tuple[tuple[Array, Array], Walk]:
        (place, alive), (at, gumbel, slips, chance) = carry, row
        room, step = at // doors.reach, at % doors.reach
        door = named[room]
        move = jnp.argmax(logits.low[door, step, place] + gumbel, axis=-1)
        following = _moved(place, jnp.where(slips, chance, move), doors)
        closes = step == doors.reach - 1
        through = closes & (following == opened[room]) & alive
        over = closes & (~through | (room == doors.rooms - 1))
        whole = jnp.ones_like(place)
        earned = through.astype(jnp.float32)
        walk = Walk(room * whole, door, step * whole, place, move, following, earned, over, alive)
        return (jnp.where(closes, doors.reach, following), alive & ~over), walk

    begin = jnp.full(episodes, doors.reach), jnp.ones(episodes, bool)
    return jax.lax.scan(body, begin, (jnp.arange(doors.steps), gumbel, slips, chance))[1]
