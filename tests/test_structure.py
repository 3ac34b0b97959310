"""The shape of the house: imports go one way, functions are short, the library neither prints nor parses."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = sorted((ROOT / "jdp").rglob("*.py"))
# A room imports its own files and those of rooms in rows above it.
ROWS: tuple[tuple[str, ...], ...] = (
    ("errors", "_version"),
    ("distributions",),
    ("types",),
    ("devices", "registry", "networks", "tasks"),
    ("data", "diffusion"),
    ("learning",),
    ("world_models", "agents"),
    ("policies", "planners", "online"),
    ("synthesis", "finetune"),
    ("alignment",),
    ("loops",),
    ("evaluation", "plotting", "runs"),
)
ROW = {room: row for row, rooms in enumerate(ROWS) for room in rooms}
# Within a row: who may import whom.
BESIDE = {
    ("agents", "world_models"),  # model-based agents step world models
    ("plotting", "evaluation"),  # pictures of statistics
    ("runs", "evaluation"),  # tables of runs
    ("runs", "plotting"),  # and their figures
}
LONGEST = 60  # lines of a function


def room(path: Path) -> str:
    parts = path.relative_to(ROOT / "jdp").with_suffix("").parts
    return parts[0]


def imported(tree: ast.AST) -> set[str]:
    """The rooms of jdp that a file imports, also within functions."""
    found = set()
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module == "jdp":
            names = [f"jdp.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module]
        found |= {name.split(".")[1] for name in names if name.startswith("jdp.")}
    return found


TREES = {path: ast.parse(path.read_text()) for path in FILES}


def test_imports_point_one_way():
    wrong = []
    for path, tree in TREES.items():
        here = room(path)
        if here == "__init__":
            continue
        assert here in ROW, f"{here} is a new room: say in ROWS where it stands"
        for other in imported(tree) - {here, "UserError"}:
            below = ROW[other] < ROW[here] or (ROW[other] == ROW[here] and (here, other) in BESIDE)
            if not below:
                wrong.append(f"{path.relative_to(ROOT)} imports jdp.{other}")
    assert not wrong, "\n".join(wrong)


def lines_of(node: ast.FunctionDef) -> int:
    """Lines of a function from `def` on, with its docstring."""
    return (node.end_lineno or 0) - node.lineno + 1


def test_no_function_is_long():
    lengths = {
        f"{path.relative_to(ROOT)}:{node.name}": lines_of(node)
        for path, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef)
    }
    long = {name: count for name, count in lengths.items() if count > LONGEST}
    assert not long, long


def calls(tree: ast.AST, *names: str) -> list[int]:
    return [
        node.lineno
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in names
    ]


def test_the_library_neither_prints_nor_asks():
    found = {str(path.relative_to(ROOT)): lines for path, tree in TREES.items()
             if (lines := calls(tree, "print", "input"))}  # fmt: skip
    assert not found, found


COMMAND_LINES = ("argparse", "tyro", "click", "tqdm")


def test_the_library_reads_no_command_line():
    """Only the provenance of a run writes down with which words it was started."""
    readers = []
    for path, tree in TREES.items():
        for node in ast.walk(tree):
            names = [a.name for a in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
            module = getattr(node, "module", None) or ""
            if any(name.split(".")[0] in COMMAND_LINES for name in (*names, module)):
                readers.append(str(path.relative_to(ROOT)))
            if isinstance(node, ast.Attribute) and node.attr == "argv":
                readers.append(path.name)
    assert set(readers) <= {"directories.py", "provenance.py"}, readers


def uses_of_any(tree: ast.AST) -> int:
    return sum(isinstance(node, ast.Name) and node.id == "Any" for node in ast.walk(tree))


@pytest.mark.parametrize(
    ("folder", "most"), [("jdp/loops", 22), ("jdp/synthesis", 0), ("jdp/data", 14), ("jdp/runs", 88)]
)
def test_types_are_said_where_they_exist(folder, most):
    """`Any` stands for JSON, metrics and configurations of any method; these bounds may only fall."""
    found = sum(uses_of_any(ast.parse(path.read_text())) for path in sorted((ROOT / folder).rglob("*.py")))
    assert found <= most, found


def test_every_room_says_what_it_is():
    silent = [path.name for path, tree in TREES.items() if not ast.get_docstring(tree)]
    assert set(silent) <= {"_version.py"}, silent
