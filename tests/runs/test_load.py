"""What a run has trained comes back: any kind of method, a plugin's too, and settings of another version."""

import dataclasses
import json
import sys
import textwrap
from pathlib import Path

import jax
import numpy as np
import pytest

import jdp
from jdp import registry
from jdp.agents.td3_bc import TD3BCConfig
from jdp.data import prepared
from jdp.errors import UserError
from jdp.learning.diffuser import DiffuserConfig
from jdp.loops import train, train_diffuser, train_in_rounds, train_world_model
from jdp.networks import NetworkConfig
from jdp.policies.idql import IDQLConfig
from jdp.runs import RunJournal, restore_diffuser, start_run
from jdp.runs.settings import from_dict
from jdp.world_models.diffusion_step import DiffusionStepConfig
from jdp.world_models.ensemble import EnsembleConfig

sys.path.append(str(Path(__file__).parents[1] / "loops"))
from hand_made import bits
from test_train import DATA, KEY

AGENT = TD3BCConfig(hidden=(8,))
POLICY = IDQLConfig(features=8, blocks=1, critic_hidden=(8,), candidates=2)


def begun(out, kind, name, settings, /, **config):
    """A run directory, as a script begins it."""
    config = {kind: name, "settings": dataclasses.asdict(settings), "seeds": 2, "env": "toy"} | config
    facts = {"spec": dataclasses.asdict(DATA.spec), "dataset": "toy"}
    run = start_run(out, "toys", "toy", config, facts)
    return run, RunJournal(run)


def trained(out, kind, name, settings, **config):
    """`(run, states)` of a method whose weights were saved."""
    run, journal = begun(out, kind, name, settings, **config)
    method = registry.make(kind, settings, DATA.spec)
    options = {"key": KEY, "seeds": 2, "batch_size": 8, "journal": journal, "phase": kind}
    rows = prepared(method.learner.draws, DATA)
    if kind == "agent":
        return run, train_in_rounds(method, rows, updates=4, every=2, **options)
    return run, train(method.learner, rows, updates=4, **options)


@pytest.mark.parametrize(
    ("kind", "name", "settings"), [("agent", "td3_bc", AGENT), ("policy", "idql", POLICY)]
)
def test_a_method_acts_again_as_it_was_trained(tmp_path, kind, name, settings):
    run, states = trained(tmp_path, kind, name, settings)
    found = jdp.load_run(run.path)
    assert (found.kind, found.name, found.ignored) == (kind, name, ())
    assert found.method == registry.make(kind, settings, DATA.spec) and found.spec == DATA.spec
    assert found.settings == settings  # a method with a guide, say, is made of them
    assert list(found.states) == [kind] and bits(found.states[kind]) == bits(states)
    assert bits(found.state(1)) == bits(jax.tree.map(lambda x: x[1], states))
    assert found.diffuser is found.world_model is found.scores is None
    seen, goal = np.zeros((3, 2), np.float32), np.zeros((3, 0), np.float32)
    policy = found.method.policy
    actions = [
        policy.act(KEY, state, policy.init(seen), seen, goal)[1].action
        for state in (found.state(1), jax.tree.map(lambda x: x[1], states))
    ]
    np.testing.assert_array_equal(*actions)
    with pytest.raises(UserError, match="seeds 0 to 1, not 2"):
        found.state(2)


def test_the_arms_of_a_run_and_its_diffuser(tmp_path):
    network, config = NetworkConfig("mixer", 8, 1), DiffuserConfig(steps=3, batch_size=8)
    settings = {"settings": None, "td3_bc": dataclasses.asdict(AGENT), "arms": ["dataset", "guided"]}
    model = {"network": dataclasses.asdict(network), "diffusion": dataclasses.asdict(config)}
    run, journal = begun(
        tmp_path, "agent", "td3_bc", AGENT, **settings, **model, horizon=4, precision="float32"
    )
    diffuser = train_diffuser(DATA, network, config, 4, key=KEY, journal=journal)
    method = registry.make("agent", AGENT, DATA.spec)
    rows = prepared(method.learner.draws, DATA)
    options = {"key": KEY, "seeds": 2, "batch_size": 8, "journal": journal, "updates": 2, "every": 2}
    states = {arm: train_in_rounds(method, rows, phase=arm, **options) for arm in ("dataset", "guided")}
    found = jdp.load_run(run.path)
    assert {arm: bits(s) for arm, s in found.states.items()} == {arm: bits(s) for arm, s in states.items()}
    assert found.diffuser is not None and bits(found.diffuser.state) == bits(diffuser.state)
    assert bits(found.normaliser) == bits(diffuser.normaliser)
    with pytest.raises(UserError, match="choose one of dataset, guided"):
        found.state()
    # Another run on the same data borrows it, and no other data or network does.
    again = restore_diffuser(run.path, DATA, network, config, 4)
    assert bits(again.state) == bits(diffuser.state)
    with pytest.raises(UserError, match="other data"):
        other = dataclasses.replace(DATA, observations=DATA.observations + 1)
        restore_diffuser(run.path, other, network, config, 4)
    with pytest.raises(UserError, match="another network"):
        restore_diffuser(run.path, DATA, NetworkConfig("mixer", 16, 1), config, 4)


