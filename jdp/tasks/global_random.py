"""Numpy's global generator, lent to simulators that draw from it."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np


class GlobalRandom:
    """A state of numpy's global generator of its own, for code that knows no other generator.

    What is drawn while it is `lent` depends on `seed` and on what was drawn from it before alone, and what
    is drawn elsewhere does not depend on it.
    """

    def __init__(self, seed: int):
        self._state = np.random.RandomState(seed).get_state()

    @contextmanager
    def lent(self) -> Iterator[None]:
        """Within it `np.random` goes on from this state."""
        outside = np.random.get_state()
        np.random.set_state(self._state)
        try:
            yield
        finally:
            self._state = np.random.get_state()
            np.random.set_state(outside)
