"""A D4RL-style family of datasets from nothing: an agent is trained, and its policies are rolled out.

    python experiments/collect_locomotion.py --env Hopper-v5
    python experiments/collect_locomotion.py --env HalfCheetah-v5 --rows 200000 --seed 1

SAC learns in Gymnasium's task, and is kept and scored after every --evaluation.every updates. From that come
`random`, `medium-replay` (the replay buffer up to the medium policy), `medium` (a policy at a third of the
best one's return), `expert` (the best one) and `medium-expert` (both), by D4RL's rules: HDF5 files with their
cards in results/collect_locomotion/<task>/<run>/datasets/, for `--env FILE` of the other scripts, and Minari
datasets. A run that was cut goes on with --resume, and what is written stays. Presets: smoke (a minute, for
the plumbing), cpu (150,000 updates), paper (1,000,000).
"""

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Generic, TypeVar

import jax
import numpy as np
from collect_pointmaze import check_minari
from command_line import run_main
from methods import Options, method_command
from offline_rl import CurveConfig
from online_rl import OnlineConfig, check_online, open_online, player
from opening import finish, heading, minutes, save_figure
from options import check_positive

import jdp
from jdp import devices, evaluation, loops, plotting, registry
from jdp.data import load
from jdp.data.family import QUALITIES, Chosen, Snapshot, check_task, choose, facts_of, joined, made_by
from jdp.learning.acting import OffPolicyConfig
from jdp.loops.off_policy import Buffer, in_order, keeping_all, random_policy
from jdp.loops.on_policy import explores
from jdp.loops.roll_out import roll_out
from jdp.registry import Entry
from jdp.runs import Job
from jdp.runs.datasets import dataset_path, write_dataset, written_card
from jdp.runs.pretrained import load_pretrained
from jdp.runs.snapshots import save_snapshot, snapshot_path
from jdp.types import Json, Logged, Method, Policy, PyTree, Spec, Transition, unpack

T = TypeVar("T")
Rows = tuple[Transition, np.ndarray | None]  # and where episodes end in no terminal; None: where rows say so


@dataclass(frozen=True, kw_only=True)
class Config(OnlineConfig, Generic[T]):
    """Train an agent, and write the family of datasets that its policies make."""

    agent: str = "sac"
    """The algorithm; one with a buffer."""
    env: str = "Hopper-v5"
    """Hopper-v5, HalfCheetah-v5 or Walker2d-v5."""
    rows: int = 1_000_000
    """Of random, medium and expert each; medium-expert has twice as many, medium-replay what was seen so
    far."""
    minari: str = "auto"
    """What ids of Minari datasets begin with, jdp/hopper of jdp/hopper/medium-v0; auto: jdp/hopper-<run>;
    none: without them."""
    evaluation: CurveConfig = field(default_factory=CurveConfig)
    settings: T
    """Of the agent."""


AnyJob = Job[Config[Any]]
PRESETS: dict[str, Options] = {
    "smoke": {"updates": 1_000, "rows": 2_000, "evaluation": CurveConfig(episodes=2, every=200)},
    "cpu": {"updates": 150_000, "evaluation": CurveConfig(episodes=10, every=5_000)},
    "paper": {"updates": 1_000_000, "evaluation": CurveConfig(episodes=10, every=20_000)},
}


def main() -> None:
    presets = {name: {**options, "seeds": 1} for name, options in PRESETS.items()}
    entry, config = method_command("online", "sac", Config, __doc__ or "", lambda *_: presets, "agent")
    compilations, spec = devices.count_compilations(), check(config, entry)
    acting = keeping_all(config.settings.acting, config.updates)
    method, notes = jdp.online.make(config.settings, spec), f"agent {entry.name}, {acting.capacity:,} steps"
    job = open_online("collect_locomotion", config, spec, notes, None, "random", "medium", "expert")
    agent = partial(made_by, agent=entry.title, seed=config.seed)

    anything = partial(rolled, job, "random", random_policy(spec.action_dim), None)
    cards = {"random": dataset(job, "random", agent("random"), anything)}
    states, buffer = trained(job, method, acting)
    job.journal.save("agent", config.updates, states)  # what load_run finds
    chosen = choose(evaluated(job), cards["random"]["returns"]["mean"])
    medium, expert = (acting.warm_up + acting.environments * one.update for one in chosen)
    each: dict[str, Callable[[], Rows]] = {
        "medium-replay": lambda: replayed(spec, in_order(buffer, acting.environments, medium)),
        "medium": lambda: played(job, "medium", method, chosen.medium.update),
        "expert": lambda: played(job, "expert", method, chosen.expert.update),
        "medium-expert": lambda: joined(*(load(dataset_file(job, one)) for one in ("medium", "expert"))),
    }
    for quality, make in each.items():
        cards[quality] = dataset(job, quality, agent(quality, medium=medium, expert=expert), make)
    closing(job, entry.name, chosen, cards, compilations)


def check(config: Config[Any], entry: Entry) -> Spec:
    """The task; raises `UserError` for a command line that cannot work."""
    check_task(config.env)
    if not isinstance(config.settings.acting, OffPolicyConfig):
        raise jdp.UserError(f"--agent {config.agent} keeps no replay buffer, which medium-replay is made of")
    if registry.takes(entry, "task"):
        raise jdp.UserError(
            f"--agent {config.agent} plans in a simulator in JAX; choose an agent that does not"
        )
    if config.settings.acting.offline_share:
        raise jdp.UserError("--settings.acting.offline-share: there is no dataset yet; leave it out")
    if config.seeds != 1:
        raise jdp.UserError(f"--seeds {config.seeds}: a family is of one agent; give its --seed")
    if config.simulator == "jax":
        raise jdp.UserError("--simulator jax: families are collected in Gymnasium's tasks; leave it out")
    check_positive({"--rows": config.rows})
    if config.minari not in ("auto", "none") and config.resume is None:
        for quality in QUALITIES:
            check_minari(f"{config.minari}/{quality}-v0")
    spec = evaluation.task_spec(config.env)
    check_online(config, spec)
    return spec


