"""Experts trained apart beside one network, and exact likelihood of trajectories by a cascade: prints JSON.

    python benchmarks/experts.py [--only experts cascade] [--seeds 3] [--steps 600]

experts: windows of hopper-medium (bundled) in K clusters. An expert for each, alone, on 1/K of the batch, and
one network on all of it: equal operations in training, and for the best expert alone in sampling. Held-out
denoising loss at equal noise, of episodes that nothing learned from.

cascade: a cascade over scales of time learns the same windows. Bits per dimension of held-out ones, and how
well they tell (AUROC) held-out windows from: windows whose rows were shuffled; windows drawn by the diffuser
that comes with jdp; those of walks with the same one-step correlation (an autoregression of each channel).
"""

import argparse
import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from common import machine

import jdp
from jdp.data.draws import WindowDraw, WindowRows, batches
from jdp.diffusion import cascade, losses
from jdp.diffusion.experts import Router, routed
from jdp.diffusion.likelihood import bits_per_dimension, rising
from jdp.evaluation.out_of_distribution import atypical, auroc_interval
from jdp.evaluation.statistics import interval
from jdp.learning.cascades import SpreadDraw, cascade_diffuser
from jdp.learning.clusters import Labelled, LabelledDraw, clusters_of, part_of
from jdp.learning.diffuser import DiffuserConfig, trajectory_diffuser
from jdp.learning.experts import RouterConfig, router_learner, routes
from jdp.loops import fit
from jdp.networks import NetworkConfig
from jdp.synthesis import SamplerConfig
from jdp.synthesis.generate import generate
from jdp.types import Denoiser

NETWORK, LENGTH, COUNT, BATCH, LEVELS = NetworkConfig("mixer", 64, 2), 16, 4, 64, 2
HELD_OUT = 512  # windows
WINDOWS = 20_000  # of each training, drawn from those there are
DRAW = WindowDraw(LENGTH)


