"""Diffusion policies: one policy trained on a dataset, then played in closed loop.

    python experiments/policies.py --policy idql --env hopper-medium
    python experiments/policies.py --policy beso --env pointmaze-large

The policy's own settings are --settings.*, which --policy X --help lists. Everything goes to
results/policies/<dataset>/<run>/: scores of the last checkpoint of every seed, the time of a decision, and in
mazes pictures. A run that was cut goes on with --resume; experiments/table.py makes tables of all runs.
Presets: smoke (a minute, for the plumbing), cpu (minutes on two cores), paper (the papers' sizes, for an
accelerator); any flag beats the preset.
"""

from dataclasses import dataclass
from typing import TypeVar

from closed_loop import PlayedConfig, closing, evaluate_guided, open_method, presets
from command_line import run_main
from methods import method_command

import jdp
from jdp import devices, loops

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Config(PlayedConfig[T]):
    """Train a diffusion policy and play it in closed loop."""

    policy: str = "idql"
    """The algorithm."""


def main() -> None:
    entry, config = method_command("policy", "idql", Config, __doc__ or "", presets)
    compilations = devices.count_compilations()
    job, method = open_method("policies", "policy", entry, config)
    states = loops.train(
        method.learner,
        jdp.data.prepared(method.learner.draws, job.data, files=job.files),
        key=job.keys["train"],
        updates=job.config.updates,
        batch_size=job.config.batch_size,
        seeds=job.config.seeds,
        mesh=job.mesh,
        stream=job.config.stream,
        journal=job.journal,
        phase="policy",
    )
    found = evaluate_guided(job, entry.name, method, states)
    closing(job, entry, found, ("policy",), compilations)


if __name__ == "__main__":
    run_main(main, spans_processes=True)