def trained(job: AnyJob, method: Method, acting: OffPolicyConfig) -> tuple[PyTree, Buffer]:
    """The last states `[1, ...]`, and all that was seen; snapshots are kept and scored on the way."""
    config, found, play = job.config, [], player(job, explores(method), None)  # as it is rolled out

    def evaluate(step: int, states: PyTree) -> Logged:
        save_snapshot(job.run, step, states)
        record = play(states)
        print(f"return after {step:,} updates: {np.mean(record['returns']):.1f}")
        return record

    states = loops.train_online_host(
        method,
        evaluation.environment_maker(job.data.spec),
        job.data.spec,
        acting,
        key=job.keys["agents"],
        updates=config.updates,
        seeds=1,
        seed=config.seed,
        journal=job.journal,
        evaluate=evaluate,
        evaluate_every=config.evaluation.every,
        finish=lambda run: found.append(run.buffer),
    )
    return states, jax.tree.map(lambda x: x[0], found[0])


def evaluated(job: AnyJob) -> list[Snapshot]:
    """The snapshots of the run, with their mean returns."""
    records = job.journal.records("online/evaluation")
    return [Snapshot(r["step"], float(np.mean(r["returns"]))) for r in records]


def dataset(job: AnyJob, quality: str, told: str, make: Callable[[], Rows]) -> Json:
    """The card of a set, which is made where it is not there yet."""
    facts = facts_of(quality, job.data.spec, told)
    if (card := written_card(job.run, facts["dataset"])) is None:
        began, minari = time.monotonic(), job.config.minari
        if minari == "auto":
            minari = f"jdp/{facts['dataset'].partition('-')[0]}-{job.run.path.name}"
        at = None if minari == "none" else f"{minari}/{quality}-v0"
        card = write_dataset(job.run, facts["dataset"], *make(), spec=job.data.spec, facts=facts, minari=at)
        job.journal.log("datasets", QUALITIES.index(quality), {"seconds": time.monotonic() - began})
    print(
        f"{card['origin']['name']}: {card['transitions']:,} rows, mean return {card['returns']['mean']:.1f}"
    )
    return card


def dataset_file(job: AnyJob, quality: str) -> str:
    """The HDF5 file of a set of this family."""
    return str(dataset_path(job.run, facts_of(quality, job.data.spec, "")["dataset"]))


def rolled(job: AnyJob, quality: str, policy: Policy, state: PyTree) -> Rows:
    """What `policy` does in --rows steps."""
    rows, make = job.config.rows, evaluation.environment_maker(job.data.spec)
    with job.journal.progress(quality, rows, "row") as bar:
        key = job.keys[quality]
        return roll_out(policy, make, job.data.spec, state, key=key, rows=rows, progress=bar.at)


def played(job: AnyJob, quality: str, method: Method, update: int) -> Rows:
    """What the snapshot after `update` updates does."""
    state = load_pretrained(snapshot_path(job.run, update)).state()
    return rolled(job, quality, explores(method), state)


def replayed(spec: Spec, packed: np.ndarray) -> Rows:
    """Rows of the buffer; an episode ends where the next row is of another."""
    return unpack(packed, spec.observation_dim, spec.action_dim), None  # type: ignore[arg-type]


def closing(
    job: AnyJob, name: str, chosen: Chosen, cards: Mapping[str, Json], compilations: devices.Compilations
) -> None:
    """`scores.json`, `report.txt` and the learning curve."""
    config, spec = job.config, job.data.spec
    records = job.journal.records("online/evaluation")
    score = evaluation.last_scores(records, spec, config.updates)
    lines = [heading(job, name), "", f"{'set':<15}{'rows':>10}{'episodes':>10}{'return':>10}{'score':>8}"]
    for quality, card in cards.items():
        scored = "" if card["normalised"] is None else f"{card['normalised']['mean']:.1f}"
        numbers = f"{card['transitions']:>10,}{card['episodes']:>10,}{card['returns']['mean']:>10.1f}"
        lines.append(f"{quality:<15}{numbers}{scored:>8}")
    lines += [
        f"{level}: the policy after {one.update:,} updates, return {one.mean_return:.1f}"
        for level, one in chosen._asdict().items()
    ]
    curve = evaluation.learning_curve(records, spec)
    drawn = plotting.curves(
        None, {name: curve}, behaviour=None, title=config.env, score=evaluation.score_name(spec)
    )
    save_figure(job, "learning_curve", drawn)
    spent = minutes(job, "online", "online/evaluation", "datasets")
    lines.append(f"{sum(spent.values()):.1f} minutes in all, on {len(os.sched_getaffinity(0))} cores")
    scores = {"method": name, "score_name": evaluation.score_name(spec), **score}
    scores["datasets"] = {
        q: {"rows": c["transitions"], "return": c["returns"]["mean"]} for q, c in cards.items()
    }
    finish(job, lines, scores, spent, compilations)


if __name__ == "__main__":
    run_main(main, spans_processes=True)
