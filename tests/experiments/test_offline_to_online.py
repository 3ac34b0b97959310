"""online_rl.py from an agent of offline_rl.py, and with rows of a dataset."""

import json
import signal
from pathlib import Path

import numpy as np
import pytest
from scripts import check_mistakes, hdf5, killer, run

OFFLINE = [
    *("--preset", "smoke", "--env", "hopper-medium", "--source", "bundled", "--updates", "20"),
    *("--batch-size", "8", "--evaluation.every", "20"),
]
ONLINE = [
    *("--preset", "smoke", "--env", "Hopper-v5", "--updates", "20", "--evaluation.every", "20"),
    *("--settings.acting.warm-up", "40", "--settings.acting.batch-size", "8"),
]
pytestmark = pytest.mark.slow


def trained(out: Path, agent: str, *more: str) -> Path:
    done = run("offline_rl", *OFFLINE, "--agent", agent, "--settings.hidden", "8", *more, "--out", str(out))
    assert done.returncode == 0, done.stderr
    (path,) = out.glob("offline_rl/*/*")
    return path


@pytest.fixture(scope="module")
def td3_bc(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("td3_bc"), "td3_bc")


def scores(out: Path) -> dict:
    (path,) = out.glob("**/scores.json")
    return json.loads(path.read_text())


def test_before_its_first_step_it_scores_what_the_offline_run_did(tmp_path, td3_bc):
    options = ("--agent", "td3", "--policy", str(td3_bc))
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    done = run("online_rl", *ONLINE, *options, "--out", str(whole))
    assert done.returncode == 0, done.stderr
    offline, found = scores(td3_bc), scores(whole)
    assert found["base"]["returns"] == offline["returns"] and len(found["returns"]) == 2
    assert found["returns"] != offline["returns"] and "before: return" in done.stdout
    # Also of a run that is killed when it has learned, and goes on.
    code = killer("online_rl", "jdp.loops.evaluation", "play", 2, 0.0)
    killed = run("online_rl", *ONLINE, *options, "--out", str(cut), code=code)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    done = run("online_rl", *ONLINE, *options, "--out", str(cut), "--resume")
    assert done.returncode == 0, done.stderr
    assert (scores(cut)["base"], scores(cut)["returns"]) == (found["base"], found["returns"])


def test_so_does_sac_after_an_agent_that_holds_more_than_sac(tmp_path):
    path = trained(tmp_path / "cql", "cql", "--settings.actions", "2")
    done = run("online_rl", *ONLINE, "--agent", "sac", "--policy", str(path), "--out", str(tmp_path / "sac"))
    assert done.returncode == 0, done.stderr
    assert scores(tmp_path / "sac")["base"]["returns"] == scores(path)["returns"]


def test_rows_of_the_dataset_are_learned_from(tmp_path):
    """A dataset of rewards 1000 times as large makes other critics; the task's own are about 1."""
    loss = {}
    for name, reward in (("none", 0.0), ("marked", 1000.0)):
        path = hdf5(tmp_path / f"{name}.hdf5", rewards=np.full(40, reward, np.float32))
        options = ("--dataset", str(path), "--settings.acting.offline-share", ".5", "--agent", "sac")
        done = run("online_rl", *ONLINE, *options, "--out", str(tmp_path / name))
        assert done.returncode == 0 and f"{name}.hdf5 (file)" in done.stdout, done.stderr
        (metrics,) = (tmp_path / name).glob("**/metrics.jsonl")
        lines = [json.loads(line) for line in metrics.read_text().splitlines()]
        loss[name] = np.mean([line["critic_loss"] for line in lines if line["phase"] == "online"])
    # Half of the rows have an error of 1000, in each critic.
    assert loss["none"] < 1e3 < 1e5 < loss["marked"], loss


def test_mistakes_get_one_line(tmp_path, td3_bc):
    walker = ("--env", "Walker2d-v5")
    share = ("--settings.acting.offline-share", ".5")
    td3, policy = ("--agent", "td3"), ("--policy", str(td3_bc))
    cases = {
        "another family": (["--agent", "sac", *policy], "td3 from td3_bc"),
        "no family": (["--agent", "ppo", *policy], "cannot go on from TD3BCConfig"),
        "another task": ([*td3, *policy, *walker], "give one of this task"),
        "other networks": ([*td3, *policy, "--settings.hidden", "9"], "the policy has (8,): leave it out"),
        "seeds": ([*td3, *policy, "--seeds", "9"], "has 2 training seeds: give --seeds 2"),
        "no such policy": ([*td3, "--policy", "nowhere"], "no trained model nowhere"),
        "share alone": ([*td3, *share], "give the --dataset"),
        "dataset alone": ([*td3, "--dataset", "hopper-medium"], "give --settings.acting.offline-share"),
        "no buffer": (["--agent", "ppo", "--dataset", "hopper-medium"], "keeps no buffer"),
        "dataset of another task": (
            [*td3, *share, *walker, "--dataset", "hopper-medium", "--source", "bundled"],
            "give one of this task",
        ),
        "no such dataset": ([*td3, *share, "--dataset", "nowhere"], "nowhere"),
    }
    always = ["--preset", "smoke", "--env", "Hopper-v5", "--out", str(tmp_path / "out")]
    check_mistakes("online_rl", cases, always)
    assert not list(tmp_path.rglob("config.json"))
