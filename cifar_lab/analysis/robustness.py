"""How accuracy falls as pictures get worse: curves by severity, what the pictures look like, a table of CIFAR-10-C."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MultipleLocator

from cifar_lab.analysis.figures import QUIET_COLOR, headline, percent, save_figure

# Okabe and Ito, each with a mark of its own, so that no color has to be told from another.
_LINES = (("#0072b2", "o"), ("#d55e00", "s"), ("#009e73", "^"), ("#cc79a7", "D"), ("#000000", "v"), ("#e69f00", "P"))
_NAMES = {"jpeg": "JPEG", "jpeg_compression": "JPEG compression"}


def title_of(name: str) -> str:
    """``gaussian_blur`` as a person writes it."""
    return _NAMES.get(name, name.replace("_", " "))


def save_severities(
    folder: Path, results: Mapping[str, Mapping[str, Any]], found: Mapping[str, Any], formats: Sequence[str] = ("png",)
) -> list[Path]:
    """Write robustness.png: accuracy by severity, a line for each corruption, beginning at the clean pictures.

    Args:
        folder: Where to.
        results: Corruption -> ``accuracy``, a list of five, and ``mean``.
        found: ``run``, ``clean_accuracy``, ``images`` and ``corruptions`` are read, as robustness.json holds them.
        formats: See ``figures.save_figure``.
    """
    clean, ours = found["clean_accuracy"], found["corruptions"]

    def draw(figure: Figure) -> None:
        headline(figure, found["run"], f"accuracy on worse pictures, n = {found['images']:,} test images")
        axes = figure.subplots()
        order = sorted(results.items(), key=lambda item: -item[1]["accuracy"][-1])
        for (name, row), (color, marker) in zip(order, _LINES, strict=False):
            values = [100 * clean, *(100 * value for value in row["accuracy"])]
            label = f"{title_of(name)} (mean {percent(row['mean'])})"
            axes.plot(range(len(values)), values, color=color, marker=marker, markersize=6, linewidth=1.8, label=label)
        axes.axhline(100 * clean, color=QUIET_COLOR, linewidth=1, linestyle=":", label=f"clean pictures ({percent(clean)})")
        axes.set_xticks(range(6), labels=["clean", "1", "2", "3", "4", "5"])
        axes.set_xlabel(f"severity, as {ours['name']} version {ours['version']} defines it (not that of CIFAR-10-C)")
        axes.set_ylabel("accuracy (%)")
        axes.set_ylim(0, None)
        axes.yaxis.set_major_locator(MultipleLocator(10))
        axes.grid(axis="y")
        axes.set_axisbelow(True)
        axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), fontsize=10)

    return save_figure(folder / "robustness", draw, 10.0, 4.8, formats)


def save_examples(
    folder: Path, clean: np.ndarray, made: Mapping[str, np.ndarray], *, run_name: str, formats: Sequence[str] = ("png",)
) -> list[Path]:
    """Write robustness_examples.png: one picture under each corruption at each severity.

    Args:
        folder: Where to.
        clean: uint8 [3, H, W].
        made: Corruption -> uint8 [5, 3, H, W].
        run_name: For the title.
        formats: See ``figures.save_figure``.
    """

    def draw(figure: Figure) -> None:
        headline(figure, run_name, "one test picture at each severity")
        grid = figure.subplots(len(made), 6, squeeze=False)
        for row, (name, worse) in zip(grid, made.items(), strict=True):
            for column, (axes, picture) in enumerate(zip(row, [clean, *worse], strict=True)):
                axes.imshow(np.moveaxis(picture, 0, -1))
                axes.set(xticks=[], yticks=[])
                axes.spines[:].set_visible(False)
                if axes in grid[0]:
                    axes.set_title("clean" if column == 0 else f"severity {column}", fontsize=10)
            row[0].set_ylabel(title_of(name), fontsize=10, rotation=0, ha="right", va="center", labelpad=8)

    return save_figure(folder / "robustness_examples", draw, 9.0, 0.5 + 1.3 * len(made), formats)


def save_official(
    folder: Path, results: Mapping[str, Mapping[str, Any]], found: Mapping[str, Any], formats: Sequence[str] = ("png",)
) -> list[Path]:
    """Write robustness_cifar10c.png: accuracy for each corruption of CIFAR-10-C at each severity, as a table in color."""
    official = found["cifar10c"]
    names = sorted(results, key=lambda name: -results[name]["mean"])
    values = 100 * np.array([[*results[name]["accuracy"], results[name]["mean"]] for name in names])
    mean = official["mean_accuracy"]
    said = f"CIFAR-10-C, accuracy (%), n = {official['images']:,} images a cell"

    def draw(figure: Figure) -> None:
        headline(figure, found["run"], said)
        axes = figure.subplots()
        axes.imshow(values, cmap="Blues", vmin=0, vmax=100, aspect="auto")
        for (row, column), value in np.ndenumerate(values):
            axes.text(column, row, f"{value:.1f}", ha="center", va="center", fontsize=9, color="white" if value > 60 else "black")
        axes.set_xticks(range(6), labels=["1", "2", "3", "4", "5", "mean"])
        labels = [title_of(name) + ("" if results[name]["in_mean"] else " (extra)") for name in names]
        axes.set_yticks(range(len(names)), labels=labels)
        axes.axvline(4.5, color="white", linewidth=4)
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        mean_text = f"mean {mean * 100:.1f} % over {official['mean_of']}; " if mean is not None else ""
        axes.set_xlabel("severity")
        figure.supxlabel(f"{mean_text}clean pictures {percent(found['clean_accuracy'])}", fontsize=10)

    return save_figure(folder / "robustness_cifar10c", draw, 8.5, 1.6 + 0.34 * len(names), formats)