def split(seed: int) -> tuple[WindowRows, np.ndarray]:
    """Rows of training with where windows begin, and held-out windows `[N, T, D]` of other episodes."""
    data = jdp.data.load("hopper-medium", source="bundled")
    rows = DRAW.prepare(data)
    starts, last = np.asarray(rows.starts), np.asarray(rows.last)
    episodes = np.unique(last)
    rng = np.random.default_rng(seed)
    out = np.isin(last, rng.choice(episodes, size=max(len(episodes) // 5, 1), replace=False))
    chosen = rng.choice(np.flatnonzero(out), size=HELD_OUT, replace=False)
    at = np.minimum(starts[chosen][:, None] + np.arange(LENGTH), last[chosen][:, None])
    return part_of(rows, ~out), np.asarray(rows.rows)[at]


def resampled(rows: WindowRows, seed: int) -> tuple[WindowRows, np.ndarray]:
    """WINDOWS windows of those of `rows`, and which: so that all programs have one shape."""
    chosen = np.random.default_rng(seed).integers(len(rows.starts), size=WINDOWS)
    return rows._replace(starts=rows.starts[chosen], last=rows.last[chosen]), chosen


def diffusion(steps: int) -> DiffuserConfig:
    return DiffuserConfig(steps=steps, ema=0.99)


def train(rows: WindowRows, batch: int, steps: int, key: int) -> Denoiser:
    diffuser = trajectory_diffuser(NETWORK, diffusion(steps), LENGTH)
    state = jax.jit(diffuser.learner.init)(jax.random.key(key), DRAW.view(rows))
    chosen = batches(DRAW, batch)
    state = fit(
        diffuser.learner.update, chosen, state, rows, key=jax.random.key(key + 1), stop=steps, chunk=steps
    )
    return diffuser.denoiser(state)


def train_router(rows: WindowRows, cluster: np.ndarray, steps: int, key: int) -> Router:
    config = RouterConfig((64,), steps=steps, ema=0.99)
    learner = router_learner(LabelledDraw(DRAW, COUNT), COUNT, config)
    labelled, draw = Labelled(rows, cluster), LabelledDraw(DRAW, COUNT)
    state = jax.jit(learner.init)(jax.random.key(key), draw.view(labelled))
    state = fit(
        learner.update,
        batches(draw, BATCH),
        state,
        labelled,
        key=jax.random.key(key + 1),
        stop=steps,
        chunk=steps,
    )
    return routes(state, COUNT, config)


def held_out(denoiser: Denoiser, x0: jax.Array) -> jax.Array:
    """`[N]`, EDM's loss of each window at a level of its own, the same for all denoisers."""
    return of_denoiser(jax.random.key(7), denoiser, x0)


def experts(seed: int, steps: int) -> dict[str, float]:
    """Ratios of held-out losses to that of one network."""
    rows, windows = split(seed)
    cluster = clusters_of(rows, LENGTH, COUNT)
    own = [resampled(part_of(rows, cluster == k), k)[0] for k in range(COUNT)]
    members = [train(part, BATCH // COUNT, steps, 10 * k + 100 * seed) for k, part in enumerate(own)]
    every, chosen = resampled(rows, seed)
    monolith = train(every, BATCH, steps, 50 + 100 * seed)
    router = train_router(every, cluster[chosen], steps, 60 + 100 * seed)
    x0 = jnp.asarray(windows)
    joined = {
        "all experts": routed(members, router),
        "best two": routed(members, router, top_k=2),
        "best one": routed(members, router, top_k=1),
    }
    loss = {name: float(held_out(d, x0).mean()) for name, d in joined.items()}
    one = float(held_out(monolith, x0).mean())
    alone = float(np.mean([held_out(member, x0).mean() for member in members]))
    found = {"monolith": one, "smallest part": float(np.bincount(cluster).min() / len(cluster))}
    return found | {name: value / one for name, value in loss.items()} | {"an expert on all": alone / one}


def walks(rng: np.random.Generator, windows: np.ndarray) -> np.ndarray:
    """Windows of a first order autoregression in every channel, of its mean, spread and correlation."""
    mean, std = windows.mean((0, 1)), windows.std((0, 1)) + 1e-6
    z = (windows - mean) / std
    rho = np.clip((z[:, 1:] * z[:, :-1]).mean((0, 1)), -0.99, 0.99)
    x = [rng.normal(size=(len(windows), len(mean)))]
    for _ in range(LENGTH - 1):
        x.append(rho * x[-1] + np.sqrt(1 - rho**2) * rng.normal(size=x[0].shape))
    return (np.stack(x, 1) * std + mean).astype(np.float32)


def drawn(count: int) -> np.ndarray:
    """Windows of the diffuser that comes with jdp, which learned from all episodes."""
    run = jdp.load_pretrained("hopper-medium-diffuser")
    assert run.denoiser is not None and run.normaliser is not None
    length = run.config["horizon"]
    sampler = SamplerConfig(**run.config["sampler"])
    x = generate(
        jax.random.key(0),
        run.denoiser,
        sampler,
        count=count,
        length=length,
        channels=len(run.normaliser.mean),
    )[0]
    return np.asarray(x)[:, :LENGTH, :-1]


of_denoiser = jax.jit(losses.of_denoiser)
density = jax.jit(cascade.log_densities, static_argnames="probes")


def likelihood(steps: int, count: int = 128) -> dict[str, Any]:
    """Bits per dimension and AUROC of a cascade, seed 0."""
    rows, windows = split(0)
    rows, windows = rows._replace(rows=rows.rows[:, :-1]), windows[..., :-1]  # a flag has no density
    model = cascade_diffuser(NetworkConfig("mixer", 32, 2), diffusion(steps), LENGTH, LEVELS)
    state = jax.jit(model.learner.init)(jax.random.key(0), SpreadDraw(LENGTH).view(rows))
    state = fit(
        model.learner.update,
        batches(DRAW, BATCH),
        state,
        rows,
        key=jax.random.key(1),
        stop=steps,
        chunk=steps,
    )
    learned, entries = model.cascade(state), LENGTH * windows.shape[-1]

    def bits(x: np.ndarray) -> np.ndarray:
        parts = [
            density(learned, jnp.asarray(part), rising(12, 0.05, 80.0), key=jax.random.key(2), probes=2)
            for part in x.reshape(-1, 64, *x.shape[1:])
        ]
        return np.concatenate([np.asarray(bits_per_dimension(p.sum(0), entries)) for p in parts])

    rng = np.random.default_rng(1)
    training = np.asarray(batches(DRAW, count)(jax.random.key(3), jax.tree.map(jnp.asarray, rows)))
    real = windows[:count]
    shuffled = np.stack([window[rng.permutation(LENGTH)] for window in windows[-count:]])
    sets = {"shuffled in time": shuffled, "autoregression": walks(rng, training), "diffused": drawn(count)}
    inside, reference = bits(real), bits(training)
    found = {
        "held out": list(interval(inside)),
        "training": list(interval(reference)),
        "entries": entries,
    }
    for name, x in sets.items():
        own = bits(x)
        found[name] = {
            "bits": list(interval(own)),
            "auroc": list(auroc_interval(inside, own)),
            "auroc_atypical": list(auroc_interval(atypical(inside, reference), atypical(own, reference))),
        }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="*", choices=("experts", "cascade"), default=("experts", "cascade"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=600)
    options = parser.parse_args()
    result: dict[str, Any] = {"machine": machine(), "steps": options.steps, "clusters": COUNT}
    if "experts" in options.only:
        runs = [experts(seed, options.steps) for seed in range(options.seeds)]
        result["experts"] = {name: list(interval([run[name] for run in runs])) for name in runs[0]}
    if "cascade" in options.only:
        result["cascade"] = likelihood(options.steps)
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
