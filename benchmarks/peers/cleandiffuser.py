"""CleanDiffuser's Diffuser (PyTorch): updates and plans of the U-Net of 3.96 million parameters."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import planners

import jdp
from jdp.planners.diffuser import diffuser
from peers import Pair, Peer, importing

DIM, ACTIONS, HORIZON, BATCH, COUNT = 11, 3, planners.HORIZON, planners.BATCH, 5
SIZE = {"model_dim": 32, "emb_dim": 32, "dim_mult": [1, 2, 2, 2], "timestep_emb_type": "positional"}


def pairs(folder: Path, rows: int) -> list[Pair]:
    theirs, mine = peer_works(folder), our_works()
    return [Pair(name, call, mine[name], units, units) for name, (call, units) in theirs.items()]


def peer_works(folder: Path) -> dict[str, tuple[Callable[[], Any], int]]:
    import torch

    with importing(folder):
        from cleandiffuser.classifier import CumRewClassifier
        from cleandiffuser.diffusion import DiscreteDiffusionSDE
        from cleandiffuser.nn_classifier import HalfJannerUNet1d
        from cleandiffuser.nn_diffusion import JannerUNet1d
    net = JannerUNet1d(DIM + ACTIONS, **SIZE, attention=False, kernel_size=5)
    half = HalfJannerUNet1d(HORIZON, DIM + ACTIONS, out_dim=1, **SIZE, kernel_size=3)
    known, weight = torch.zeros((HORIZON, DIM + ACTIONS)), torch.ones((HORIZON, DIM + ACTIONS))
    known[0, :DIM], weight[0, DIM:] = 1.0, 10.0
    agent = DiscreteDiffusionSDE(
        net,
        None,
        fix_mask=known,
        loss_weight=weight,
        classifier=CumRewClassifier(half, device="cpu"),
        ema_rate=0.9999,
        device="cpu",
        diffusion_steps=20,
        predict_noise=False,
    )
    x, value, prior = (
        torch.randn(BATCH, HORIZON, DIM + ACTIONS),
        torch.randn(BATCH, 1),
        torch.zeros((BATCH, HORIZON, DIM + ACTIONS)),
    )

    def update(critic: bool) -> Callable[[], None]:
        def run() -> None:
            for _ in range(COUNT):
                agent.update(x)
                if critic:
                    agent.update_classifier(x, value)

        return run

    def plan(guidance: float, solver: str, steps: int) -> Callable[[], None]:
        def run() -> None:
            agent.eval()
            options = {"n_samples": BATCH, "use_ema": True, "temperature": 0.5}
            agent.sample(prior, solver=solver, sample_steps=steps, w_cg=guidance, **options)
            agent.train()

        return run

    agent.train()
    return {
        "update, U-Net": (update(False), COUNT),
        "update, denoiser and critic": (update(True), COUNT),
        "plan, DDPM 20 guided": (plan(0.1, "ddpm", 20), 1),
        "plan, DDPM 20 unguided": (plan(0.0, "ddpm", 20), 1),
        "plan, DDIM 5 guided": (plan(0.1, "ddim", 5), 1),
    }


def our_works() -> dict[str, Callable[[], Any]]:
    data = jdp.data.load("hopper-medium", source="bundled")
    draw: Any = diffuser(planners.PUBLISHED, data.spec).learner.draws
    rows = jax.tree.map(jnp.asarray, draw.prepare(data))
    fits, _ = planners.updates(data, draw, rows, COUNT)
    return {**fits, **{name: planners.plans(c, data, rows)[0] for name, c in planners.PLANS.items()}}


PEER = Peer("CleanDiffuser", "CleanDiffuserTeam/CleanDiffuser", "05f17fc", ("torch", "einops"), pairs)
