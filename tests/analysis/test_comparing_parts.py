"""What comparisons are made of: tables that LaTeX and Markdown accept, names that do not overlap, curves, milestones."""

import csv
import io
import itertools
import re
from types import SimpleNamespace

import numpy as np
import pytest
from latex import latex_cells
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from cifar_lab.analysis import contrast, overlay, tradeoff
from cifar_lab.analysis.convergence import milestones
from cifar_lab.analysis.figures import RUN_COLORS, render
from cifar_lab.analysis.typeset import Column, Table, escape_latex, save_table, to_csv, to_latex, to_markdown
from cifar_lab.comparing.pairs import _over_seeds
from cifar_lab.errors import ConfigError

NASTY = r"a_b & 50 % of $x$ #1 {c} ~d^e \f | <g> ± −1"


def table() -> Table:
    columns = [
        Column("run_name", lambda row: row["name"], is_number=False),
        Column("acc (%)", lambda row: f"{row['accuracy']:.1f} %"),
    ]
    rows = [{"name": NASTY, "accuracy": 12.345678901234567}, {"name": "plain", "accuracy": 99.0}]
    return Table("my_table", "Accuracy in % of A & B_1", columns, rows)


def test_latex_is_balanced_and_escaped():
    text = to_latex(table())
    rows = latex_cells(text)
    assert {len(row) for row in rows} == {2}
    assert rows[0] == [r"run\_name", r"acc (\%)"]
    assert rows[2] == ["plain", r"99.0\,\%"]
    assert r"\caption{Accuracy in\,\% of A \& B\_1}" in text
    assert r"\label{tab:my-table}" in text
    with pytest.raises(AssertionError):
        latex_cells(text.replace(r"run\_name", "run_name"))


def test_every_special_character_is_escaped_once():
    assert escape_latex("\\") == r"\textbackslash{}"
    assert escape_latex("{a}_^") == r"\{a\}\_\textasciicircum{}"
    assert escape_latex("50 %") == r"50\,\%"


def test_a_row_that_begins_with_a_bracket_is_no_option_of_the_break_before_it():
    rows = [{"name": name} for name in ("[1, 2]", "[3, 4]")]
    text = to_latex(Table("widths", "Widths", [Column("widths", lambda row: row["name"], is_number=False)], rows))
    assert [row[0] for row in latex_cells(text)] == ["widths", "{[}1, 2]", "{[}3, 4]"]


def test_csv_holds_plain_values_and_markdown_as_many_cells():
    rows = list(csv.reader(io.StringIO(to_csv(table()))))
    assert rows[0] == ["name", "accuracy"]
    assert rows[1][0] == NASTY
    assert float(rows[1][1]) == 12.345678901234567
    lines = to_markdown(table()).splitlines()
    assert lines[1] == "| --- | ---: |"
    assert all(len(re.findall(r"(?<!\\)\|", line)) == 3 for line in lines)


def test_a_format_that_is_none_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="--tables odt; must be of csv, md, tex"):
        save_table(tmp_path, table(), ["odt"])
    assert [file.name for file in save_table(tmp_path, table(), ["tex", "csv"])] == ["my_table.tex", "my_table.csv"]


def test_milestones_are_first_times():
    accuracies = [0.2, None, 0.55, 0.45, 0.71, 0.9]
    rows = [{"epoch": k + 1, "seconds": 10.0 + k, "val_accuracy": a} for k, a in enumerate(accuracies)]
    found = milestones(rows, images=100, before_s=5.0)
    assert [(one["epoch"], one["images"], one["seconds"]) for one in found] == [
        (3, 300, 5 + 10 + 11 + 12),
        (5, 500, 5 + 10 + 11 + 12 + 13 + 14),
        (6, 600, 5 + 10 + 11 + 12 + 13 + 14 + 15),
        (6, 600, 5 + 10 + 11 + 12 + 13 + 14 + 15),
    ]
    assert [one["epoch"] for one in milestones(rows[:2], images=1)] == [None] * 4
    assert milestones([], images=1)[0]["seconds"] is None


def points(count: int) -> list[tradeoff.Point]:
    """Crowded: half of them at nearly the same place."""
    chance = np.random.default_rng(0)
    made = []
    for k in range(count):
        accuracy = 0.7 + 0.002 * k if k % 2 else float(chance.uniform(0.3, 0.95))
        macs = 1e7 * (1 + 0.02 * k) if k % 2 else float(10 ** chance.uniform(5, 9))
        made.append(tradeoff.Point(f"model_{k} lr=0.00{k}", accuracy, accuracy - 0.009, accuracy + 0.009, macs / 10, macs))
    return made


@pytest.mark.parametrize("count", [1, 2, 8])
def test_names_beside_points_cover_nothing(count):
    figure = Figure(figsize=tradeoff.SIZE, dpi=100)
    FigureCanvasAgg(figure)
    boxes = tradeoff.draw_tradeoff(figure, points(count), "95 % intervals")
    assert len(boxes) == 2 * count
    assert not [1 for a, b in itertools.combinations(boxes, 2) if a.overlaps(b)]
    for axes, own in zip(figure.axes, (boxes[:count], boxes[count:]), strict=True):
        assert axes.get_xscale() == "log"
        inside = axes.get_window_extent()
        assert all(inside.x0 <= b.x0 and b.x1 <= inside.x1 and inside.y0 <= b.y0 and b.y1 <= inside.y1 for b in own)
        places = [axes.transData.transform((x, y)) for line in axes.lines for x, y in np.column_stack(line.get_data())]
        assert not [1 for x, y in places for b in own if b.x0 < x < b.x1 and b.y0 < y < b.y1]


