"""What the registry knows of every method."""

import dataclasses

import pytest

import jdp
from jdp import registry
from jdp.types import Spec

UPDATES = 123
CASES = [(kind, name) for kind in ("planner", "policy") for name in registry.entries(kind)]


@pytest.fixture(scope="module")
def hopper():
    return jdp.data.load("hopper-medium", source="bundled")


def rates(settings, name=""):
    """The `steps` beside every learning rate, of nested settings too."""
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        if field.name == "steps" and hasattr(settings, "learning_rate"):
            yield f"{name}steps", value
        elif dataclasses.is_dataclass(value):
            yield from rates(value, f"{name}{field.name}.")


@pytest.mark.parametrize(("kind", "name"), CASES)
def test_learning_rates_fall_over_the_updates_asked_for(kind, name, hopper):
    """Else a run of some thousand updates would train at nearly its peak to the end."""
    entry = registry.entry(kind, name)
    for preset in entry.presets(registry.task_of("hopper-medium")).values():
        before, settings = dict(rates(preset.settings)), preset.settings
        if not before:
            continue
        wanted = settings.steps(UPDATES)[1] if name == "adapt_diffuser" else UPDATES
        after = dict(rates(entry.options["fit"](settings, hopper, UPDATES)))
        assert after == dict.fromkeys(before, wanted)


def test_every_method_says_what_it_is():
    for kind in ("agent", "policy", "planner", "world_model"):
        for name, entry in registry.entries(kind).items():
            assert entry.title and entry.idea, (kind, name)
            presets = entry.presets(registry.task_of("hopper-medium")) if entry.presets else {}
            assert set(presets) >= {"smoke", "cpu", "paper"} or kind == "world_model", (kind, name)


def test_two_functions_of_one_name_are_refused():
    with pytest.raises(jdp.UserError, match="registered twice"):
        registry.register("planner", "diffuser", int)(test_every_method_says_what_it_is)
    with pytest.raises(jdp.UserError, match="did you mean diffuser"):
        registry.entry("planner", "difuser")


@pytest.mark.parametrize("maze", ["medium", "large", "giant"])
def test_plans_of_stitch_sets_fit_into_their_episodes(maze):
    """Of 201 rows, whatever the maze, else no segment could be drawn; the way through it stays what it is."""
    spec, task = Spec(2, 2, goal=(0, 1)), registry.task_of(f"pointmaze-{maze}-stitch-v0")
    for name, entry in registry.entries("planner").items():
        for preset in entry.presets(task).values():
            assert registry.make("planner", preset.settings, spec).learner.draws.offsets[-1] <= 200, name
    whole = registry.task_of(f"pointmaze-{maze}-navigate-v0")
    assert task.way == whole.way == whole.horizon > task.horizon
