"""Compilation that is quick and not thorough: for programs that compile longer than they run."""

import os
from importlib.metadata import version

# XLA ends a process that names a flag which it does not know.
QUICK = "--xla_backend_optimization_level=0" + (
    " --xla_cpu_use_fusion_emitters=false" if version("jaxlib").startswith("0.10.") else ""
)


def compile_quickly() -> None:
    """Lets XLA compile without optimising, from now on in this process; before the first computation.

    Notebooks and tests spend most of their time in compilation, of which this saves four fifths on a CPU;
    what runs takes up to three times as long. Numbers stay what they are to rounding, but for square roots,
    which err by 2e-4 in some loops. Flags that are set already stay.
    """
    given = os.environ.get("XLA_FLAGS", "")
    if "--xla_backend_optimization_level" not in given:
        os.environ["XLA_FLAGS"] = f"{given} {QUICK}".strip()
