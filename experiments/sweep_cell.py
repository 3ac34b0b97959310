"""What runs one cell of a sweep, in a process of its own that submitit starts. It imports no JAX."""

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

AGAIN = 75  # EX_TEMPFAIL: the script has written a checkpoint and wants to be run again


class RunCell:
    """Runs a command to its end and writes down how it ended; submitit pickles this, calls it elsewhere.

    Its files are `<name>.out` and `.err` (what the script prints), `.lock` and `.json`, the outcome: the
    attempt, exit code, seconds, and the last line of standard error. `environment` changes the script's
    (None removes a variable); `cores` are those it may use.
    """

    def __init__(
        self,
        stem: Path,
        command: list[str],
        *,
        attempt: str,
        cores: list[int] | None = None,
        environment: dict[str, str | None] | None = None,
    ):
        self.stem, self.command, self.attempt = stem, command, attempt
        self.cores, self.environment = cores, environment or {}
        self.process: subprocess.Popen | None = None
        self.asked: float | None = None  # when to stop

    def __call__(self) -> int:
        signal.signal(signal.SIGTERM, self.stop)
        if self.cores and hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, self.cores)  # XLA and BLAS start as many threads as they may use cores
        files = (self.stem.with_name(f"{self.stem.name}.{end}") for end in ("lock", "out", "err"))
        lock, out, err = (path.open("ab") for path in files)
        with lock, out, err:
            self.wait_for(lock)
            began, printed = time.monotonic(), err.tell()
            code = AGAIN if self.asked else self.run(lock, out, err)
        seconds = time.monotonic() - began
        self.write({"code": code, "seconds": seconds, "error": self.error(code, printed)})
        if code == AGAIN:
            sys.exit(code)  # not a result: a scheduler may start this job again by itself
        return code

    def wait_for(self, lock: Any) -> None:
        """Until no other process runs this cell: the script of a sweep that was killed may still be going."""
        while not self.asked:
            try:
                return fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                time.sleep(0.5)
            except OSError:
                return None  # a file system without locks; the run directory has its own

    def run(self, lock: Any, out: Any, err: Any) -> int:
        environment = dict(os.environ) | {"PYTHONUNBUFFERED": "1"} | self.environment
        # Slurm's warning before the end of the time goes to all processes; this one passes it on as SIGTERM.
        before = signal.signal(signal.SIGUSR2, signal.SIG_IGN)
        self.process = subprocess.Popen(
            [sys.executable if self.command[0] == "python" else self.command[0], *self.command[1:]],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            env={k: v for k, v in environment.items() if v is not None},
            pass_fds=(lock.fileno(),),  # held as long as the script lives, even if this process is killed
        )
        signal.signal(signal.SIGUSR2, before)
        if self.asked:
            self.process.terminate()
        while (code := self.process.poll()) is None:  # no wait(): `checkpoint` comes in between
            time.sleep(0.1)
        return code

    def stop(self, *_: Any) -> None:
        """SIGTERM: the script writes a checkpoint and ends; a second one, seconds later, kills it."""
        if self.process is not None and self.process.returncode is None:
            if self.asked is None:
                self.process.terminate()
            elif time.monotonic() - self.asked > 2:  # one signal may come by two ways
                self.process.kill()
        self.asked = self.asked or time.monotonic()

    def checkpoint(self) -> Any:
        """submitit calls this before the time limit, and puts the job that it returns into the queue."""
        from submitit.helpers import DelayedSubmission

        if self.process is not None and self.process.returncode is None:
            self.process.terminate()
            os.waitid(os.P_PID, self.process.pid, os.WEXITED | os.WNOWAIT)
        options: Any = {"attempt": self.attempt, "cores": self.cores, "environment": self.environment}
        return DelayedSubmission(RunCell(self.stem, self.command, **options))

    def error(self, code: int, printed: int) -> str | None:
        """The last line of standard error since this attempt began; how it was killed, where it was."""
        if code == 0:
            return None
        if code < 0:
            name = signal.Signals(-code).name
            return f"killed by {name}{' (out of memory?)' if name == 'SIGKILL' else ''}"
        with self.stem.with_name(f"{self.stem.name}.err").open("rb") as file:
            file.seek(printed)
            lines = file.read().decode(errors="replace").splitlines()
        last = next((line.strip() for line in reversed(lines) if line.strip()), "")
        return last.removeprefix("error: ") or f"exit code {code} without a word on standard error"

    def write(self, outcome: dict[str, Any]) -> None:
        path = self.stem.with_name(f"{self.stem.name}.json")
        part = path.with_suffix(".part")
        part.write_text(json.dumps({"attempt": self.attempt, **outcome}))
        part.replace(path)
