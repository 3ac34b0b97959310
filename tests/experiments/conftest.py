"""What every test of the scripts needs."""

import signal

import pytest


@pytest.fixture(autouse=True, scope="session")  # before whatever fixture starts a script
def signals_are_not_ignored():
    """Scripts that a test starts get signals even where the tests ignore them (`nohup`, `&`)."""
    names = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    ignored = [name for name in names if signal.getsignal(name) is signal.SIG_IGN]
    for name in ignored:
        signal.signal(name, signal.default_int_handler if name == signal.SIGINT else signal.SIG_DFL)
    yield
    for name in ignored:
        signal.signal(name, signal.SIG_IGN)


@pytest.fixture
def gate(tmp_path):
    """Lets the scripts of a test of sweep.py that failed end by themselves."""
    yield
    (tmp_path / "gate").touch()
