"""What a machine may lack, and what no shell expands: a home, a device, a ~ behind an equals sign."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from scripts import EXPERIMENTS, environment

import jdp.data
from jdp.data import d4rl
from jdp.errors import UserError, check_seed


@pytest.fixture(autouse=True, scope="module")
def scripts_are_found():
    sys.path.insert(0, str(EXPERIMENTS))
    yield
    sys.path.remove(str(EXPERIMENTS))


@dataclasses.dataclass(frozen=True)
class Inner:
    to: Path | None = None
    name: str = "~"


@dataclasses.dataclass(frozen=True)
class Outer:
    out: Path
    inner: Inner
    several: tuple[Path, ...] = ()


def test_a_tilde_is_the_home_in_every_path_of_a_command_line(monkeypatch):
    from command_line import parse

    monkeypatch.setenv("HOME", "/home/somebody")
    home = Path("/home/somebody")
    words = ["--out=~/results", "--inner.to=~/a/b", "--inner.name=~", "--several", "~", "/tmp"]
    monkeypatch.setattr(sys, "argv", ["made.py", *words])
    found = parse(Outer, None, "A script.")
    assert found == Outer(home / "results", Inner(home / "a/b", "~"), (home, Path("/tmp")))
    same = Outer(Path("results"), Inner())
    monkeypatch.setattr(sys, "argv", ["made.py"])
    assert parse(Outer, same, "A script.") == same


def test_without_a_home_there_is_no_cache_and_bundled_data_are_found(monkeypatch, tmp_path):
    from jdp.data.sources import at_home
    from jdp.devices import use_compilation_cache

    def homeless(*_):
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", homeless)
    monkeypatch.setattr(Path, "expanduser", lambda self: homeless() if str(self)[0] == "~" else self)
    for variable in ("JAX_COMPILATION_CACHE_DIR", "D4RL_DATASET_DIR", "OGBENCH_DATA_DIR"):
        monkeypatch.delenv(variable, raising=False)
    before = jax.config.jax_compilation_cache_dir
    use_compilation_cache()
    assert jax.config.jax_compilation_cache_dir == before
    with pytest.raises(UserError, match="no home folder: set D4RL_DATASET_DIR"):
        d4rl.dataset_dir()
    for name in ("~/mine.hdf5", "~"):
        with pytest.raises(UserError, match="no home folder"):
            at_home(name)
        with pytest.raises(UserError, match="no home folder"):
            jdp.data.load(name)
    assert "no home folder" in jdp.data.load("hopper-medium").origin.notice


def test_a_device_that_is_not_here_is_one_line(tmp_path):
    for platforms in ("nonsense", "tpu"):
        done = subprocess.run(
            [sys.executable, str(EXPERIMENTS / "offline_rl.py"), "--agent", "bc", "--out", str(tmp_path)],
            env=environment() | {"JAX_PLATFORMS": platforms},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 2, done.stderr
        (line,) = done.stderr.strip().splitlines()
        assert line.startswith("error: JAX finds no devices") and platforms in line


def test_a_mistaken_option_is_said_once():
    from command_line import parse

    with pytest.MonkeyPatch.context() as patch, pytest.raises(UserError) as error:
        patch.setattr(sys, "argv", ["made.py", "--naem", "x"])
        parse(Inner, None, "A script.")
    assert str(error.value).startswith("Unrecognized options: --naem, x")
    assert str(error.value).count("Unrecognized") == 1


def test_a_folder_named_jdp_does_not_hide_the_package(tmp_path):
    """As that of a clone does not, in the folder above it."""
    (tmp_path / "jdp").mkdir()
    command = [sys.executable, "-c", "import jdp; print(jdp.__version__)"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False, timeout=60)
    assert done.returncode == 0 and done.stdout, done.stderr


def test_a_renderer_that_is_not_here_is_one_line(monkeypatch):
    import gymnasium as gym

    from jdp.tasks.environments import make_env

    def broken(*_, **__):
        raise AttributeError("'NoneType' object has no attribute 'glGetError'")

    monkeypatch.setattr(gym, "make", broken)
    monkeypatch.setenv("MUJOCO_GL", "osmesa")
    with pytest.raises(UserError, match="MUJOCO_GL=osmesa"):
        make_env("Hopper-v5")
    monkeypatch.delenv("MUJOCO_GL")
    with pytest.raises(AttributeError):  # then it is no renderer's fault, and nothing is hidden
        make_env("Hopper-v5")


def test_seeds_that_make_the_same_keys_are_refused():
    def bits(seed):
        return np.asarray(jax.random.key_data(jax.random.key(seed))).tolist()

    seeds = (0, 1, (1 << 31) - 1, 1 << 31, (1 << 32) - 1)
    for seed in seeds:
        check_seed(seed)
    assert len({str(bits(seed)) for seed in seeds}) == len(seeds)
    for seed in (-1, 1 << 32):
        with pytest.raises(UserError, match="it must lie from 0 to 4294967295"):
            check_seed(seed, "--seed")


def test_a_card_of_returns_that_differ_by_rounding_alone_has_a_histogram():
    from jdp.plotting.cards import edges

    for values in (np.full(5, 1e3) + np.arange(5) * 1e-13, np.zeros(3), np.array([1.0, 2.0])):
        found = edges(values, 30)
        assert len(found) == 31 and (np.diff(found) > 0).all()
        assert np.histogram(values, found)[0].sum() == len(values)
