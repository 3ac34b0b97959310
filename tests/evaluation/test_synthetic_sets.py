"""What synthetic sets are judged beside."""

import jax
import numpy as np

import jdp
from jdp.data import experience, fit_normaliser
from jdp.evaluation.synthetic_sets import real_stretches, real_windows, typical_windows


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


def test_a_density_of_the_data_tells_what_is_not_of_them():
    data, horizon, rng = jdp.data.load("hopper-medium", source="bundled"), 8, np.random.default_rng(0)
    normaliser = fit_normaliser(data)
    typical = typical_windows(data, normaliser, horizon)
    assert typical is not None
    real = real_windows(data, normaliser, 256, horizon)
    whole = real.valid[:, :-1].all(axis=1)

    def told(scale, noise):
        x = np.array(normaliser.encode(real.observation, real.action, real.reward, real.terminal))
        x[..., :-1] = scale * x[..., :-1] + noise * rng.normal(size=x[..., :-1].shape)
        return typical.judge(experience(x, normaliser))

    same = told(1, 0)
    assert same["windows"] == whole.sum() < 256  # those in which an episode ends are left out
    # Windows of one episode are alike, so those of other episodes differ a little from them.
    assert abs(same["auroc"][0] - 0.5) < 0.08
    assert told(1, 0.1)["auroc"][1] > 0.9
    narrow = told(0.5, 0)
    assert narrow["auroc"][2] < 0.4 and narrow["bits"][0] < same["bits"][0]
    assert typical.judge(real._replace(valid=np.zeros_like(real.valid))) == {}
