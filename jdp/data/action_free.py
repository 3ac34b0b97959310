"""Experience without actions, as of videos: an action that nobody knows is NaN."""

from dataclasses import dataclass, replace

import numpy as np

from jdp.data.draws import OtherRows
from jdp.data.episodes import Episodes
from jdp.errors import UserError
from jdp.types import PyTree

GOLDEN = (5**0.5 - 1) / 2  # multiples of it lie evenly on the circle


def with_actions(count: int, share: float) -> np.ndarray:
    """`[count]` bool, the episodes that keep their actions: a `share` of them, spread evenly.

    Each is told by its number alone, and those of a smaller share are among those of a larger one.
    """
    return (GOLDEN * np.arange(1, count + 1)) % 1.0 < share


def without_actions(episodes: Episodes, share: float) -> Episodes:
    """`episodes`, of which all but a `share` have no actions (NaN).

    Methods that do not ask for such episodes refuse them by their loss, which is not finite.

    Raises:
        UserError: if none would have any.
    """
    known = with_actions(len(episodes.starts), share)
    if not known.any():
        raise UserError(
            f"{episodes.origin.name}: a share of {share} of {len(known)} episodes is none with actions: "
            "take a larger one"
        )
    rows = np.repeat(known, episodes.lengths)[:, None]
    return replace(episodes, actions=np.where(rows, episodes.actions, np.float32(np.nan)))


@dataclass(frozen=True)
class ActionShareDraw(OtherRows):
    """What `draw` draws (a `jdp.types.Draw`) of `without_actions(episodes, share)`."""

    share: float

    def prepare(self, episodes: Episodes) -> PyTree:
        """The rows of `draw`."""
        return self.draw.prepare(without_actions(episodes, self.share))
