"""A trained policy, planner or agent as one file that acts without jdp.

    python experiments/export.py results/policies/hopper-medium/<run>
    python experiments/export.py results/plan/pointmaze-large/<run> --seed 1 --to maze.jaxexport
    python experiments/export.py results/policies/hopper-medium/<run> --warm.levels 3
    python experiments/export.py results/plan/pointmaze-large/<run> --weights

RUN is a finished run of plan.py, policies.py, offline_rl.py or pgd_d4rl.py (of which --arm names the agent).
The file holds the weights of its last checkpoint, normalisers and all, as `jax.export` functions for cpu,
cuda and tpu, and a card with shapes, dataset, command and commit; experiments/act_exported.py plays with it.
With --weights it holds the weights alone, for jdp.load_pretrained("model.jdp").
"""

import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro
from command_line import parse, run_main
from playing import PlayingOptions

import jdp
from jdp.runs.export import export_policy
from jdp.runs.export_card import card_facts
from jdp.runs.load import LoadedRun
from jdp.runs.pretrained import save_pretrained


@dataclass(frozen=True)
class Config(PlayingOptions):
    """Export a run."""

    run: Annotated[Path, tyro.conf.Positional]
    """The run directory."""
    seed: int = 0
    """Which of the run's training seeds."""
    arm: str | None = None
    """Which of the agents of a run of pgd_d4rl.py: dataset, unguided, guided or world_model; with --weights
    also one of its models, as diffuser."""
    weights: bool = False
    """Write weights for jdp.load_pretrained, without code."""
    to: Path | None = None
    """The file to write: policy.jaxexport, or model.jdp with --weights, if not given."""
    platforms: tuple[Literal["cpu", "cuda", "rocm", "tpu"], ...] = ("cpu", "cuda", "tpu")
    """What the file can run on; none of them need be here."""
    batch: int | None = None
    """How many environments it acts in at once; none: any number."""


def main() -> None:
    config = parse(Config, None, __doc__ or "")
    run = jdp.load_run(config.run)
    if config.weights:
        return write_weights(config, run)
    to, state = config.to or Path("policy.jaxexport"), run.state(config.seed, config.arm)
    policy = config.played(run.method.policy, run.spec)
    facts = card_facts(run, config.seed, config.arm) | {"exported_by": shlex.join(["python", *sys.argv])}
    if config.told():  # so it was not scored
        facts |= {"method": run.name + config.told(), "score": None}
    card = export_policy(
        to,
        policy,
        state,
        run.spec,
        platforms=config.platforms,
        batch=config.batch,
        facts=facts,
    )
    size = to.stat().st_size / 1e6
    print(f"policy     {card['method']}, seed {card['seed']}, of {config.run}")
    print(f"task       {card['task']}; dataset {card['dataset']}")
    print(f"act        {card['functions']['act']}; environments at once: {card['batch']}")
    print(f"for        {', '.join(card['platforms'])}")
    print(f"written to {to} ({size:.1f} MB); try: python experiments/act_exported.py {to}")


def write_weights(config: Config, run: LoadedRun) -> None:
    if config.told():
        raise jdp.UserError("--weights are those of the run, however it is played: leave out how")
    run.finished_scores()  # fails while it is unfinished
    to = config.to or Path("model.jdp")
    card = save_pretrained(to, run, seed=config.seed, phases=None if config.arm is None else [config.arm])
    size = to.stat().st_size / 1e6
    print(f"weights    {', '.join(card['phases'])}, seed {config.seed}, of {config.run}")
    print(f"SHA-256    {card['sha256']}")
    print(f'written to {to} ({size:.1f} MB); try: jdp.load_pretrained("{to}")')


if __name__ == "__main__":
    run_main(main)
