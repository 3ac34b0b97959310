"""A sampler's settings: their levels, a draw by them, and what they refuse."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdp import UserError
from jdp.diffusion.exact import gaussian, mixture
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


@pytest.mark.parametrize(("steps", "lowest"), [(2, 0.02), (2, 0.1), (5, 0.02)])
def test_a_truncated_chain_keeps_all_modes_in_steps_in_which_a_full_one_finds_none(steps, lowest):
    """Eight modes of std .1 on a circle of radius 2; anchors are .15 off, and noised to .4."""
    angle, count = 2 * np.pi * np.arange(8) / 8, 4096
    modes = 2 * np.stack([np.cos(angle), np.sin(angle)], axis=1).astype(np.float32)
    denoiser, keys = (
        mixture(np.full(8, 1 / 8), modes, np.full(8, 0.1)),
        jax.random.split(jax.random.key(0), 2),
    )
    anchors = jnp.asarray(np.tile(modes, (count // 8, 1))) + 0.15 * jax.random.normal(keys[0], (count, 2))

    def drawn(sampling, around=None):
        x = np.asarray(sampling.draw(keys[1], denoiser, (count, 2), around=around))
        far = np.linalg.norm(x[:, None] - modes, axis=-1)
        on = far.min(axis=1) < 0.3
        return on.mean(), 8 * np.bincount(far.argmin(axis=1)[on], minlength=8).min() / max(on.sum(), 1)

    truncated, least = drawn(Sampling("euler", steps, lowest, 0.4), anchors)
    full, _ = drawn(Sampling("euler", steps, lowest, 80.0))
    assert truncated > {0.02: 0.85, 0.1: 0.94}[lowest] and least > 0.95
    assert full < 0.2 if steps == 2 else truncated > full + 0.4
