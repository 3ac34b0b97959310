"""Presets of alignment: seconds, the settings that reach the toy's marks, and the papers' sizes."""

from collections.abc import Mapping
from dataclasses import replace
from typing import TypeVar

from jdp.alignment.chain import ChainConfig
from jdp.alignment.learner import AlignConfig
from jdp.registry import Preset, Presets, Task

C = TypeVar("C", bound=AlignConfig)
TOY = "toy"  # the task that is none


def presets_of(
    toy: C, updates: int, batch_size: int = 32, *, run: C | None = None, paper: C | None = None
) -> Presets:
    """Presets of a method.

    Args:
        toy: the settings that reach the marks of the mixture, in `updates` updates of `batch_size` conditions
            (pairs, experts); of smoke runs too.
        run: those of trained policies and planners; None: a thirtieth of the toy's learning rate, as the
            networks have learned already; for rewards within [-1, 0] a twentieth of its `kl_weight`, and a
            two-hundredth where that counts the nats of whole chains, of which a plan of a hundred entries
            spends several on what no reward asks for.
        paper: those of the paper where they are known; None: `run`, ten times as long.
    """
    held = 200 if isinstance(toy, ChainConfig) else 20
    usual = replace(toy, learning_rate=toy.learning_rate / 30, kl_weight=toy.kl_weight / held)
    run = usual if run is None else run

    def presets(task: Task) -> Mapping[str, Preset]:
        on_toy = task.dataset == TOY
        cpu = toy if on_toy else run
        few = replace(cpu, group=min(cpu.group, 4), watched=0)  # which costs thousands of samples
        long = updates if on_toy else max(updates // 4, 1)
        most = cpu if paper is None else paper
        return {
            "smoke": Preset(few, 4, 4, seeds=1, episodes=2),
            "cpu": Preset(cpu, long, batch_size if on_toy else max(batch_size // 2, 4), seeds=1, episodes=20),
            "paper": Preset(most, 10 * long, batch_size, seeds=5, episodes=100),
        }

    return presets
