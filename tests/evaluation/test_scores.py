"""Normalised scores in closed form."""

import numpy as np

from jdp.evaluation import normalised_score


def test_normalised_score():
    np.testing.assert_allclose(normalised_score([[-20.0, 3234.0, 1607.0]], (-20.0, 3234.0)), [[0, 100, 50]])
