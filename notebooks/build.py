"""The notebooks as pairs: NAME.py holds the source, NAME.ipynb the same with its outputs.

    python notebooks/build.py                executes every NAME.py and writes its NAME.ipynb
    python notebooks/build.py --check        are the pairs in sync, and do they run? Writes nothing here
    python notebooks/build.py 02             those whose name begins so

Needs `pip install -e ".[notebooks]"`. Edit either half in Jupyter, whose jupytext keeps both alike.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

HERE = Path(__file__).resolve().parent
METADATA = {
    "jupytext": {"formats": "ipynb,py:percent"},
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", help="beginnings of names; all without one")
    parser.add_argument("--check", action="store_true", help="compare and execute, and write nothing")
    args = parser.parse_args()
    sources = [
        p for p in sorted(HERE.glob("[0-9]*.py")) if not args.names or p.name.startswith(tuple(args.names))
    ]
    if not sources:
        sys.exit(f"no notebook's name begins with {' or '.join(args.names)}")
    began = time.monotonic()
    for source in sources:
        check_or_write(source, args.check)
    print(f"{len(sources)} notebooks in {time.monotonic() - began:.0f} s")


def check_or_write(source: Path, check: bool) -> None:
    pair, notebook = source.with_suffix(".ipynb"), jupytext.read(source)
    if check and (not pair.exists() or cells(nbformat.read(pair, as_version=4)) != cells(notebook)):
        sys.exit(f"{pair.name} and {source.name} differ: python notebooks/build.py {source.stem}")
    began = time.monotonic()
    try:
        execute(notebook)
    except CellExecutionError as error:
        sys.exit(f"{source.name} failed:\n{error}")
    if not check:
        nbformat.write(tidy(notebook), pair)
    print(f"{source.stem:<28} {time.monotonic() - began:5.1f} s")


def cells(notebook: nbformat.NotebookNode) -> list[tuple[str, str]]:
    """What must be the same in both halves of a pair."""
    return [(cell.cell_type, cell.source) for cell in notebook.cells]


def execute(notebook: nbformat.NotebookNode) -> None:
    """Runs all cells in a new kernel, in an empty folder, as on another machine."""
    with tempfile.TemporaryDirectory() as folder:
        resources = {"metadata": {"path": folder}}
        NotebookClient(
            notebook,
            kernel_name="python3",
            timeout=600,
            resources=resources,
            record_timing=False,
            extra_arguments=["--log-level=ERROR"],  # not of ports on this machine
        ).execute()


def tidy(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """The same without what changes from machine to machine and from day to day."""
    notebook.metadata = nbformat.from_dict(METADATA)
    for number, cell in enumerate(notebook.cells):
        cell.id, cell.metadata = f"cell-{number:02d}", nbformat.from_dict({})
    return notebook


if __name__ == "__main__":
    main()
