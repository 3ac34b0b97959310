"""The main job as a user runs it: whole, killed in every phase, and given wrong input."""

import json
import signal
import subprocess
from pathlib import Path

import jax
import numpy as np
import pytest
from scripts import EXPERIMENTS, check_mistakes, hdf5, killer, run

import jdp
from jdp.diffusion import samplers, schedules
from jdp.runs.frame import read_runs

TINY = [
    *("--source", "bundled", "--preset", "smoke", "--horizon", "8", "--updates", "12"),
    *("--diffusion.steps", "30", "--diffusion.batch-size", "16", "--network.features", "8"),
    *("--synthetic.every", "6", "--synthetic.trajectories", "16", "--sampler.batch", "16"),
    *("--evaluation.episodes", "1", "--evaluation.trajectories", "16", "--checkpoint-minutes", "0"),
]


def script(out: Path, *arguments: str, code: str | None = None) -> subprocess.CompletedProcess:
    return run("pgd_d4rl", *TINY, "--out", str(out), *arguments, code=code)


def results(out: Path) -> dict:
    (path,) = out.glob("pgd_d4rl/*/*/scores.json")
    scores = json.loads(path.read_text())
    return {key: scores[key] for key in ("arms", "checks")}


@pytest.fixture(scope="session")
def whole(tmp_path_factory) -> tuple[Path, subprocess.CompletedProcess]:
    out = tmp_path_factory.mktemp("whole")
    done = script(out, "--save-synthetic")
    assert done.returncode == 0, done.stderr
    return out, done


def test_a_run_prints_its_dataset_table_and_folder(whole):
    out, done = whole
    (folder,) = out.glob("pgd_d4rl/hopper-medium/*")
    data = jdp.data.load("hopper-medium", source="bundled")
    for text in (data.origin.name, data.origin.sha256[:16], "policy-guided", "unguided", str(folder)):
        assert text in done.stdout
    written = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    names = ("learning_curves", "scores", "dynamics_error", "marginals")
    assert {"config.json", "metrics.jsonl", "scores.json", "report.txt"} <= written
    assert {f"figures/{name}.png" for name in names} <= written
    apart = results(out)["checks"]["out_of_distribution"]
    assert set(apart) == {"data", "unguided", "guided", "world_model"}
    for arm, kind in (("dataset only", "data"), ("policy-guided", "guided")):
        (row,) = [line for line in done.stdout.splitlines() if line.startswith(arm)]
        assert f" {apart[kind]['auroc'][0]:.2f} [" in row
    read = read_runs(out).set_index("arm").auroc
    assert read["dataset"] == apart["data"]["auroc"][0] and read["guided"] == apart["guided"]["auroc"][0]


def test_a_run_compiles_each_program_once(whole):
    out, _ = whole
    (path,) = out.glob("pgd_d4rl/*/*/scores.json")
    repeated = json.loads(path.read_text())["compilations"]["repeated"]
    # One chunk for the diffuser, one for the ensemble, one for agents on data, one for agents on mixed
    # batches, however many rounds; one sampler without and one with guidance; one acting step. Rollouts
    # replay actions at first, then follow policies, at last for the checks in another number.
    assert repeated.get("jit(chunk)") == 4
    assert repeated.get("jit(program)") == 3
    assert repeated.get("jit(sample)") == 2
    assert "jit(act)" not in repeated


def test_saved_synthetic_data_can_be_loaded(whole):
    out, _ = whole
    (path,) = out.glob("pgd_d4rl/*/*/synthetic/guided.hdf5")
    data = jdp.data.load(str(path))
    assert data.spec.env_id == "Hopper-v5"
    assert np.isfinite(data.observations).all() and np.abs(data.actions).max() < 1


def test_load_run_gives_the_models_back(whole):
    out, _ = whole
    (path,) = out.glob("pgd_d4rl/*/*")
    found = jdp.load_run(path)
    assert set(found.states) == {"dataset", "unguided", "world_model", "guided"}
    data = jdp.data.load("hopper-medium", source="bundled")
    assert found.diffuser is not None and found.normaliser is not None and found.denoiser is not None
    np.testing.assert_array_equal(found.normaliser.mean, jdp.data.fit_normaliser(data).mean)
    assert int(found.diffuser.state.step) == 30
    # The denoiser is that of the averaged weights in the checkpoint: it samples without a further word.
    x = 20 * jax.random.normal(jax.random.key(0), (4, 8, found.normaliser.mean.shape[0]))
    x0 = samplers.dpmpp_2m(found.denoiser, x, schedules.karras(4, sigma_max=20.0))
    assert np.isfinite(np.asarray(x0)).all()
    again = found.diffuser.diffuser.denoiser(found.diffuser.state)
    np.testing.assert_array_equal(found.denoiser(x, np.float32(1.0)), again(x, np.float32(1.0)))


