"""sweep.py on clusters: submitit on this machine, and a Slurm made of three small commands."""

import os

import pytest
from scripts import TIMEOUT
from sweeps import alive, calls, cells, grid, start, wait

pytestmark = pytest.mark.usefixtures("gate")
# Slurm's commands, as far as submitit uses them: jobs are processes.
SLURM = {
    "sbatch": """
cp "${@: -1}" $SLURM_FAKE/job.sh
for i in 0 1; do
  export SLURM_ARRAY_JOB_ID=100 SLURM_ARRAY_TASK_ID=$i SLURM_JOB_ID=100_$i
  setsid bash $SLURM_FAKE/job.sh &> /dev/null &
done
echo Submitted batch job 100
""",
    "srun": 'while [[ $1 != *python* ]]; do shift; done; echo $$ > $SLURM_FAKE/$SLURM_JOB_ID.pid; exec "$@"',
    "sacct": "echo 'JobID|State|NodeList'; for i in 0 1; do echo \"100_$i|$(cat $SLURM_FAKE/100_$i.state "
    '2> /dev/null || echo RUNNING)|here"; done',
    "scancel": "echo CANCELLED > $SLURM_FAKE/$1.state; pkill -TERM -P $(cat $SLURM_FAKE/$1.pid); exit 1",
}


def test_submitit_on_this_machine_runs_the_cells_of_a_grid(tmp_path):
    done = start(grid(tmp_path, "ok", "crash", "wrong"), "--cluster", "local", "--retries", "2")
    out, err = done.communicate(timeout=TIMEOUT)
    assert done.returncode == 1 and "failed: wrong: ValueError: no luck" in err, out + err
    found = {name: cell["status"] for name, cell in cells(tmp_path).items()}
    assert found == {"ok": "finished", "crash": "finished", "wrong": "failed"}


def test_slurm_runs_an_array_whose_cells_checkpoint_when_the_sweep_is_stopped(tmp_path):
    commands = tmp_path / "bin"
    commands.mkdir()
    for name, text in SLURM.items():
        (commands / name).write_text(f"#!/bin/bash\n{text}\n")
        (commands / name).chmod(0o755)
    extra = {"PATH": f"{commands}:{os.environ['PATH']}", "SLURM_FAKE": str(tmp_path)}
    request = ["--request", "slurm_partition", "gpu", "timeout_min", "90", "gpus_per_node", "2"]
    options = ["--cluster", "slurm", *request, "--jobs", "3", "--retries", "0"]
    first = start(grid(tmp_path, "slow", "wrong"), *options, **extra)
    wait(lambda: sorted(call[0] for call in calls(tmp_path)) == ["slow-0", "wrong-0"])
    wait(lambda: cells(tmp_path)["wrong"]["status"] == "failed")
    text = (tmp_path / "job.sh").read_text()
    for line in ("--partition=gpu", "--time=90", "--gpus-per-node=2", "--array=0-1%2"):
        assert f"#SBATCH {line}" in text, line
    first.terminate()
    _, err = first.communicate(timeout=TIMEOUT)
    assert first.returncode == 75 and "failed: wrong: ValueError: no luck" in err
    assert {name: c["status"] for name, c in cells(tmp_path).items()} == {
        "slow": "waiting",
        "wrong": "failed",
    }
    assert len(calls(tmp_path)) == 2 and not any(alive(call[1]) for call in calls(tmp_path))
