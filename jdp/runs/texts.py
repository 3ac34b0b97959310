"""Tables of texts as Markdown and as LaTeX."""

import re
from typing import NamedTuple

import pandas as pd


class Grid(NamedTuple):
    """A table of texts; `**text**` is bold. The first `left` columns are words, the others numbers."""

    title: str
    table: pd.DataFrame
    notes: list[str]
    left: int = 1


def markdown(grid: Grid) -> str:
    """The grid as a Markdown table under its title, with its notes."""

    def cell(text: str) -> str:
        return " ".join(text.split()).replace("|", r"\|")

    align = ["left"] * grid.left + ["right"] * (grid.table.shape[1] - grid.left)
    table = grid.table.map(cell).to_markdown(
        index=False, headers=list(map(cell, grid.table.columns)), colalign=align, disable_numparse=True
    )
    return "\n".join([f"## {grid.title}", "", table, "", *grid.notes, ""])


SPECIAL = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    **{c: rf"\{c}" for c in "&%$#_{}"},
    **{c: f"${c}$" for c in "<>|"},
    "[": "{[}",  # after a line break LaTeX reads it as an argument
}


def escape(text: str) -> str:
    """`text` as LaTeX prints it; `**text**` in bold."""
    if bold := re.fullmatch(r"\*\*(.+)\*\*", text):
        return rf"\textbf{{{escape(bold[1])}}}"
    return "".join(SPECIAL.get(c, c) for c in text)


def latex(grid: Grid) -> str:
    """The grid as a `table` of LaTeX with the rules of the package booktabs; the notes are its caption."""
    heads = [escape(head) for head in grid.table.columns]
    # A Styler takes no two columns of one name, and "published" may stand twice.
    texts = grid.table.map(escape).set_axis(range(len(heads)), axis=1).reset_index(drop=True)
    style = texts.style.hide(axis="index").format_index(lambda at: heads[int(str(at))], axis=1)
    return style.to_latex(
        hrules=True,
        position="t",
        position_float="centering",
        caption=escape(". ".join([grid.title, " ".join(grid.notes)])),
        column_format="l" * grid.left + "r" * (len(heads) - grid.left),
    )
