"""Fetching one file over HTTP: checked, then moved into place; nothing is left behind otherwise."""

import contextlib
import http.client
import os
import shutil
import urllib.error
import urllib.request
from collections.abc import Callable
from functools import partial
from pathlib import Path
from uuid import uuid4

from jdp.errors import UserError

Progress = Callable[[int, int | None], None]  # (bytes done, bytes in all where known)
_BLOCK = 1 << 20


def download(
    url: str,
    target: Path,
    *,
    check: Callable[[Path], None] | None = None,
    progress: Progress | None = None,
    connect_timeout: float = 5.0,
    read_timeout: float = 30.0,
) -> None:
    """Fetch `url` to `target`, by way of `<target>.part-*` beside it.

    Args:
        check: raises if the complete file is not what it should be.
        progress: called after each block.
        connect_timeout: seconds to wait for the connection.
        read_timeout: seconds without a byte that count as a stall.

    Raises:
        UserError: naming the URL, what failed, and where to put the file by hand.
    """
    part = target.with_name(f"{target.name}.part-{uuid4().hex[:8]}")
    try:
        _fetch(url, part, progress, connect_timeout, read_timeout)
        if check is not None:
            check(part)
        os.replace(part, target)
    except (OSError, http.client.HTTPException, UserError) as error:
        raise UserError(
            f"could not download {url}: {_reason(error, part, read_timeout)}; "
            f"fetch it by hand and put it at {target}"
        ) from error
    finally:
        with contextlib.suppress(OSError):
            part.unlink()


def _fetch(url: str, part: Path, progress: Progress | None, connect: float, read: float) -> None:
    opener = urllib.request.build_opener(_http_handler(read), _https_handler(read))
    with opener.open(url, timeout=connect) as response:
        length = response.headers.get("Content-Length")
        total = int(length) if length is not None else None
        part.parent.mkdir(parents=True, exist_ok=True)
        if total is not None and total > shutil.disk_usage(part.parent).free:
            raise OSError(f"{total:,} bytes do not fit on the disk of {part.parent}")
        done = 0
        with open(part, "xb") as file:
            while block := response.read1(_BLOCK):
                file.write(block)
                done += len(block)
                if progress is not None:
                    progress(done, total)
    if total is not None and done != total:
        raise OSError(f"the connection ended after {done:,} of {total:,} bytes")


def _reason(error: Exception, part: Path, read_timeout: float) -> str:
    if isinstance(error, urllib.error.HTTPError):
        return f"HTTP {error.code} {error.reason}"
    if isinstance(error, urllib.error.URLError):
        return f"no connection ({error.reason})"
    if isinstance(error, TimeoutError):
        return f"the server sent nothing for {read_timeout:g} s"
    return (str(error) or type(error).__name__).replace(str(part), "the file received").replace("\n", " ")


# urllib knows one timeout for everything. A dead host should fail in seconds and a slow one should
# not, so the socket gets its own limit once it is connected.
def _patient(connection: type, read_timeout: float, *args, **kwargs):
    class Connection(connection):
        def connect(self):
            super().connect()
            self.sock.settimeout(read_timeout)

    return Connection(*args, **kwargs)


def _http_handler(read_timeout: float) -> urllib.request.HTTPHandler:
    class Handler(urllib.request.HTTPHandler):
        def http_open(self, req):
            return self.do_open(partial(_patient, http.client.HTTPConnection, read_timeout), req)

    return Handler()


def _https_handler(read_timeout: float) -> urllib.request.HTTPSHandler:
    class Handler(urllib.request.HTTPSHandler):
        def https_open(self, req):
            return self.do_open(partial(_patient, http.client.HTTPSConnection, read_timeout), req)

    return Handler()
