"""Budgets that the diffusion world models share."""

from collections.abc import Mapping
from typing import Any

from jdp.registry import Preset


def presets_of(config: Any) -> Mapping[str, Preset]:
    """The presets of a model of single steps with the type `config`: a minute, and its defaults."""
    found = {"smoke": config(features=32, blocks=1, steps=300), "cpu": config(), "paper": config()}
    return {name: Preset(made, made.steps, made.batch_size) for name, made in found.items()}
