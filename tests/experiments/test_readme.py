"""The README's example in Python runs as it is printed."""

import ast
import re
import subprocess
import sys

import pytest
from scripts import EXPERIMENTS, TIMEOUT, environment

README = EXPERIMENTS.parent / "README.md"


@pytest.mark.slow
def test_the_example_runs_as_printed(tmp_path):
    (code,) = re.findall(r"<!-- example -->\n```python\n(.*?)```", README.read_text(), re.DOTALL)
    statements = [s for s in ast.parse(code).body if not isinstance(s, ast.Import | ast.ImportFrom)]
    assert len(statements) <= 10
    command = [sys.executable, "-c", code]
    done = subprocess.run(
        command, capture_output=True, text=True, env=environment(), check=False, cwd=tmp_path, timeout=TIMEOUT
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("(2, 64, 16, 11) ") and done.stderr == ""
    assert not list(tmp_path.iterdir())
