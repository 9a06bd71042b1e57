"""How a picture is made: a Figure without pyplot, matplotlib's own style, PNG bytes.

pyplot would choose a back end for the whole process, and a ``matplotlibrc`` of the user's would make the
pictures of two machines differ.
"""

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

from cifar_lab import storage
from cifar_lab.errors import ConfigError

DPI = 100
TRAIN_COLOR, VAL_COLOR = "#0072b2", "#d55e00"  # Okabe and Ito: told apart by colour-blind readers
GOOD_COLOR, BAD_COLOR = "#00805c", "#c1272d"
QUIET_COLOR = "#666666"
RUN_COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#b8a800")  # one per run, likewise
FORMATS = ("png", "pdf", "svg")
_SMALLEST_HEADLINE = 9.0  # points
_SMALLEST_OF_TWO, _LARGEST_OF_TWO = 7.0, 9.0  # points, of a title on two lines
COLUMN, PAGE = 3.5, 7.0  # inches: one column of a paper, and its whole width
_NARROW = 5.0  # inches; a narrower picture has its title on two lines
_NO_DATE: dict[str, dict[str, Any]] = {"png": {"Software": None}, "pdf": {"CreationDate": None}, "svg": {"Date": None}}
Drawing = tuple[Callable[[Figure], None], float, float]
"""What fills a figure, and the figure's width and height in inches."""
Layout = Callable[[bool], Drawing]
"""A picture in two forms: for a screen (False), and for one column of a paper (True) with its panels below each other."""
_OPTIONS: dict[str, dict[str, Any]] = {"png": {"pil_kwargs": {"optimize": True}}}

_STYLE: dict[Any, Any] = {
    **{key: value for key, value in matplotlib.rcParamsDefault.items() if key != "backend"},
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 11,
    "axes.labelsize": 10,
    "grid.color": "#dddddd",
    "legend.frameon": False,
    "pdf.fonttype": 42,  # TrueType, whole: journals refuse matplotlib's default
    "svg.hashsalt": "cifar-lab",  # the same bytes each time
}

_COLUMN_STYLE: dict[Any, Any] = {
    **_STYLE,
    **dict.fromkeys(("font.size", "axes.labelsize", "xtick.labelsize", "ytick.labelsize", "legend.fontsize"), 7.0),
    **{"axes.titlesize": 8.0, "axes.linewidth": 0.6, "xtick.major.width": 0.6, "ytick.major.width": 0.6},
}


def render(draw: Callable[[Figure], None], width: float, height: float, format: str = "png", *, column: bool = False) -> bytes:
    """Let ``draw`` fill a figure.

    Args:
        draw: Puts axes and artists on the figure it is given.
        width: Inches, of 100 pixels each.
        height: Inches.
        format: ``png``, ``pdf`` with embedded fonts, or ``svg`` whose letters are paths.
        column: Letters of the size that one column of a paper takes.

    Returns:
        The file's content, the same bytes for the same picture.
    """
    with matplotlib.rc_context(_COLUMN_STYLE if column else _STYLE):
        figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained")
        FigureCanvasAgg(figure)
        draw(figure)
        made = io.BytesIO()
        figure.savefig(made, format=format, metadata=_NO_DATE[format], **_OPTIONS.get(format, {}))
    return made.getvalue()


def parse_formats(text: str) -> tuple[str, ...]:
    """The formats that a person names, such as ``pdf,svg``, before any work is done for them.

    Raises:
        ConfigError: A format that is none.
    """
    formats = tuple(name.strip() for name in text.split(",") if name.strip())
    check_formats(formats)
    return formats


def save_figure(
    path: Path, draw: Callable[[Figure], None], width: float, height: float, formats: Sequence[str] = ("png",)
) -> list[Path]:
    """Draw once for each format and write ``path`` with that suffix; see ``render``.

    Returns:
        The files.

    Raises:
        ConfigError: A format that is none.
    """
    check_formats(formats)
    files = [path.with_name(f"{path.name}.{name}") for name in formats]
    for file, name in zip(files, formats, strict=True):
        storage.write_bytes(file, render(draw, width, height, name))
    return files


def save_layout(path: Path, layout: Layout, formats: Sequence[str]) -> list[Path]:
    """Write ``path`` with the suffix of each format: ``png`` as for a screen, ``pdf`` and ``svg`` as for one column of a paper.

    Returns:
        The files.
    """
    check_formats(formats)
    files = [path.with_name(f"{path.name}.{name}") for name in formats]
    for file, name in zip(files, formats, strict=True):
        column = name != "png"
        storage.write_bytes(file, render(*layout(column), name, column=column))
    return files


def check_formats(formats: Sequence[str]) -> None:
    """Refuse, with ``ConfigError``, a format that is none, and no format at all."""
    if not formats or set(formats) - set(FORMATS):
        raise ConfigError(f"--figures {','.join(formats)}; must be of {', '.join(FORMATS)}")


def headline(figure: Figure, name: str, rest: str = "") -> Text:
    """Write ``name: rest`` above all axes, as large as fits; a name that is too long even so is shortened.

    A narrow picture has the two on lines of their own.

    Args:
        figure: As wide as it will be.
        name: Of the run.
        rest: Shown in full.

    Returns:
        The title.
    """
    width = figure.get_figwidth()
    if width < _NARROW:
        letters = int(72 * width / (0.6 * _SMALLEST_OF_TWO))
        lines = [shorten(name, letters), *filter(None, [rest])]
        size = min(_LARGEST_OF_TWO, *(72 * width / (0.6 * len(line)) for line in lines))
        return figure.suptitle("\n".join(lines), fontsize=size, parse_math=False)
    rest = f": {rest}" if rest else ""
    # A letter of the standard font is 0.6 of its size wide, a little more than it needs on average.
    fits = int(72 * width / (0.6 * _SMALLEST_HEADLINE)) - len(rest)
    text = shorten(name, max(fits, 12)) + rest
    largest = max(13.0, width)  # points; a picture of 100 classes is looked at from further away
    return figure.suptitle(text, fontsize=min(largest, 72 * width / (0.6 * len(text))), parse_math=False)


def shorten(name: str, length: int) -> str:
    """A name that fits: its middle, the least telling part, gives way to an ellipsis."""
    name = " ".join(name.split())
    if len(name) <= length:
        return name
    tail = (length - 1) // 3
    return f"{name[: length - 1 - tail].rstrip()}…{name[-tail:].lstrip()}"


def percent(fraction: float) -> str:
    """A share as text, such as 91.3 %."""
    return f"{100 * fraction:.1f} %"
