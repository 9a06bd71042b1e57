"""One table, written as CSV for programs and as Markdown and LaTeX for texts."""

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cifar_lab import storage
from cifar_lab.errors import ConfigError

FORMATS = ("csv", "md", "tex")
_LATEX = str.maketrans(
    {
        "\\": r"\textbackslash{}",
        "{": r"\{",
        "}": r"\}",
        "&": r"\&",
        "%": r"\%",
        "$": r"\$",
        "#": r"\#",
        "_": r"\_",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "|": r"\textbar{}",
        "±": r"$\pm$",
        "×": r"$\times$",
        "−": r"$-$",
        "…": r"\dots{}",
        "–": "--",
        "·": r"$\cdot$",
        "≠": r"$\ne$",
        "→": r"$\to$",
        "▲": r"$\bigtriangleup$",
        "▼": r"$\bigtriangledown$",
        "■": r"\rule{1ex}{1ex}",
        "○": r"$\circ$",
        # At the beginning of a row it would be read as an option of the line break before it.
        "[": "{[}",
    }
)

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Column:
    """One column of the tables that people read.

    Args:
        title: Its head, with a unit where there is one.
        show: What stands in the cell of a row.
        is_number: Set flush right.
    """

    title: str
    show: Callable[[Row], str]
    is_number: bool = True


@dataclass(frozen=True)
class Table:
    """Rows with their numbers, and what people read of them.

    Args:
        name: Of the files.
        caption: What it shows, with units.
        columns: For people.
        rows: Plain values by name; each row has the same names. They are what CSV holds, unrounded.
    """

    name: str
    caption: str
    columns: Sequence[Column]
    rows: Sequence[Row]

    @property
    def cells(self) -> list[list[str]]:
        """What people read, without the heads."""
        return [[column.show(row) for column in self.columns] for row in self.rows]


def save_table(folder: Path, table: Table, formats: Sequence[str]) -> list[Path]:
    """Write ``folder/NAME.FORMAT`` for each format.

    Returns:
        The files.

    Raises:
        ConfigError: A format that is none.
    """
    check_formats(formats)
    made = {"csv": to_csv, "md": to_markdown, "tex": to_latex}
    files = [folder / f"{table.name}.{name}" for name in formats]
    for file, name in zip(files, formats, strict=True):
        storage.write_text(file, made[name](table))
    return files


def check_formats(formats: Sequence[str]) -> None:
    """Refuse what is no format of tables.

    Raises:
        ConfigError: Naming it.
    """
    if not formats or [name for name in formats if name not in FORMATS]:
        raise ConfigError(f"--tables {','.join(formats)}; must be of {', '.join(FORMATS)}")


def to_csv(table: Table) -> str:
    """Names and plain values; a value that is not there is an empty cell."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    if table.rows:
        writer.writerow(table.rows[0])
    writer.writerows([["" if value is None else value for value in row.values()] for row in table.rows])
    return text.getvalue()


def to_markdown(table: Table) -> str:
    """A pipe table."""
    heads = [_plain(column.title) for column in table.columns]
    rules = ["---:" if column.is_number else "---" for column in table.columns]
    lines = [heads, rules, *([_plain(cell) for cell in row] for row in table.cells)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def to_latex(table: Table) -> str:
    """A ``table`` that needs no package."""
    sides = "".join("r" if column.is_number else "l" for column in table.columns)
    lines = [" & ".join(map(escape_latex, line)) + r" \\" for line in ([c.title for c in table.columns], *table.cells)]
    parts = [
        r"\begin{table}[tbp]",
        r"\centering",
        rf"\caption{{{escape_latex(table.caption)}}}",
        rf"\label{{tab:{table.name.replace('_', '-')}}}",
        rf"\begin{{tabular}}{{{sides}}}",
        r"\hline",
        lines[0],
        r"\hline",
        *lines[1:],
        r"\hline",
        r"\end{tabular}",
        r"\end{table}",
    ]
    return "\n".join(parts) + "\n"


def escape_latex(text: str) -> str:
    """A text as LaTeX prints it; a percent sign stays with its number."""
    return text.translate(_LATEX).replace(r" \%", r"\,\%")


def _plain(text: str) -> str:
    """A text that ends no cell and starts no markup of Markdown."""
    for letter in ("\\", "|", "_", "*", "`", "<"):
        text = text.replace(letter, f"\\{letter}")
    return " ".join(text.split())
