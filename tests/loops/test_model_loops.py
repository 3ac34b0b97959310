"""Models trained in a journal, and agents that learn from rollouts in them: cut anywhere, the same bits."""

import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hand_made import agent, bits
from test_train import DATA, KEY

from jdp.data import RowFiles, prepared
from jdp.errors import UserError
from jdp.learning.diffuser import DiffuserConfig
from jdp.loops import Memory, make_world_model, train_diffuser, train_model_based, train_world_model
from jdp.networks import NetworkConfig
from jdp.runs import RunJournal, start_run
from jdp.types import Imagination, Learner, WorldModel
from jdp.world_models import RolloutConfig
from jdp.world_models.ensemble import EnsembleConfig

sys.path.append(str(Path(__file__).parents[1] / "runs"))
from test_run_journal import Cut, CutJournal

ENSEMBLE = EnsembleConfig(members=2, elites=1, hidden=(8,), decay=(0.0,), batch_size=32, epochs=3)


@pytest.fixture
def run(tmp_path):
    return start_run(tmp_path, "toys", "toy", {"seed": 0}, {})


def cutting(run, at):
    journal = CutJournal(run, checkpoint_minutes=0)
    journal.at = at
    return journal


def test_an_ensemble_that_was_cut_goes_on_at_its_epoch(run):
    options = {"key": KEY, "termination": "never"}
    memory = Memory()
    whole = train_world_model(DATA, ENSEMBLE, journal=memory, **options)
    assert [r["step"] for r in memory.records("ensemble")] == [1, 2, 3]
    assert all("best_holdout_error" in r for r in memory.records())
    with pytest.raises(Cut):
        train_world_model(DATA, ENSEMBLE, journal=cutting(run, 2), **options)
    found = train_world_model(DATA, ENSEMBLE, journal=RunJournal(run), **options)
    assert bits(found.state) == bits(whole.state)


def test_a_model_that_cannot_be_trained_is_refused_before_anything_is():
    with pytest.raises(UserError, match="no terminal to learn one from"):
        make_world_model(ENSEMBLE, DATA)
    with pytest.raises(UserError, match="too few"):
        make_world_model(EnsembleConfig(batch_size=1024), DATA, termination="never")


def test_a_diffuser_of_windows_in_files_is_that_of_windows_in_memory(tmp_path):
    network, config = NetworkConfig("mixer", 8, 1), DiffuserConfig(steps=5, batch_size=8)
    losses = []
    for files in (None, RowFiles(tmp_path)):
        journal = Memory()
        found = train_diffuser(DATA, network, config, 4, key=KEY, files=files, journal=journal)
        losses.append([r["loss"] for r in journal.records("diffuser")])
        assert found.denoiser(jnp.zeros((2, 4, 5)), jnp.ones(2)).shape == (2, 4, 5)
    # Adam makes steps of one size out of gradients that are rounding alone, so weights may differ.
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-4)


def _start(observations, actions):
    return observations[:, -1]


def _step(key, state, carry, action):
    """Drifts with the action, and some noise; ends nowhere."""
    following = carry + state * jnp.concatenate([action, action], axis=1)
    following = following + 0.01 * jax.random.normal(key, following.shape)
    return following, following, following[:, 0], jnp.zeros(len(following))


MODEL = WorldModel(Learner(lambda k, d: None, lambda k, s, b: (s, {}), {}), _start, _step)
METHOD = agent()._replace(imagination=Imagination(MODEL, lambda state, data: 2 * state))
ROLLOUTS = RolloutConfig(length=2, batch=4, every=20, capacity=20, real_share=0.5)


def based(journal, method=METHOD):
    return train_model_based(
        method,
        jnp.float32(0.5),
        prepared(method.learner.draws, DATA),
        DATA,
        ROLLOUTS,
        key=KEY,
        rollout_key=jax.random.key(9),
        seeds=2,
        updates=60,
        batch_size=8,
        chunk=10,
        journal=journal,
    )


@pytest.mark.parametrize("at", [10, 30, 50])
def test_rollouts_of_a_run_that_was_cut_are_not_made_again(run, at):
    whole = bits(based(None))
    with pytest.raises(Cut):
        based(cutting(run, at))
    assert bits(based(RunJournal(run))) == whole


def test_agents_learn_from_their_rollouts():
    def still(state, data):
        return 0 * state

    other = METHOD._replace(imagination=Imagination(MODEL, still))
    assert bits(based(None, other)) != bits(based(None))
    with pytest.raises(UserError, match="no world model"):
        based(None, METHOD._replace(imagination=None))
