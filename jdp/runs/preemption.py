"""SIGTERM: the chunk of training ends, a checkpoint is written, and the script leaves with a status that a
scheduler requeues on."""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager

EXIT = os.EX_TEMPFAIL  # 75: not a failure, try again
REPEAT = 2.0  # seconds: schedulers tell a process and its group, so one notice may come twice

_asked: float | None = None  # when
_holding = 0


class Preempted(BaseException):
    """Unwinds the script, and is as little an error as Ctrl-C."""


def install() -> None:
    """From now on SIGTERM raises `Preempted`; within `held` it waits, and a second one does not."""
    signal.signal(signal.SIGTERM, _on_signal)


def asked() -> bool:
    """Whether a SIGTERM has come."""
    return _asked is not None


@contextmanager
def held() -> Iterator[None]:
    """A block that ends by itself when `asked`, soon and with everything saved."""
    global _holding
    _holding += 1
    try:
        yield
    finally:
        _holding -= 1
    if asked() and not _holding:
        raise Preempted


def _on_signal(*_: object) -> None:
    global _asked
    now = time.monotonic()
    if _asked is None:
        _asked = now
        if not _holding:
            raise Preempted
    elif now - _asked > REPEAT:
        os.write(2, b"stopped at once by a second SIGTERM; the same command with --resume auto goes on\n")
        os._exit(EXIT)
