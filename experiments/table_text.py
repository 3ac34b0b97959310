"""A table of words and numbers as Markdown and as LaTeX."""

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Grid:
    """A table: `**text**` in a cell is bold; the first `left` columns are words, the others numbers."""

    title: str
    head: list[str]
    rows: list[list[str]]
    notes: list[str]
    left: int = 1


def markdown(grid: Grid) -> str:
    """The grid as a Markdown table under its title, with its notes."""
    lines = [grid.head, ["---"] * grid.left + ["---:"] * (len(grid.head) - grid.left), *grid.rows]
    table = ["| " + " | ".join(cell.replace("|", r"\|") for cell in line) + " |" for line in lines]
    return "\n".join([f"## {grid.title}", "", *table, "", *grid.notes, ""])


SPECIAL = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    **{c: rf"\{c}" for c in "&%$#_{}"},
    "<": r"$<$",
    ">": r"$>$",
    "|": r"$|$",
    "[": "{[}",  # after a line break LaTeX reads it as an argument
}


def escape(text: str) -> str:
    """`text` as LaTeX prints it; `**text**` in bold."""
    if bold := re.fullmatch(r"\*\*(.+)\*\*", text):
        return rf"\textbf{{{escape(bold[1])}}}"
    return "".join(SPECIAL.get(c, c) for c in text)


def latex(grid: Grid) -> str:
    """The grid as a `table` of LaTeX with the rules of the package booktabs; the notes are its caption."""
    head, *rows = (" & ".join(map(escape, row)) + r" \\" for row in [grid.head, *grid.rows])
    lines = [
        r"\begin{table}[t]",
        r"\centering\small",
        rf"\caption{{{escape('. '.join([grid.title, ' '.join(grid.notes)]))}}}",
        rf"\begin{{tabular}}{{{'l' * grid.left}{'r' * (len(grid.head) - grid.left)}}}",
        r"\toprule",
        head,
        r"\midrule",
        *rows,
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"
