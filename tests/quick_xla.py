"""Flags of XLA for the suite, half of which is compilation; read before JAX computes anything."""

from jdp.devices.quick import QUICK

__all__ = ["QUICK"]
