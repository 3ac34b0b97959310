"""Alignment of diffusion models with rewards, preferences and teachers; one method a file.

`jdp.registry.entries("alignment")` lists them. Each makes a `jdp.types.Learner` of its config and a
`jdp.alignment.models.Model`, which `jdp.loops.train` trains on what is `jdp.alignment.models.Given`.
"""