MODELS = {
    "ensemble": EnsembleConfig(2, 1, (8,), decay=(0.0,), batch_size=64, epochs=1, termination="never"),
    "diffusion_step": DiffusionStepConfig(features=8, blocks=1, steps=2, batch_size=8),
}


def test_models_of_several_seeds_come_back_by_name(tmp_path):
    """As `world_models.py` writes them, with the agents under whose policies they are compared."""
    network, config = NetworkConfig("mixer", 8, 1), DiffuserConfig(steps=2, batch_size=8)
    nested = {"td3_bc": AGENT, "network": network, "diffusion": config, **MODELS}
    settings = {name: dataclasses.asdict(value) for name, value in nested.items()}
    written = {"settings": None, "horizon": 4, "precision": "float32", **settings}
    run, journal = begun(tmp_path, "models", "compared", AGENT, **written)
    with pytest.raises(UserError, match="no checkpoint yet"):
        jdp.load_run(run.path)
    method = registry.make("agent", AGENT, DATA.spec)
    shared = {"key": KEY, "journal": journal}
    options = {"seeds": 2, "batch_size": 8, "phase": "target policies", "updates": 2, "every": 2}
    states = train_in_rounds(method, prepared(method.learner.draws, DATA), **options, **shared)
    made = {
        f"{name.replace('_', ' ')} {seed}": train_world_model(
            DATA, found, termination="never", phase=f"{name.replace('_', ' ')} {seed}", **shared
        )
        for name, found in MODELS.items()
        for seed in range(2)
    }
    diffuser = train_diffuser(DATA, network, config, 4, phase="diffuser 0", **shared)
    found = jdp.load_run(run.path)
    assert (found.kind, found.name, found.method) == ("agent", "td3_bc", method)
    assert bits(found.state(1)) == bits(jax.tree.map(lambda x: x[1], states))
    assert set(found.world_models) == set(made)
    for name, model in found.world_models.items():
        assert model.model == made[name].model and bits(model.state) == bits(made[name].state)
    assert found.diffuser is not None and list(found.diffusers) == ["diffuser 0"]
    assert bits(found.diffuser.state) == bits(diffuser.state)
    with pytest.raises(UserError, match=r"several world_models: .* diffusion step 0, .*ensemble 1"):
        _ = found.world_model


def test_settings_of_another_version_are_left_out_by_name(tmp_path):
    run, states = trained(tmp_path, "agent", "td3_bc", AGENT)
    written = json.loads((run.path / "config.json").read_text())
    written["config"]["settings"] |= {"momentum": 0.5}
    del written["config"]["settings"]["tau"]
    (run.path / "config.json").write_text(json.dumps(written))
    found = jdp.load_run(run.path)
    assert found.ignored == ("momentum",) and bits(found.states["agent"]) == bits(states)


PLUGIN = """
    from dataclasses import dataclass
    from jdp.agents.bc import BCConfig, bc
    from jdp.registry import register

    @dataclass(frozen=True)
    class MineConfig(BCConfig):
        "Mine."

    @register("agent", "mine", MineConfig)
    def mine(config, spec):
        return bc(BCConfig(hidden=config.hidden), spec)
"""


def test_the_plugin_that_a_run_was_made_with_is_imported_again(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(textwrap.dedent(PLUGIN))
    registry.load_plugin(str(file))
    config = registry.entry("agent", "mine").config(hidden=(8,))
    run, states = trained(tmp_path, "agent", "mine", config, plugin=str(file))
    registry._entries.pop(("agent", "mine"))
    found = jdp.load_run(run.path)
    assert found.name == "mine" and bits(found.states["agent"]) == bits(states)
    registry._entries.pop(("agent", "mine"))
    file.unlink()
    with pytest.raises(UserError, match="no such file"):
        jdp.load_run(run.path)


def test_what_is_no_run_gets_one_line(tmp_path):
    with pytest.raises(UserError, match="it has no config"):
        jdp.load_run(tmp_path)
    run, _ = begun(tmp_path, "agent", "td3_bc", AGENT)
    with pytest.raises(UserError, match="no checkpoint yet") as error:
        jdp.load_run(run.path)
    assert "\n" not in str(error.value)
    other, _ = begun(tmp_path, "world", "ensemble", AGENT)
    with pytest.raises(UserError, match="no run of one method"):
        jdp.load_run(other.path)
    unknown, _ = begun(tmp_path, "agent", "td3_cb", AGENT)
    with pytest.raises(UserError, match="did you mean td3_bc"):
        jdp.load_run(unknown.path)


@dataclasses.dataclass(frozen=True)
class Inner:
    widths: tuple[tuple[int, ...], ...] = ((1,),)


@dataclasses.dataclass(frozen=True)
class Outer:
    inner: Inner
    maybe: Inner | None = None


def test_nested_settings_come_back_as_they_were():
    value = Outer(Inner(((1, 2), (3,))), Inner(()))
    written = json.loads(json.dumps(dataclasses.asdict(value)))
    assert from_dict(Outer, written) == value
    ignored = []
    written["inner"]["depth"] = written["colour"] = 1
    assert from_dict(Outer, written, ignored) == value and ignored == ["inner.depth", "colour"]
    with pytest.raises(UserError, match="no settings of Outer"):
        from_dict(Outer, {})
