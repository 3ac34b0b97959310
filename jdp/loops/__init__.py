"""Loops that train and play: typed, public, without files or a screen."""

from jdp.loops.fit import block_program, chunk_program, fit, fit_blocks

__all__ = ["block_program", "chunk_program", "fit", "fit_blocks"]
