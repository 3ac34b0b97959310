"""What starting costs: imports, and compilations of a whole smoke run, cold and from the cache.

    python benchmarks/startup.py

Prints JSON; `extra_s` is what `import jdp` (and its `data.load`) adds to `import jax, flax, optax`.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SCRIPT = Path(__file__).parents[1] / "experiments" / "pgd_d4rl.py"


def seconds(*command: str, **environment: str) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, *command], env=os.environ | environment, check=True, capture_output=True)
    return time.perf_counter() - start


def imports(repeats: int = 5) -> dict[str, float]:
    base, ours = [], []
    for _ in range(repeats):
        base.append(seconds("-c", "import jax, flax, optax"))
        ours.append(seconds("-c", "import jax, flax, optax, jdp; jdp.data.load"))
    both = statistics.median(base), statistics.median(ours)
    return {"jax_flax_optax_s": both[0], "with_jdp_s": both[1], "extra_s": both[1] - both[0]}


def whole_run(cache: str, out: str) -> dict[str, object]:
    arguments = (str(SCRIPT), "--source", "bundled", "--preset", "smoke", "--out", out)
    wall = seconds(*arguments, JAX_COMPILATION_CACHE_DIR=cache)
    newest = max(Path(out).rglob("scores.json"), key=lambda path: path.stat().st_mtime)
    return {"wall_s": round(wall, 1), **json.loads(newest.read_text())["compilations"]}


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        cache, out = f"{folder}/cache", f"{folder}/out"
        runs = {"cold": whole_run(cache, out), "warm": whole_run(cache, out)}
    print(json.dumps({"imports": imports(), "smoke_run": runs, "load": os.getloadavg()[0]}, indent=1))


if __name__ == "__main__":
    main()
