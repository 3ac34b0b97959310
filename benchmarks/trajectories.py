"""What the diffusion benchmarks share: a trained diffuser of the bundled set, judged by the simulator."""

import time
from typing import Any

import jax
import numpy as np

import jdp
from jdp import loops
from jdp.data.draws import WindowRows
from jdp.evaluation import Simulator, dynamics_error
from jdp.learning.diffuser import DiffuserConfig, trajectory_diffuser
from jdp.networks import NetworkConfig

HORIZON = 32


class Bench:
    """The bundled hopper-medium as windows, and the simulator that judges samples of it."""

    def __init__(self) -> None:
        data = jdp.data.load("hopper-medium", source="bundled")
        self.data, self.normaliser = data, jdp.data.fit_normaliser(data)
        rows, _ = jdp.data.training_rows(data, self.normaliser)
        windows = jdp.data.windows(data, HORIZON)
        self.arrays = WindowRows(rows, windows.starts, windows.last)
        self.channels = rows.shape[1]
        self.simulator = Simulator(data.spec)

    def train(self, network: NetworkConfig, config: DiffuserConfig) -> tuple[Any, Any, float]:
        """The diffuser, its trained state and the seconds that the steps after the first 20 took."""
        diffuser = trajectory_diffuser(network, config, HORIZON)
        zeros = np.zeros((config.batch_size, HORIZON, self.channels), np.float32)
        state = jax.jit(diffuser.learner.init)(jax.random.key(0), zeros)
        start = 0.0

        def after(step: int, *_: Any) -> None:
            nonlocal start
            start = time.perf_counter() if step == 20 else start

        draw = jdp.data.batches(diffuser.learner.draws, config.batch_size)
        for stop, chunk in ((20, 20), (config.steps, config.steps)):
            state = loops.fit(
                diffuser.learner.update,
                draw,
                state,
                self.arrays,
                key=jax.random.key(1),
                start=min(20, stop) if stop > 20 else 0,
                stop=stop,
                chunk=chunk,
                after=after,
            )
        return diffuser, jax.block_until_ready(state), time.perf_counter() - start

    def noise(self, count: int, sigma_max: float) -> jax.Array:
        return sigma_max * jax.random.normal(jax.random.key(5), (count, HORIZON, self.channels))

    def error(self, x: Any, count: int = 100) -> tuple[float, float]:
        """(median, mean) dynamics error of normalised trajectories."""
        made = jdp.data.experience(np.asarray(x[:count]), self.normaliser)
        o = self.normaliser.observation_dim
        error = dynamics_error(
            self.simulator,
            made.observation,
            made.action,
            made.reward,
            made.valid[:, :-1],
            self.normaliser.std[:o],
            float(self.normaliser.std[-2]),
        )
        return error.median, error.mean
