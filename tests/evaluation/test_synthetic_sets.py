"""What synthetic sets are judged beside."""

import jax
import numpy as np

import jdp
from jdp.evaluation.synthetic_sets import real_stretches


def test_real_stretches_stay_within_their_episode():
    data = jdp.data.load("hopper-medium", source="bundled")
    found = real_stretches(jax.random.key(0), data, 400, 30)
    ends = set(map(tuple, data.observations[data.timeouts]))
    for i in range(400):
        steps = np.flatnonzero(found.valid[i])
        assert steps.tolist() == list(range(len(steps)))  # a prefix
        for t in steps[:-1]:
            assert not found.terminal[i, t] and tuple(found.observation[i, t]) not in ends
    assert found.terminal.sum() > 5
