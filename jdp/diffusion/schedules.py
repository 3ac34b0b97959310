"""Noise schedules: `(n, ...) -> sigmas [n + 1]`, decreasing, the last one 0."""

import jax.numpy as jnp
from jax import Array


def karras(n: int, sigma_min: float = 0.002, sigma_max: float = 80.0, rho: float = 7.0) -> Array:
    """The schedule of EDM (arXiv 2206.00364, equation 5): `[n + 1]`.

    `sigma_k = (sigma_max^(1/rho) + k / (n - 1) (sigma_min^(1/rho) - sigma_max^(1/rho)))^rho`, then 0.

    Raises:
        ValueError: if `n < 2` or not `0 < sigma_min < sigma_max`.
    """
    if n < 2 or not 0 < sigma_min < sigma_max:
        raise ValueError(
            f"karras needs n >= 2 and 0 < sigma_min < sigma_max: {n=}, {sigma_min=}, {sigma_max=}"
        )
    ramp = jnp.linspace(sigma_max ** (1 / rho), sigma_min ** (1 / rho), n, dtype=jnp.float32)
    return jnp.append(ramp**rho, jnp.zeros((), jnp.float32))
