"""Weights in a file act as those of their run do, and a file that is damaged or another's is refused."""

import dataclasses
import json
import sys
import zipfile
from pathlib import Path

import jax
import numpy as np
import pytest

import jdp
from jdp import evaluation
from jdp.data import prepared
from jdp.errors import UserError
from jdp.learning.diffuser import DiffuserConfig
from jdp.loops import play_in_turn, train_diffuser, train_in_rounds
from jdp.networks import NetworkConfig
from jdp.runs.pretrained import find, names, save_pretrained
from jdp.runs.stores import read_weights
from jdp.types import named_keys

sys.path.append(str(Path(__file__).parents[1] / "loops"))
sys.path.append(str(Path(__file__).parent))
from hand_made import bits
from test_load import AGENT, POLICY, begun, trained
from test_train import DATA, KEY


def acts(run, state):
    seen, goal = np.linspace(-1, 1, 6, dtype=np.float32).reshape(3, 2), np.zeros((3, 0), np.float32)
    return run.method.policy.act(KEY, state, run.method.policy.init(seen), seen, goal)[1].action


@pytest.mark.parametrize(
    ("kind", "name", "settings"), [("agent", "td3_bc", AGENT), ("policy", "idql", POLICY)]
)
def test_a_seed_acts_from_its_file_as_from_its_run(tmp_path, kind, name, settings):
    run = jdp.load_run(trained(tmp_path, kind, name, settings)[0].path)
    card = save_pretrained(tmp_path / "model.jdp", run, seed=1)
    found = jdp.load_pretrained(tmp_path / "model.jdp")
    assert (found.kind, found.name, found.method) == (kind, name, run.method)
    assert card["training_seed"] == 1 and found.written["dataset"] == "toy"
    np.testing.assert_array_equal(acts(found, found.state()), acts(run, run.state(1)))
    assert np.any(np.asarray(acts(run, run.state(0))) != np.asarray(acts(run, run.state(1))))
    with pytest.raises(UserError, match="seeds 0 to 0, not 1"):
        found.state(1)
    # What is not in the file is of the right shapes, so that training could go on.
    assert jax.tree.map(np.shape, found.state()) == jax.tree.map(np.shape, run.state(1))
    whole = sum(np.size(leaf) for leaf in jax.tree.leaves(run.state(1)))
    assert card["numbers"] < 0.7 * whole  # no moments of Adam


def test_the_diffuser_of_a_run_without_its_agents(tmp_path):
    network, config = NetworkConfig("mixer", 8, 1), DiffuserConfig(steps=3, batch_size=8)
    settings = {"settings": None, "td3_bc": dataclasses.asdict(AGENT), "arms": ["dataset"]}
    model = {"network": dataclasses.asdict(network), "diffusion": dataclasses.asdict(config)}
    run, journal = begun(
        tmp_path, "agent", "td3_bc", AGENT, **settings, **model, horizon=4, precision="float32"
    )
    diffuser = train_diffuser(DATA, network, config, 4, key=KEY, journal=journal)
    method = jdp.registry.make("agent", AGENT, DATA.spec)
    rows = prepared(method.learner.draws, DATA)
    train_in_rounds(
        method, rows, phase="dataset", key=KEY, seeds=2, batch_size=8, journal=journal, updates=2, every=2
    )
    save_pretrained(tmp_path / "model.jdp", jdp.load_run(run.path), phases=["diffuser"])
    found = jdp.load_pretrained(tmp_path / "model.jdp")
    assert found.states == {} and found.diffuser is not None
    assert bits(found.diffuser.state.ema) == bits(diffuser.state.ema)
    assert bits(found.diffuser.normaliser) == bits(diffuser.normaliser)
    borrowed = jdp.runs.restore_diffuser(tmp_path / "model.jdp", DATA, network, config, 4)
    assert bits(borrowed.denoiser) == bits(diffuser.denoiser)
    with pytest.raises(UserError, match="trained no 'guided': choose of dataset, diffuser"):
        save_pretrained(tmp_path / "model.jdp", jdp.load_run(run.path), phases=["guided"])


def test_files_that_are_damaged_or_others(tmp_path):
    path = tmp_path / "model.jdp"
    save_pretrained(path, jdp.load_run(trained(tmp_path, "agent", "td3_bc", AGENT)[0].path))
    with zipfile.ZipFile(path) as box:
        card, weights = json.loads(box.read("card.json")), box.read("weights.npz")

    def refused(match, card, weights=weights):
        with zipfile.ZipFile(path, "w") as box:
            box.writestr("card.json", json.dumps(card))
            box.writestr("weights.npz", weights)
        with pytest.raises(UserError, match=match):
            jdp.load_pretrained(path)

    refused("another SHA-256", card, weights[:-1] + bytes([weights[-1] ^ 1]))
    refused("has the format 'x'", card | {"format": "x"})
    wider = json.loads(json.dumps(card))
    wider["run"]["config"]["settings"]["hidden"] = [9]
    refused("weights of another network", wider)
    path.write_bytes(b"no zip")
    with pytest.raises(UserError, match="no file of weights"):
        jdp.load_pretrained(path)
    with pytest.raises(UserError, match=r"no trained model hoper: give the path of a file, or one of .*"):
        jdp.load_pretrained("hoper")


def test_every_model_that_ships_is_small():
    sizes = [(Path(jdp.__file__).parent / "pretrained" / f"{name}.jdp").stat().st_size for name in names()]
    assert max(sizes) < 4e6 and sum(sizes) < 25e6


@pytest.mark.parametrize("name", names())
def test_a_model_that_ships_says_where_it_comes_from(name):
    run = jdp.load_pretrained(name)
    assert run.scores is not None and len(run.written["sha256"]) == 64 and run.written["commit"]
    assert run.written["command"].startswith("python experiments/") and "--out" not in run.written["command"]
    origins = ("(bundled, d4rl-style)", "(regenerated by D4RL's recipe, seed 0)")
    assert run.written["dataset"].endswith(origins)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [name for name in names() if not name.endswith("-diffuser") or "maze" in name]
)
def test_a_model_that_ships_scores_what_its_card_says(name):
    run, episodes = jdp.load_pretrained(name), 20
    (states,) = run.states.values()
    (record,) = play_in_turn(
        run.method.policy,
        states,
        evaluation.environment_maker(run.spec),
        keys=named_keys(KEY, "play", "latency"),
        seeds=1,
        episodes=episodes,
        decisions=1,
    )
    scores = evaluation.scores_of(record["returns"], run.spec)
    assert run.scores is not None
    own = run.scores["returns"][read_weights(find(name))[0]["training_seed"]]
    told = evaluation.scores_of(own, run.spec)
    error = np.sqrt(scores.var() / episodes + told.var() / len(told))
    assert abs(scores.mean() - told.mean()) < 4 * error + 1, (scores.mean(), told.mean())
