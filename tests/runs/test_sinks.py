"""Metric sinks: what is missing is named; what is there receives every scalar."""

import sys
import types

import numpy as np
import pytest

from jdp.errors import UserError
from jdp.runs import make_sink, start_run


def test_a_missing_package_is_one_line(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(UserError, match=r"pip install 'jdp\[tensorboard\]'"):
        make_sink("tensorboard", tmp_path, {})


def test_tensorboard_receives_means_over_seeds(monkeypatch, tmp_path):
    written = []

    class SummaryWriter:
        def __init__(self, folder: str):
            self.folder = folder

        def add_text(self, *_):
            pass

        def add_scalar(self, name, value, step):
            written.append((name, value, step))

        def flush(self):
            pass

    module = types.ModuleType("tensorboardX")
    monkeypatch.setattr(module, "SummaryWriter", SummaryWriter, raising=False)
    monkeypatch.setitem(sys.modules, "tensorboardX", module)
    run = start_run(tmp_path, "job", "data", {"seed": 0}, {})
    run = run.__class__(run.path, run.lock, (make_sink("tensorboard", run.path, {}),))
    run.log("guided", 7, {"loss": np.array([1.0, 3.0]), "scale": 0.5})
    assert written == [("guided/loss", 2.0, 7), ("guided/scale", 0.5, 7)]
    assert run.records("guided") == [{"phase": "guided", "step": 7, "loss": [1.0, 3.0], "scale": 0.5}]
