"""What a person sees of a study in the terminal: the answer, and a line for every variant."""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table as Grid

from cifar_lab.display import table_console
from cifar_lab.study import answer, tables
from cifar_lab.study.verdicts import Findings

_STYLES = {"better": "green", "worse": "red", "equivalent": "blue"}
_NARROW = 100  # characters; a narrower window gets no p values, which the page has
_NAME = 16  # characters that a name has at least, if it needs them
_CLAIM_STYLES = {"supported": "green", "refuted": "red", "inconclusive": "yellow"}


def show_report(findings: Findings, files: Sequence[Path] = (), console: Console | None = None) -> None:
    """Print what a study found.

    Args:
        findings: What was found.
        files: What was written, report.html first.
        console: None for standard output.
    """
    console = console or table_console()
    study = findings.study
    console.print(f"[bold]{escape(study.name)}[/bold]", highlight=False)
    if study.settings.question:
        _say(console, study.settings.question)
    console.print()
    for sentence in answer.answer(findings):
        _say(console, sentence)
    console.print()
    console.print(_grid(findings, narrow=console.width < _NARROW))
    for one in findings.claims:
        style = _CLAIM_STYLES.get(one.verdict, "")
        text = f"{escape(one.claim.text)}: {escape(one.words)}"
        console.print(
            f"claim [{style}]{one.verdict}[/{style}]: {text}" if style else f"claim {one.verdict}: {text}", highlight=False
        )
    for text in answer.cautions(findings):
        _say(console, f"note: {text}")
    if files:
        more = f" and {len(files) - 1} more files beside it" if len(files) > 1 else ""
        console.print(f"everything is in {escape(str(files[0]))}{more}", highlight=False, soft_wrap=True)


def _say(console: Console, text: str) -> None:
    console.print(text, markup=False, highlight=False)


def _grid(findings: Findings, *, narrow: bool) -> Grid:
    table = tables.results(findings)
    left_out = ("p (Holm)", "failed") if narrow else ()
    shown = [k for k, column in enumerate(table.columns) if column.title not in left_out]
    longest = max(len(cells[0]) for cells in table.cells)
    grid = Grid(box=None, padding=(0, 1 if narrow else 2, 0, 0))
    for k in shown:
        column = table.columns[k]
        title = column.title.replace(" (", "\n(") if narrow else column.title
        # The name alone may be folded: a number on two lines is none.
        folds = k == 0
        grid.add_column(
            escape(title),
            justify="right" if column.is_number else "left",
            overflow="fold",
            no_wrap=not folds,
            min_width=min(longest, _NAME) if folds else None,
        )
    for row, cells in zip(table.rows, table.cells, strict=True):
        grid.add_row(*(escape(cells[k]) for k in shown), style=_STYLES.get(row["verdict"], ""))
    return grid
