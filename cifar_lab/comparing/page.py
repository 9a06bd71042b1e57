"""A comparison from folders to a folder: comparison.json, comparison.md, tables and pictures, and a table on the screen."""

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Table as Grid

from cifar_lab import storage
from cifar_lab.analysis import figures
from cifar_lab.analysis.typeset import Table, check_formats, save_table, to_markdown
from cifar_lab.comparing import pictures, tables
from cifar_lab.comparing.convergence import convergence, convergence_table
from cifar_lab.comparing.entries import MEASURES, Entry, check_same_test_set, default_name, load_entries
from cifar_lab.comparing.notes import notes_on
from cifar_lab.comparing.pairs import Pair, compare_pairs
from cifar_lab.display import table_console
from cifar_lab.errors import CheckpointError, ConfigError

DEFAULT = Path("outputs/compare")
_PAIRS_IN_WORDS = 10
_TURNED_UP_TO = 4  # entries that stand side by side on a screen


@dataclass
class Comparison:
    """All that is said and where it is.

    Args:
        entries: What was compared.
        pairs: Two at a time; empty where the answers cannot be compared.
        tables: In the order in which they are read.
        notes: What a reader must know before he believes the rest.
        folder: Where the files are.
        files: Their names.
    """

    entries: list[Entry]
    pairs: list[Pair]
    tables: list[Table]
    notes: list[str]
    folder: Path
    files: list[Path]

    def plain(self) -> dict[str, Any]:
        """For programs: content of comparison.json."""
        words, reached = tables.best_for(self.entries), convergence(self.entries)
        entries = []
        for entry, best, runs in zip(self.entries, words, reached, strict=True):
            low, high = tables.accuracy_interval(entry)
            entries.append(
                {
                    "label": entry.label,
                    "n": len(entry.runs),
                    "seeds": entry.seeds,
                    "folders": [str(run.path) for run in entry.runs],
                    "measures": {m: {"mean": entry.mean(m), "sd": entry.sd(m), "values": entry.values(m)} for m in MEASURES},
                    "test_accuracy_low": low,
                    "test_accuracy_high": high,
                    "test_accuracy_interval": "Wilson, 95 %" if len(entry.runs) == 1 else "mean plus and minus one sd",
                    "shared_device": entry.is_shared,
                    "best_for": best,
                    "validated": entry.validated,
                    "convergence": runs,
                }
            )
        return {
            "entries": entries,
            "pairs": [pair.plain() for pair in self.pairs],
            "notes": self.notes,
            "best_for_rule": tables.BEST_RULE,
            "files": [file.name for file in self.files],
        }


def compare(
    folders: Sequence[str],
    *,
    out: str | None = None,
    table_formats: Sequence[str] = ("csv", "md"),
    figure_formats: Sequence[str] = ("png",),
    data_root: str | None = None,
    unpaired: bool = False,
) -> Comparison:
    """Compare runs and write everything down.

    Args:
        folders: Run folders or evidence, two or more.
        out: Where it goes; None: outputs/compare/NAMES.
        table_formats: Of ``csv``, ``md``, ``tex``.
        figure_formats: Of ``png``, ``pdf``, ``svg``.
        data_root: Where the images are now, for pictures of them; where there is a single pair.
        unpaired: Compare runs of different test images, by tables, curves and cost only.

    Raises:
        CheckpointError: A folder is no finished run, or the runs answered different images.
        ConfigError: Fewer than two runs, one given twice, a format that is none, or ``data_root`` where no images are drawn.
    """
    check_formats(table_formats)
    figures.check_formats(figure_formats)
    entries = load_entries(folders)
    if not unpaired:
        check_same_test_set(entries)
    pairs = [] if unpaired else compare_pairs(entries)
    if data_root is not None:
        _require_one_pair(pairs)
    notes = notes_on(entries, pairs)
    folder = Path(out) if out else DEFAULT / default_name(folders)
    _refuse_run_folder(folder)
    found = [tables.runs_table(entries), *([tables.pairs_table(pairs)] if pairs else []), convergence_table(entries)]
    names = entries[0].runs[0].class_names
    if len(pairs) == 1:
        found.append(tables.classes_table(pairs[0], names))
    made = Comparison(entries, pairs, found, notes, folder, [])
    for table in found:
        made.files += save_table(folder, table, table_formats)
    made.files += pictures.draw_curves(folder, entries, figure_formats)
    made.files += pictures.draw_cost(folder, entries, figure_formats)
    if 0 < len(pairs) <= _PAIRS_IN_WORDS:
        made.files.append(_save_disagreements(folder, pairs, names))
    elif pairs:
        notes.append(
            f"{len(pairs)} pairs are only in the table of pairs: sentences and lists of images are for {_PAIRS_IN_WORDS} or fewer"
        )
    if len(pairs) == 1:
        made.files += pictures.draw_difference(folder, pairs[0], names, figure_formats)
        images, reason = pictures.test_images(pairs[0], data_root)
        if images is None:
            notes.append(
                f"no pictures of the images that only one side gets right: {reason} (--data-root DIR names their folder)"
            )
        elif pairs[0].counts.only_first + pairs[0].counts.only_second:
            made.files += pictures.draw_only_one_right(folder, pairs[0], images, names, figure_formats)
    made.files += [folder / "comparison.md", folder / "comparison.json"]
    storage.write_text(folder / "comparison.md", _page(made))
    storage.write_json(folder / "comparison.json", made.plain())
    return made


