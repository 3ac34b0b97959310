"""benchmarks/accelerate.sh: what it refuses, and that what a step has reached is kept, with the command."""

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def accelerate(*arguments: str, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        ["bash", str(ROOT / "benchmarks" / "accelerate.sh"), *arguments],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    ("arguments", "words"),
    [((), "no step given"), (("g",), "g given; choose one of a"), (("a", "--quick"), "--quick is no option")],
)
def test_a_wrong_step_or_option_is_one_line(arguments, words, tmp_path):
    done = accelerate(*arguments, OUT=str(tmp_path))
    assert done.returncode == 2 and words in done.stderr and done.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())


def python(folder: Path, printed: str, status: int) -> str:
    """A Python that prints instead of measuring, and gathers as any."""
    found = folder / "python"
    found.write_text(
        "#!/bin/sh\ncase $1 in */accelerator.py) "
        f"echo '{printed}'; echo 'error: no room' >&2; exit {status};; esac\n"
        f'exec "{sys.executable}" "$@"\n'
    )
    found.chmod(0o755)
    return str(found)


@pytest.mark.slow
def test_a_result_stands_beside_command_and_hardware_and_a_failure_leaves_none(tmp_path):
    fake = python(tmp_path, '{"share": 0.5}', 0)
    done = accelerate("a", "--smoke", OUT=str(tmp_path / "out"), PYTHON=fake, JAX_PLATFORMS="cpu")
    path = tmp_path / "out" / "accelerate_a_smoke.json"
    assert (done.returncode, done.stdout.strip()) == (0, str(path)), done.stderr
    found = json.loads(path.read_text())
    assert found["results"] == {"share": 0.5} and found["machine"]["backend"] == "cpu"
    assert found["command"].startswith("python benchmarks/accelerator.py --preset smoke")
    assert str(tmp_path) not in found["command"]

    fake = python(tmp_path, "", 3)
    done = accelerate("d", "--smoke", OUT=str(tmp_path / "out"), PYTHON=fake, JAX_PLATFORMS="cpu")
    assert done.returncode == 1 and done.stderr == "accelerate.sh d: error: no room\n"
    assert [p.name for p in (tmp_path / "out").iterdir()] == [path.name]


def test_what_tests_and_unfinished_runs_say_is_gathered(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    gather = importlib.import_module("gather")
    outcomes = {"a": "", "b": "<failure/>", "c": "<skipped/>", "d": "<error/>"}
    suite = "".join(f'<testcase classname="t" name="{n}">{x}</testcase>' for n, x in outcomes.items())
    (tmp_path / "tests.xml").write_text(f"<testsuites><testsuite>{suite}</testsuite></testsuites>")
    assert gather.tests(tmp_path / "tests.xml") == {"passed": 1, "skipped": 1, "failed": ["t.b", "t.d"]}
    lines = [
        {"phase": "agent", "step": 1, "loss": 2.0},
        {"phase": "agent/evaluation", "step": 1, "returns": [[1.0]]},
        {"phase": "agent", "step": 2, "loss": 1.0},
    ]
    (tmp_path / "metrics.jsonl").write_text(
        "".join(json.dumps(line) + "\n" for line in lines) + '{"phase": "ag'
    )
    assert gather.run(tmp_path) == {
        "run": tmp_path.name,
        "scores": None,
        "evaluations": lines[1:2],
        "last": lines[2:],
    }
