"""Zip files with a card: what is exported and packed, complete or absent, and nothing pickled in it."""

import json
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path

from jdp.errors import StorageError, UserError
from jdp.types import Json

CARD = "card.json"


def write_box(path: Path, card: Json, contents: Mapping[str, bytes]) -> None:
    """Writes `card` and `contents` (by file name) to the zip file `path`.

    Raises:
        UserError: if `path` is a folder or a device.
        StorageError: if the file cannot be written; what was there before stays.
    """
    part = path.with_name(path.name + ".part")
    if path.exists() and not path.is_file():
        raise UserError(f"{path} is there and is no file: choose another --to")
    try:
        with zipfile.ZipFile(part, "w", zipfile.ZIP_DEFLATED) as box:
            box.writestr(CARD, json.dumps(card, indent=1) + "\n")
            for name, content in contents.items():
                box.writestr(name, content)
        os.replace(part, path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise StorageError(f"cannot write {path} ({error.strerror}): choose another --to") from error


def read_box(path: Path, form: str, what: str) -> tuple[Json, dict[str, bytes]]:
    """`(card, contents)` of a file that `write_box` wrote.

    Args:
        form: the format that its card must name.
        what: such a file in words, for the errors: "policy exported by jdp".

    Raises:
        UserError: for another file.
    """
    try:
        with zipfile.ZipFile(path) as box:
            found = {name: box.read(name) for name in box.namelist()}
        card = json.loads(found.pop(CARD))
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise UserError(f"{path} is no {what} ({error}): make one with export.py") from error
    if card.get("format") != form:
        raise UserError(f"{path} has the format {card.get('format')!r}, this jdp reads {form!r}")
    return card, found
