"""Experts trained by processes that never speak, put together: bit for bit those of one process."""

from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scripts import check_mistakes, run

import jdp
from jdp import loops
from jdp.data.draws import WindowDraw
from jdp.diffusion.experts import shares
from jdp.learning.clusters import PartDraw
from jdp.learning.diffuser import DiffuserConfig
from jdp.networks import NetworkConfig
from jdp.runs.experts import load_experts, load_joined
from jdp.runs.settings import from_dict
from jdp.types import named_keys

pytestmark = pytest.mark.slow
STEPS, HORIZON = 20, 8
TINY = ["--source", "bundled", "--preset", "smoke", "--diffusion.steps", str(STEPS), "--router.steps", "20"]


def here(run, data, part):
    """The expert `part` of 2, trained in this process, by the settings of a run."""
    config, keys = run["config"], named_keys(jax.random.key(0), "train", "windows", "noise")
    return loops.train_diffuser(
        data,
        from_dict(NetworkConfig, config["network"]),
        from_dict(DiffuserConfig, config["diffusion"]),
        HORIZON,
        key=jax.random.fold_in(keys["train"], part),
        draws=PartDraw(WindowDraw(HORIZON), HORIZON, part, 2),
    )


def test_two_processes_train_the_experts_of_one_process(tmp_path):
    def script(*arguments):
        done = run("experts", *TINY, "--out", str(tmp_path), *arguments)
        assert done.returncode == 0, done.stderr
        return done

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda part: script("--expert", f"{part}/2"), range(2)))
    paths = sorted(tmp_path.glob("experts/hopper-medium/*"))
    experts = load_experts(paths)
    data = jdp.data.load("hopper-medium", source="bundled")
    np.testing.assert_array_equal(experts.normaliser.mean, jdp.data.fit_normaliser(data).mean)
    for part, (found, of) in enumerate(zip(experts.diffusers, experts.runs, strict=True)):
        jax.tree.map(np.testing.assert_array_equal, found.state, here(of, data, part).state)

    done = script("--join", *map(str, paths))
    assert "denoising loss of 512 windows of the data, all experts" in done.stdout
    (path,) = set(tmp_path.glob("experts/hopper-medium/*")) - set(paths)
    joined = load_joined(path)
    x, sigma = jax.random.normal(jax.random.key(1), (4, HORIZON, 16)), jnp.full(4, 0.5)
    weights = shares(joined.router(x, sigma))
    each = [diffuser.denoiser(x, sigma) for diffuser in experts.diffusers]
    wanted = sum(weights[:, k, None, None] * of for k, of in enumerate(each))
    np.testing.assert_allclose(joined.denoiser()(x, sigma), wanted, atol=1e-6)

    wrong = {
        "one missing": (["--join", str(paths[0])], "of 2 experts there are 1"),
        "one twice": (["--join", str(paths[0]), str(paths[0])], "are both the expert"),
        "no expert": (["--join", str(paths[0]), str(path)], "is no expert"),
        "neither": ([], "give --expert K/N"),
        "no such part": (["--expert", "2/2"], "0/4 to 3/4"),
        "other data": (["--env", "walker2d-medium", "--join", *map(str, paths)], "other data"),
    }
    check_mistakes("experts", wrong, [*TINY, "--out", str(tmp_path / "out")])