@pytest.mark.slow
def test_a_trained_diffuser_is_used_again_with_the_same_numbers(whole, tmp_path):
    (path,) = whole[0].glob("pgd_d4rl/*/*")
    done = script(tmp_path, "--diffuser", str(path), "--arms", "guided")
    assert done.returncode == 0, done.stderr
    assert f"diffuser   of {path}, step 30" in done.stdout and "train diffuser" not in done.stdout
    assert results(tmp_path)["arms"]["guided"] == results(whole[0])["arms"]["guided"]
    (borrowed,) = tmp_path.glob("pgd_d4rl/*/*")
    assert not (borrowed / "checkpoints" / "diffuser").exists()
    found, own = (jdp.load_run(p).diffuser for p in (borrowed, path))
    assert found is not None and own is not None
    jax.tree.map(np.testing.assert_array_equal, found.state.ema, own.state.ema)


# (module, function, call, seconds later): in the middle of a save, in an arm's generation, in its agents'
# training, in a later generation, and at the end.
KILLS = [
    ("jdp.runs.checkpoints", "save", 1, 0.005),
    ("jdp.synthesis", "rolled_out_experience", 2, 0.0),
    ("jdp.loops.train", "fit", 2, 0.02),
    ("jdp.synthesis", "synthetic_experience", 2, 0.0),
    ("pgd_report", "closing", 1, 0.0),
]
# A limit on the size of a file stands for a full disk: the writer meets the same OSError.
FULL_DISK = f"""
import resource, sys
sys.path.insert(0, {str(EXPERIMENTS)!r})
import pgd_d4rl
from command_line import run_main
from jdp.runs import checkpoints
original, calls = checkpoints.save, 0
def save(*args, **kwargs):
    global calls
    calls += 1
    if calls == 2:
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, resource.RLIM_INFINITY))
    return original(*args, **kwargs)
checkpoints.save = save
run_main(pgd_d4rl.main)
"""


@pytest.mark.slow
def test_stopped_in_every_phase_it_ends_with_the_same_numbers(whole, tmp_path):
    full = script(tmp_path, "--save-synthetic", code=FULL_DISK)
    assert full.returncode == 2, (full.returncode, full.stderr)
    assert len(full.stderr.strip().splitlines()) == 1 and "--resume" in full.stderr, full.stderr[:3000]
    for target, name, call, delay in KILLS:
        code = killer("pgd_d4rl", target, name, call, delay)
        killed = script(tmp_path, "--resume", "--save-synthetic", code=code)
        assert killed.returncode == -signal.SIGKILL, killed.stderr
    code = killer("pgd_d4rl", "pgd_report", "closing", 1, 0.0, signal="SIGTERM")
    stopped = script(tmp_path, "--resume", "--save-synthetic", code=code)
    assert stopped.returncode == 75 and "--resume" in stopped.stderr and "Traceback" not in stopped.stderr
    done = script(tmp_path, "--save-synthetic", "--resume")
    assert done.returncode == 0, done.stderr
    assert results(tmp_path) == results(whole[0])


def bad_inputs(folder: Path, finished: Path) -> dict[str, tuple[list[str], str]]:
    nan = np.zeros((40, 11), np.float32)
    nan[3, 2] = np.nan
    truncated = hdf5(folder / "truncated.hdf5")
    truncated.write_bytes(truncated.read_bytes()[:4000])
    (folder / "file").write_text("")
    auto = ["--source", "auto", "--env"]
    return {
        "unknown dataset": ([*auto, "hoper-medium"], "hopper-medium"),
        "missing file": ([*auto, str(folder / "none.hdf5")], "none.hdf5"),
        "truncated file": ([*auto, str(truncated)], "truncated"),
        "nan": ([*auto, str(hdf5(folder / "nan.hdf5", observations=nan))], "observations"),
        "no terminals": ([*auto, str(hdf5(folder / "keys.hdf5", terminals=None))], "terminals"),
        "shapes": ([*auto, str(hdf5(folder / "shape.hdf5", rewards=np.zeros(39)))], "rewards"),
        "other task": ([*auto, str(hdf5(folder / "ok.hdf5")), "--env-id", "Walker2d-v5"], "Walker2d-v5"),
        "no such task": ([*auto, str(folder / "ok.hdf5"), "--env-id", "Hoper-v5"], "Hoper-v5"),
        "horizon": (["--horizon", "100000"], "choose a horizon <= 1000"),
        "nothing to resume": (["--resume", "--seed", "77"], "--resume"),
        "resume elsewhere": (["--resume", str(folder)], "config.json"),
        "other config": (["--resume", str(finished), "--seed", "3"], "seed"),
        "other network": (["--diffuser", str(finished), "--network.features", "16"], "another network"),
        "other horizon": (["--seeds", "0"], "--seeds"),
        "reference guidance": (["--guidance.at", "reference"], "--sampler.sampler euler"),
        "unwritable": (["--out", str(folder / "file")], "--out"),
        "typo in an option": (["--guidance.coeficient", "1"], "--guidance.coefficient"),
        "unknown preset": (["--preset", "fast"], "smoke"),
    }


def test_bad_input_gets_one_line_and_status_2(whole, tmp_path):
    (finished,) = whole[0].glob("pgd_d4rl/*/*")
    cases = bad_inputs(tmp_path, finished)
    out = tmp_path / "out"
    check_mistakes("pgd_d4rl", cases, [*TINY, "--out", str(out)])
    left = [p for p in out.rglob("config.json")]
    assert not left, left