def _require_one_pair(pairs: Sequence[Pair]) -> None:
    """Only then are there pictures of images, for which ``data_root`` is."""
    if len(pairs) != 1:
        what = f"{len(pairs)} pairs get none" if pairs else "--unpaired compares no answers"
        raise ConfigError(f"--data-root is for pictures of the images that one of two sides gets right; {what}")


def _refuse_run_folder(folder: Path) -> None:
    """A comparison is no part of a run: its curves would take the place of the run's own."""
    if (folder / "result.json").exists():
        raise CheckpointError(f"--out {folder} is a run folder", hint="name a folder of its own", kept="nothing was written")


def _save_disagreements(folder: Path, pairs: Sequence[Pair], class_names: Sequence[str]) -> Path:
    """only_one_right.csv: of every pair every test image that one side alone gets right."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(
        ["first", "second", "first_seed", "second_seed", "right", "position", "true_class", "first_predicted", "second_predicted"]
    )
    for pair in pairs:
        labels, answers = pair.runs[0].labels(), [run.predicted() for run in pair.runs]
        for side, positions in zip(("first", "second"), pair.only_right, strict=True):
            for k in positions.tolist():
                writer.writerow(
                    [*pair.names, *pair.seeds, side, k, class_names[labels[k]], *(class_names[a[k]] for a in answers)]
                )
    storage.write_text(folder / "only_one_right.csv", text.getvalue())
    return folder / "only_one_right.csv"


def _page(made: Comparison) -> str:
    """Everything on one page of Markdown that opens where the folder lies."""
    parts = [f"# {' against '.join(entry.label for entry in made.entries)}\n"]
    parts += [f"- {sentence}" for sentence in sentences(made)]
    for table in made.tables:
        parts.append(f"\n## {table.name.capitalize()}\n\n{table.caption}\n\n{to_markdown(table)}")
        if table.name == "runs":
            parts.append(f"{tables.BEST_RULE}\n")
    shown = [file for file in made.files if file.suffix in (".png", ".svg")]
    seen = {file.stem: file for file in reversed(shown)}
    parts += [f"\n![{stem.replace('_', ' ')}]({seen[stem].name})" for stem in dict.fromkeys(file.stem for file in shown)]
    parts.append("\n## Runs compared\n")
    parts += [f"- {entry.label}: {', '.join(f'`{run.path}`' for run in entry.runs)}" for entry in made.entries]
    return "\n".join(parts) + "\n"


def sentences(made: Comparison) -> list[str]:
    """What was found, in words, and what to know before believing it."""
    found = []
    for pair in made.pairs if len(made.pairs) <= _PAIRS_IN_WORDS else ():
        text = pair.sentence()
        if pair.mean_interval and pair.mean_difference is not None:
            low, high = (100 * end for end in (pair.mean_interval.low, pair.mean_interval.high))
            mean = f"{100 * pair.mean_difference:+.2f} points (95 % t interval {low:+.2f} to {high:+.2f})"
            text += f" Over {len(pair.shared_seeds)} shared seeds {pair.names[0]} less {pair.names[1]} is {mean}."
        found.append(text)
    return [*found, *(f"note: {note}" for note in made.notes)]


def show(made: Comparison, *, as_json: bool) -> None:
    """Print the numbers for programs, or tables and sentences for people."""
    if as_json:
        plain = storage.read_json(made.folder / "comparison.json")
        print(json.dumps({**plain, "folder": str(made.folder)}, indent=2, ensure_ascii=False))
        return
    console = table_console()
    for table in made.tables:
        if table.name != "classes" and table.rows:
            console.print(_grid(table, turned=table.name in ("runs", "pairs") and len(table.rows) <= _TURNED_UP_TO))
            console.print()
    for sentence in sentences(made):
        console.print(sentence, markup=False, highlight=False)
    console.print(f"\neverything is in {escape(str(made.folder))}: comparison.md and {len(made.files) - 1} more", highlight=False)


def _grid(table: Table, *, turned: bool) -> Grid:
    """A table for the screen; turned, its columns are lines, which keeps few runs side by side."""
    heads, cells = [column.title for column in table.columns], table.cells
    if turned:
        lines = list(zip(heads, *cells, strict=True))
        (_, *heads), cells = lines[0], [list(line) for line in lines[1:]]
        heads = [table.columns[0].title, *heads]
    grid = Grid(box=None, padding=(0, 2, 0, 0), title=table.name, title_justify="left", title_style="bold")
    for place, head in enumerate(heads):
        is_number = place > 0 if turned else table.columns[place].is_number
        grid.add_column(escape(head), justify="right" if is_number else "left", overflow="fold")
    for line in cells:
        grid.add_row(*(escape(cell) for cell in line))
    return grid
