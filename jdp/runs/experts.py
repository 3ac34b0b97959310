"""Experts that were trained in processes of their own, put together (arXiv 2501.05450).

Each is a run of `experiments/experts.py --expert K/N`: a diffuser of one cluster of a dataset. Nothing went
from one to another; that they belong together is seen here, by what their runs say of themselves.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from jdp.data import Normaliser
from jdp.data.draws import WindowDraw
from jdp.diffusion.experts import Router, routed
from jdp.errors import UserError
from jdp.learning.clusters import LabelledDraw
from jdp.learning.diffuser import TrainedDiffuser
from jdp.learning.experts import RouterConfig, router_learner, routes
from jdp.runs import models
from jdp.runs.load import read_config
from jdp.runs.settings import from_dict
from jdp.runs.stores import checkpoints_of
from jdp.types import Json, Spec

COMMON = ("dataset", "sha256")  # of a run
SHARED = ("horizon", "clusters_seed")  # of its settings


class Experts(NamedTuple):
    """All experts of a dataset, in the order of their clusters."""

    diffusers: tuple[TrainedDiffuser, ...]
    runs: tuple[Json, ...]  # the config.json of each

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self.diffusers)

    @property
    def normaliser(self) -> Normaliser:
        """Of the trajectories of all: that of the whole dataset."""
        return self.diffusers[0].normaliser

    @property
    def spec(self) -> Spec:
        """The task of their data."""
        return from_dict(Spec, self.runs[0]["spec"])

    def draw(self) -> LabelledDraw:
        """What their router learns from: windows with the numbers of their clusters."""
        own = self.runs[0]["config"]
        return LabelledDraw(WindowDraw(own["horizon"]), self.count, own["clusters_seed"])

    def denoiser(self, router: Router, top_k: int | None = None) -> Partial:
        """The denoiser of normalised trajectories of all data, `jdp.diffusion.experts.routed`."""
        return routed([diffuser.denoiser for diffuser in self.diffusers], router, top_k)


def part_of_run(text: str) -> tuple[int, int]:
    """`(K, N)` of "K/N", an expert's number, from 0, and how many there are.

    Raises:
        UserError: if it is no such text.
    """
    part, _, count = text.partition("/")
    if not (part.isdigit() and count.isdigit() and int(part) < int(count)):
        raise UserError(f"--expert {text}: give the number of a cluster and how many there are, 0/4 to 3/4")
    return int(part), int(count)


def load_experts(paths: Sequence[str | Path]) -> Experts:
    """The experts of the run directories `paths`, in any order.

    Raises:
        UserError: unless they are all experts of one dataset with one horizon, each cluster's once.
    """
    found: dict[int, tuple[TrainedDiffuser, Json, Path]] = {}
    for path in map(Path, paths):
        written = read_config(path)
        if not written["config"].get("expert"):
            raise UserError(f"{path} is no expert: make it with experiments/experts.py --expert K/N")
        part, count = part_of_run(written["config"]["expert"])
        trained = models.diffusers(checkpoints_of(path), written, from_dict(Spec, written["spec"]))
        if "diffuser" not in trained:
            raise UserError(f"{path} holds no checkpoint yet: let it run on with --resume")
        if part in found:
            raise UserError(f"{path} and {found[part][2]} are both the expert {part}/{count}: leave one out")
        found[part] = (trained["diffuser"], written, path)
        _check_alike(found)
    count = part_of_run(next(iter(found.values()))[1]["config"]["expert"])[1] if found else 0
    if missing := sorted(set(range(count)) - set(found)):
        raise UserError(f"of {count} experts there are {len(found)}: train --expert {missing[0]}/{count} too")
    if count < 2:
        raise UserError("experts are joined from two on: give their run directories")
    ordered = [found[part] for part in range(count)]
    return Experts(tuple(d for d, _, _ in ordered), tuple(w for _, w, _ in ordered))


def _check_alike(found: dict[int, tuple[TrainedDiffuser, Json, Path]]) -> None:
    """Raises `UserError` where the newest of `found` does not belong to the first."""
    (_, first, at), *_ = found.values()
    *_, (_, last, path) = found.values()

    def told(written: Json) -> Json:
        config = written["config"]
        count = part_of_run(config["expert"])[1]
        return {k: written[k] for k in COMMON} | {k: config[k] for k in SHARED} | {"experts": count}

    for name, value in told(last).items():
        if value != told(first)[name]:
            raise UserError(
                f"{path} has {name} {value}, and {at} {told(first)[name]}: they do not go together"
            )


class Joined(NamedTuple):
    """Experts with the router that was trained for them."""

    experts: Experts
    router: Router

    def denoiser(self, top_k: int | None = None) -> Partial:
        """Of normalised trajectories `[B, T, D]` of all data."""
        return self.experts.denoiser(self.router, top_k)


def load_joined(path: str | Path) -> Joined:
    """What a run of `experiments/experts.py --join` made: the experts, of the runs it names, and its router.

    Raises:
        UserError: if it is no such run, and as `load_experts`.
    """
    written = read_config(Path(path))
    if not (paths := written.get("experts")):
        raise UserError(f"{path} joins no experts: make it with experiments/experts.py --join RUNS")
    experts = load_experts(paths)
    config = from_dict(RouterConfig, written["config"]["router"])
    channels = len(experts.normaliser.mean)
    learner = router_learner(experts.draw(), experts.count, config)
    view = jax.eval_shape(lambda: (jnp.zeros((1, written["config"]["horizon"], channels)), jnp.zeros(1, int)))
    like = models.state_like(learner, experts.spec, begun=view)
    return Joined(experts, routes(checkpoints_of(Path(path)).restore("router", like), experts.count, config))
