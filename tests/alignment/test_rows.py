"""Pairs of files and of a labeller, experts, network calls, and presets of every method."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdp import registry
from jdp.alignment import awm, ddpo, nft, problems, rows
from jdp.alignment.calls import network_calls
from jdp.alignment.models import Given, Model
from jdp.diffusion.sampling import Sampling
from jdp.errors import UserError
from jdp.types import bind

KEY = jax.random.key(0)
TOY = problems.problem(KEY, "linear")


def half(params, condition):
    """A denoiser without a network."""
    del params, condition
    return bind(halving)


def halving(x, sigma):
    del sigma
    return 0.5 * x


SMALL = TOY.base._replace(model=Model(half, (2,), Sampling(sampler="ddpm", steps=2)))
FIRST, SECOND = np.zeros((3, 2), np.float32), np.ones((3, 2), np.float32)
GOOD = {
    "first": FIRST,
    "second": SECOND,
    "condition": np.zeros((3, 0)),
    "first_won": np.array([True, False, True]),
}


def test_pairs_of_a_file_are_read_as_they_were_won(tmp_path):
    np.savez(tmp_path / "pairs.npz", **GOOD)
    found = rows.read_pairs(tmp_path / "pairs.npz", TOY.base.model, 0)
    np.testing.assert_array_equal(found.winner[:, 0], [0, 1, 0])
    np.testing.assert_array_equal(found.loser[:, 0], [1, 0, 1])
    assert found.condition.shape == (3, 0)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"second": np.ones((2, 2))}, r"first is \(3, 2\), second \(2, 2\): make them equal"),
        ({"first": np.zeros((3, 5)), "second": np.ones((3, 5))}, r"first is \(3, 5\), it must be \(3, 2\)"),
        ({"condition": np.zeros((3, 4))}, r"condition is \(3, 4\), it must be \(3, 0\)"),
        ({"first_won": None}, "has no first_won"),
        ({"first_won": np.array([0.5, 0, 1])}, "true or false"),
        ({"first": np.full((3, 2), np.nan)}, "not finite"),
        ({"first": np.array([{}], object)}, "no npz file"),
    ],
)
def test_pairs_of_other_shapes_get_one_line(tmp_path, change, word):
    fields = {name: x for name, x in (GOOD | change).items() if x is not None}
    np.savez(tmp_path / "pairs.npz", **fields)
    with pytest.raises(UserError, match=word):
        rows.read_pairs(tmp_path / "pairs.npz", TOY.base.model, 0)


def test_a_file_that_is_none_gets_one_line(tmp_path):
    (tmp_path / "x.npz").write_text("no zip")
    for name in ("x.npz", "missing.npz"):
        with pytest.raises(UserError, match="no npz file of arrays"):
            rows.read_pairs(tmp_path / name, TOY.base.model, 0)


def test_a_sure_labeller_prefers_the_higher_reward_and_experts_are_the_best():
    pairs = rows.drawn_pairs(KEY, SMALL, TOY.judge, TOY.conditions, 32, 1e6)
    assert (TOY.judge(pairs.winner, pairs.condition) >= TOY.judge(pairs.loser, pairs.condition)).all()
    best = rows.best_samples(KEY, SMALL, TOY.judge, TOY.conditions, 8, 16)
    assert jnp.mean(TOY.judge(best.x0, best.condition)) > jnp.mean(TOY.judge(pairs.winner, pairs.condition))


def test_network_calls_are_counted_in_the_program():
    def counted(entry, config, count=3):
        def make(model):
            return entry.make(config, model)

        model = TOY.base.model
        state = jax.eval_shape(make(model).init, KEY, Given(TOY.base.params, TOY.judge, TOY.conditions))
        return network_calls(make, model, state, jnp.zeros((count, 0)))

    chains = 3 * 4 * 25  # conditions, samples and steps
    known = registry.entries("alignment")
    # Drawn; ours and the reference's densities; ours and the reference's in each of two passes.
    assert counted(known["ddpo"], ddpo.DDPOConfig(group=4, epochs=2)) == (1 + 2 + 2 * 2) * chains
    assert counted(known["awm"], awm.AWMConfig(group=4, levels=5)) == chains + 3 * 4 * 5 * 3


def test_every_method_has_presets_of_the_toy_and_of_runs():
    for name, entry in registry.entries("alignment").items():
        assert entry.presets is not None, f"{name} has no presets: see jdp.alignment.presets"
        for task in (registry.Task("toy"), registry.Task("run")):
            found = entry.presets(task)
            assert set(found) == {"smoke", "cpu", "paper"}
            assert all(type(preset.settings) is entry.config for preset in found.values())


def test_settings_that_teach_nothing_are_refused():
    with pytest.raises(UserError, match=r"DDPOConfig\.eta is 0: the steps of a deterministic sampler"):
        ddpo.DDPOConfig(eta=0.0)
    for config in (ddpo.DDPOConfig, awm.AWMConfig, nft.NFTConfig):
        with pytest.raises(UserError, match="group is 1; samples are judged by others"):
            config(group=1)
    nft.NFTConfig(group=1, bounded=True)
