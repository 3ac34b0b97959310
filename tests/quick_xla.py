"""Flags of XLA for programs that are compiled more than they run; read before JAX is imported.

Half of the suite is compilation. Results do not depend on how well that is done, but for square roots, which
err by 2e-4 in some loops. XLA ends a process that names a flag which it does not know.
"""

from importlib.metadata import version

QUICK = "--xla_backend_optimization_level=0" + (
    " --xla_cpu_use_fusion_emitters=false" if version("jaxlib").startswith("0.10.") else ""
)
