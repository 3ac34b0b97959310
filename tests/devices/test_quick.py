"""The flags of quick compilation stand beside those that were given, once."""

import os

from jdp.devices import compile_quickly
from jdp.devices.quick import QUICK


def test_flags_that_are_given_stay_and_the_quick_ones_come_once(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_force_host_platform_device_count=8")
    for _ in range(2):
        compile_quickly()
        assert os.environ["XLA_FLAGS"] == f"--xla_force_host_platform_device_count=8 {QUICK}"
    monkeypatch.setenv("XLA_FLAGS", "--xla_backend_optimization_level=3")
    compile_quickly()
    assert os.environ["XLA_FLAGS"] == "--xla_backend_optimization_level=3"
    monkeypatch.delenv("XLA_FLAGS")
    compile_quickly()
    assert os.environ["XLA_FLAGS"] == QUICK
