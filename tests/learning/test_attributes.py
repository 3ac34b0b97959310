"""Attributes: what labellers say, Bradley and Terry's loss, and strengths learned from preferences alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import spearmanr

from jdp.errors import UserError
from jdp.learning import attributes
from jdp.learning.attributes import StrengthConfig
from jdp.networks import ValueNetworkConfig
from jdp.tasks import mazes
from jdp.types import Spec

HOPPER, MAZE = Spec(11, 3, "Hopper-v5"), Spec(4, 2, "PointMaze_UMaze-v3")
RNG = np.random.default_rng(0)


def test_labellers_say_what_they_are_named():
    rows = RNG.normal(size=(5, 3, 11)).astype(np.float32)
    np.testing.assert_allclose(attributes.labeller("speed", HOPPER)(rows), rows[..., 5].mean(1), rtol=1e-5)
    np.testing.assert_allclose(attributes.labeller("height", HOPPER)(rows), rows[..., 0].mean(1), rtol=1e-5)
    np.testing.assert_allclose(attributes.labeller("7", HOPPER)(rows), rows[..., 7].mean(1), rtol=1e-5)
    points = RNG.normal(size=(5, 3, 4)).astype(np.float32)
    speed = np.hypot(points[..., 2], points[..., 3]).mean(1)
    np.testing.assert_allclose(attributes.labeller("speed", MAZE)(points), speed, rtol=1e-5)
    steps = np.linalg.norm(np.diff(points, axis=1), axis=-1).mean(1)
    np.testing.assert_allclose(attributes.labeller("speed", Spec(4, 2))(points), steps, rtol=1e-5)


def test_clearance_is_the_distance_to_the_nearest_wall_in_cells():
    """By ten thousand points of the walls."""
    maze = mazes.maze_of(MAZE)
    blocked = np.argwhere(~maze.free)
    inside = np.linspace(-0.5, 0.5, 41)
    grid = np.stack(np.meshgrid(inside, inside), -1).reshape(-1, 2)
    walls = (blocked[:, None] + grid[None]).reshape(-1, 2)
    cells = maze.free_cells[RNG.integers(len(maze.free_cells), size=20)] + RNG.uniform(-0.45, 0.45, (20, 2))
    nearest = np.linalg.norm(cells[:, None] - walls[None], axis=-1).min(1)
    rows = np.concatenate([maze.cell_to_xy(cells), np.zeros((20, 2))], -1).astype(np.float32)[:, None]
    np.testing.assert_allclose(attributes.labeller("clearance", MAZE)(rows), nearest, atol=0.02)


@pytest.mark.parametrize(
    ("name", "spec", "match"),
    [
        ("height", MAZE, "no attribute 'height': there are speed, clearance"),
        ("11", HOPPER, "no attribute '11'"),
        ("clearance", HOPPER, "no attribute 'clearance': there are speed, height"),
        (
            "height",
            Spec(3, 1, "Pendulum-v1"),
            "Pendulum-v1 has no attribute 'height': there are speed, 0 to 2",
        ),
    ],
)
def test_other_attributes_are_refused(name, spec, match):
    with pytest.raises(UserError, match=match):
        attributes.labeller(name, spec)


def test_the_loss_is_bradley_and_terrys():
    strength, preferred = np.array([0.3, -1.2, 2.0]), np.array([1.0, 0.0, 1.0])
    chance = 1 / (1 + np.exp(-(strength - strength[[1, 2, 0]])))
    expected = -np.mean(np.log(np.where(preferred == 1, chance, 1 - chance)))
    found = attributes.preference_loss(
        jnp.asarray(strength, jnp.float32), jnp.asarray(preferred, jnp.float32)
    )
    assert found == pytest.approx(expected, rel=1e-5)


@pytest.mark.slow
def test_strengths_of_two_attributes_are_learned_from_preferences_alone():
    """Of segments with a mean and a slope; 95 % of the pairs agree, and standings rank as labels do."""
    config = StrengthConfig(ValueNetworkConfig("pooled", 16, 1), members=2, learning_rate=3e-3, steps=400)

    def segments(key):
        keys = jax.random.split(key, 3)
        level, slope = (jax.random.normal(k, (256, 1)) for k in keys[:2])
        time = jnp.linspace(-1, 1, 6)[None]
        x = level + slope * time + 0.1 * jax.random.normal(keys[2], (256, 6))
        return x[..., None], jnp.concatenate([level, slope], axis=1)

    @jax.jit
    def train(key, state):
        def step(state, key):
            keys = jax.random.split(key)
            x, labels = segments(keys[0])
            return attributes.update(keys[1], state, x, labels, config)

        return jax.lax.scan(step, state, jax.random.split(key, 400))

    state, metrics = train(jax.random.key(1), attributes.begin(jax.random.key(0), config, 6, 1, 2))
    assert np.mean(metrics["preference_accuracy"][-50:]) > 0.95
    x, labels = segments(jax.random.key(2))
    found = np.asarray(attributes.standing(state, x, config))
    for i in range(2):
        assert spearmanr(found[:, i], labels[:, i]).statistic > 0.95
        # A standing is a share of the data, wherever the strengths' zero lies.
        assert found[:, i].mean() == pytest.approx(0.5, abs=0.05)
        assert np.quantile(found[:, i], 0.9) == pytest.approx(0.9, abs=0.08)