def test_too_many_names_go_into_a_legend():
    figure = Figure(figsize=tradeoff.SIZE, dpi=100)
    FigureCanvasAgg(figure)
    assert tradeoff.draw_tradeoff(figure, points(70), "bars") == []
    (legend,) = figure.legends
    assert len(legend.get_texts()) == 70
    assert not [text for axes in figure.axes for text in axes.texts]


def test_counts_are_short():
    assert [tradeoff.short_count(value) for value in (632_268, 7_694_848, 2e9, 999)] == ["632 k", "7.69 M", "2 G", "999"]


def test_curves_draw_what_was_measured():
    rows = [{"epoch": k, "seconds": 2.0, "val_loss": 1 / k, "val_accuracy": None if k == 2 else 0.1 * k} for k in (1, 2, 3)]
    figure = Figure(figsize=overlay.SIZE, layout="constrained")
    FigureCanvasAgg(figure)
    overlay.draw_overlay(figure, [overlay.Curves("a_b$", [rows], [5.0], [3]), overlay.Curves("none", [[]], [0.0], [None])])
    losses, accuracies, times = figure.axes
    first, best = losses.lines[:2]
    np.testing.assert_allclose(first.get_xydata(), [[1, 1], [2, 1 / 2], [3, 1 / 3]])
    np.testing.assert_allclose(best.get_xydata(), [[3, 1 / 3]])
    np.testing.assert_allclose(accuracies.lines[0].get_xydata(), [[1, 10], [3, 30]])
    np.testing.assert_allclose(times.lines[0].get_xydata(), [[7, 10], [11, 30]])
    assert first.get_color() == RUN_COLORS[0]
    assert first.get_linestyle() == "-"
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["a_b$", "none", "epoch that was tested"]
    assert len({overlay.line_style(k) for k in range(24)}) == 24


def test_pictures_of_two_sides_hold_the_right_images():
    labels = np.array([0, 1, 2, 0, 1, 2])
    first, second = np.array([0, 1, 0, 0, 0, 2]), np.array([0, 0, 2, 0, 1, 1])
    images = np.zeros((6, 3, 4, 4), np.uint8) + np.arange(6, dtype=np.uint8)[:, None, None, None]
    names = ("zero", "one", "two")
    drawn: list[Figure] = []

    def draw(figure: Figure) -> None:
        contrast.draw_only_one_right(figure, images, labels, (first, second), names, ("A", "B"), most=16, seed=0)
        drawn.append(figure)

    assert render(draw, *contrast.only_one_right_size((2, 2), 16)).startswith(b"\x89PNG")
    shown = [(int(np.asarray(axes.images[0].get_array())[0, 0, 0]), [t.get_text() for t in axes.texts]) for axes in drawn[0].axes]
    assert shown == [
        (1, ["✓ one", "✗ zero"]),
        (5, ["✓ two", "✗ one"]),
        (2, ["✓ two", "✗ zero"]),
        (4, ["✓ one", "✗ zero"]),
    ]
    titles = [text.get_text() for text in drawn[0].texts]
    assert "right by A only: all 2" in titles
    assert "right by B only: all 2" in titles


def test_the_matrix_shows_signed_numbers_but_no_zeros():
    difference = np.array([[5, -3, -2], [0, 0, 0], [-12, 4, 8]])
    drawn: list[Figure] = []

    def draw(figure: Figure) -> None:
        contrast.draw_difference(figure, difference, ("a", "b", "c"), "one", "two")
        drawn.append(figure)

    assert render(draw, *contrast.difference_size(("a", "b", "c"))).startswith(b"\x89PNG")
    axes = drawn[0].axes[0]
    numbers = {tuple(map(int, reversed(text.get_position()))): text.get_text() for text in axes.texts}
    assert numbers == {(0, 0): "+5", (0, 1): "−3", (0, 2): "−2", (2, 0): "−12", (2, 1): "+4", (2, 2): "+8"}
    low, high = axes.images[0].get_clim()
    assert (low, high) == (-12, 12), "white is nothing"
    suptitle = drawn[0].get_suptitle()
    assert suptitle == "one less two: +13 right"


def test_equal_differences_over_shared_seeds_show_no_spread():
    def entry(*accuracies: float):
        runs = [SimpleNamespace(result={"seed": k}, metrics={"test": {"accuracy": a}}) for k, a in enumerate(accuracies)]
        return SimpleNamespace(runs=runs)

    assert _over_seeds(entry(0.72, 0.71), entry(0.71, 0.70), (0, 1)) == (None, None)
    mean, interval = _over_seeds(entry(0.72, 0.72), entry(0.71, 0.70), (0, 1))
    assert mean == pytest.approx(0.015)
    assert interval is not None
    # t(0.975, 1) = 12.706, standard error 0.005
    assert interval == pytest.approx((0.015 - 0.06353, 0.015 + 0.06353), abs=1e-5)
