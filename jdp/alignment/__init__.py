"""Alignment of diffusion models with rewards, preferences and teachers; one method a file."""
