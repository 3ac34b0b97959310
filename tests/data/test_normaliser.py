"""The normaliser: an inverse, a standardisation, and the zero of the pads."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from data_files import ORIGIN, columns, random_episodes

from jdp.data import fit_affine, fit_normaliser, padded_rows, training_rows
from jdp.data.episodes import make_episodes
from jdp.types import Spec


def test_dataset_channels_are_standardised_over_rows():
    data = random_episodes(0, episodes=200)
    normaliser = fit_normaliser(data)
    terminals = data.terminals.astype(np.float32)
    x = normaliser.encode(data.observations, data.actions, data.rewards, terminals)
    assert isinstance(x, np.ndarray) and x.dtype == np.float32 and x.shape == (len(data), 3 + 2 + 2)
    np.testing.assert_allclose(x[:, :-1].mean(0), 0, atol=1e-4)
    np.testing.assert_allclose(x[:, :-1].std(0), 1, atol=1e-4)
    np.testing.assert_array_equal(x[:, -1], terminals)


@pytest.mark.parametrize("shape", [(), (5,), (2, 5)])
def test_decode_inverts_encode_in_numpy_and_under_jit(shape):
    normaliser = fit_normaliser(random_episodes(1))
    rng = np.random.default_rng(0)
    fields = (
        rng.normal(size=(*shape, 3)).astype(np.float32),
        rng.uniform(-0.99, 0.99, size=(*shape, 2)).astype(np.float32),
        rng.normal(size=shape).astype(np.float32) if shape else np.asarray(0.3, np.float32),
        rng.integers(0, 2, size=shape).astype(np.float32) if shape else np.asarray(1.0, np.float32),
    )
    device = jax.tree.map(jnp.asarray, normaliser)
    x = jax.jit(lambda n, f: n.encode(*f))(device, fields)
    decoded = jax.jit(lambda n, x: n.decode(x))(device, x)
    for found, expected in zip(decoded, fields, strict=True):
        np.testing.assert_allclose(found, expected, atol=2e-5)
    np.testing.assert_allclose(x, normaliser.encode(*fields), rtol=1e-4, atol=1e-4)
    for found, expected in zip(normaliser.decode(np.asarray(x)), fields, strict=True):
        np.testing.assert_allclose(found, expected, atol=2e-5)


def test_actions_at_the_bounds_stay_finite_and_inside():
    normaliser = fit_normaliser(random_episodes(1), clip=0.999)
    ends = np.asarray([[-1.0, 1.0]], np.float32)
    np.testing.assert_allclose(normaliser.decode_action(normaliser.encode_action(ends)), 0.999 * ends)
    u = normaliser.pre_tanh(normaliser.encode_action(ends))
    np.testing.assert_allclose(np.tanh(u), 0.999 * ends, rtol=1e-6)


def test_a_constant_channel_has_std_one():
    values = columns(10)
    values["observations"][:, 1] = 0.1
    values["rewards"][:] = 1.0
    normaliser = fit_normaliser(make_episodes(**values, spec=Spec(3, 2), origin=ORIGIN))
    assert normaliser.std[1] == 1 and normaliser.std[-2] == 1 and normaliser.mean[-2] == 1
    assert normaliser.mean[-1] == 0 and normaliser.std[-1] == 1


def test_pads_are_zero_in_the_normalised_action_and_reward():
    data = random_episodes(2)
    normaliser = fit_normaliser(data)
    packed, rows = training_rows(data, normaliser)
    assert packed.dtype == np.float32 and len(packed) == len(padded_rows(data).pad)
    pads, last = packed[rows.pad], data.stops[data.terminated] - 1
    np.testing.assert_array_equal(pads[:, 3:6], 0)
    np.testing.assert_array_equal(pads[:, 6], 1)
    expected = normaliser.normalise_observation(data.next_observations[last])
    np.testing.assert_array_equal(pads[:, :3], expected)
    np.testing.assert_allclose(
        normaliser.decode_action(packed[~rows.pad, 3:5]), data.actions.clip(-0.999, 0.999), atol=1e-5
    )


def test_a_normaliser_is_an_argument_of_jit_and_not_a_constant():
    traces = []

    @jax.jit
    def encode(normaliser, observation):
        traces.append(1)
        return normaliser.normalise_observation(observation)

    for seed in (0, 1):
        encode(fit_normaliser(random_episodes(seed)), jnp.zeros((4, 3)))
    assert len(traces) == 1


@pytest.mark.parametrize("unit", (1e-9, 1e-4, 1.0, 1e6))
def test_standardised_data_do_not_depend_on_the_unit(unit):
    rng = np.random.default_rng(0)
    x = (rng.normal(size=(500, 3)) * [2.0, 0.5, 1.0] + [0.0, 1.0, -3.0]).astype(np.float32)
    x[:, 2] = 4.0  # a constant
    scaled = fit_affine(unit * x)
    np.testing.assert_allclose(scaled(unit * x)[:, :2], fit_affine(x)(x)[:, :2], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(scaled.std[2], 1.0)
    added = fit_affine(unit * x, plus=1e-3)
    np.testing.assert_allclose(added(unit * x)[:, :2].std(axis=0), 1.0, atol=6e-3)


def test_the_trajectory_s_channels_do_not_depend_on_the_unit():
    rng = np.random.default_rng(0)
    values = columns(200)
    values["observations"] = (1e-9 * rng.normal(size=(200, 3))).astype(np.float32)
    values["rewards"] = (1e-9 * rng.normal(size=200)).astype(np.float32)
    values["next_observations"] = None
    made = fit_normaliser(make_episodes(**values, spec=Spec(3, 2), origin=ORIGIN))
    seen = made.normalise_observation(values["observations"])
    np.testing.assert_allclose(seen.std(axis=0), 1.0, rtol=1e-4)
    np.testing.assert_allclose(made.encode_reward(values["rewards"]).std(), 1.0, rtol=1e-4)
