"""A sampler's settings: their levels, a draw by them, and what they refuse."""

from dataclasses import replace

import jax
import numpy as np
import pytest

from jdp import UserError
from jdp.diffusion.exact import gaussian
from jdp.diffusion.samplers import euler
from jdp.diffusion.sampling import Sampling
from jdp.diffusion.schedules import karras
from jdp.types import named_keys

SAMPLING = Sampling("euler", 6, 0.05, 10.0, rho=5.0)


def test_a_draw_is_the_samplers_from_noise_of_the_first_level():
    denoiser, key = gaussian(0.3, 0.5), jax.random.key(0)
    levels = karras(6, 0.05, 10.0, 5.0)
    np.testing.assert_array_equal(SAMPLING.sigmas(), levels)
    keys = named_keys(key, "start", "sampler")
    x = levels[0] * jax.random.normal(keys["start"], (4, 2))
    found = SAMPLING.draw(key, denoiser, (4, 2))
    np.testing.assert_allclose(found, euler(denoiser, x, levels), rtol=1e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sampler": "dream"}, "MyConfig.sampler is 'dream'; one of euler"),
        ({"steps": 2}, "MyConfig needs my_steps >= 3 and 0 < sigma_min < sigma_max, not 2"),
        ({"sigma_min": 10.0}, "needs my_steps"),
        ({"sigma_min": 0.0}, "needs my_steps"),
    ],
)
def test_settings_that_draw_nothing_are_refused(changes, message):
    SAMPLING.check("MyConfig", steps="my_steps", least=3)
    with pytest.raises(UserError, match=message):
        replace(SAMPLING, **changes).check("MyConfig", steps="my_steps", least=3)
