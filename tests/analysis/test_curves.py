"""What lies in the picture of a run: its lines, gaps, marks and scales."""

import math

import pytest
from matplotlib.figure import Figure
from PIL import Image
from rig import heard

from cifar_lab.analysis import curves
from cifar_lab.analysis.curves import draw_curves, save_curves


def rows(epochs: int, *, every: int = 1, lr: float = 0.1) -> list[dict[str, float | None]]:
    """An epoch's columns as metrics.jsonl has them, validated every so many epochs."""
    made: list[dict[str, float | None]] = []
    for epoch in range(1, epochs + 1):
        row = {"epoch": epoch, "lr": lr, "train_loss": 2.0 / epoch, "train_accuracy": 1 - 0.8 / epoch}
        seen = epoch % every == 0
        made.append({**row, "val_loss": 2.5 / epoch if seen else None, "val_accuracy": 1 - 0.9 / epoch if seen else None})
    return made


@pytest.fixture
def drawn(monkeypatch) -> list[Figure]:
    """The figures that are drawn; they are looked at as they are, not as pixels."""
    figures: list[Figure] = []

    def keep(draw, width, height):
        figures.append(Figure(figsize=(width, height), dpi=100))
        draw(figures[-1])
        return b""

    monkeypatch.setattr(curves, "render", keep)
    return figures


def lines(figure: Figure, panel: int) -> dict[str, tuple[list[float], list[float]]]:
    """Label -> epochs and values of one panel's lines."""
    found = {str(line.get_label()): line for line in figure.axes[panel].lines}
    return {label: ([float(x) for x in line.get_xdata()], [float(y) for y in line.get_ydata()]) for label, line in found.items()}


def test_every_column_is_drawn_with_its_units(drawn):
    data = rows(12)
    draw_curves(data, run_name="my run", best_epoch=9)
    (figure,) = drawn
    epochs = [float(row["epoch"]) for row in data]
    losses, accuracies, rates = (lines(figure, panel) for panel in range(3))
    assert losses["training"] == (epochs, [row["train_loss"] for row in data])
    assert losses["validation"] == (epochs, [row["val_loss"] for row in data])
    assert accuracies["training"] == (epochs, pytest.approx([100 * row["train_accuracy"] for row in data]))
    assert accuracies["validation"] == (epochs, pytest.approx([100 * row["val_accuracy"] for row in data]))
    assert rates["learning rate"] == (epochs, [0.1] * 12)
    assert all(lines(figure, panel)["tested epoch (9)"][0] == [9, 9] for panel in range(3))
    assert figure.get_suptitle() == "my run"
    assert [axes.get_xlabel() for axes in figure.axes] == ["epoch"] * 3
    assert [axes.get_ylabel() for axes in figure.axes] == ["cross-entropy (nats)", "accuracy (%)", "learning rate"]


def test_an_early_stop_is_marked_after_the_last_epoch(drawn):
    draw_curves(rows(12), run_name="r", best_epoch=9, stopped_epoch=12)
    for panel in range(3):
        found = lines(drawn[0], panel)
        assert (found["tested epoch (9)"][0], found["stopped early (12)"][0]) == ([9, 9], [12, 12])
    draw_curves(rows(12), run_name="r", best_epoch=9)
    assert not [label for label in lines(drawn[1], 0) if label.startswith("stopped")]


def test_what_was_not_measured_is_a_gap_not_a_zero(drawn):
    data = rows(60, every=7)
    data[20]["train_loss"] = math.inf
    data[21]["train_loss"] = math.nan
    del data[22]["train_loss"]
    draw_curves(data, run_name="r")
    losses = lines(drawn[0], 0)
    assert losses["validation"][0] == [7, 14, 21, 28, 35, 42, 49, 56]
    assert losses["training"][0] == [e for e in range(1, 61) if e not in (21, 22, 23)]
    assert min(losses["training"][1]) > 0


def test_without_validation_there_is_no_line_and_no_name_for_it(drawn):
    data = [{k: v for k, v in row.items() if not k.startswith("val_")} for row in rows(5)]
    draw_curves(data, run_name="r")
    assert set(lines(drawn[0], 0)) == {"training"}
    assert [t.get_text() for t in drawn[0].axes[0].get_legend().get_texts()] == ["training"]


def test_a_panel_without_any_value_says_so(drawn):
    draw_curves([{"epoch": 1, "lr": 0.1}], run_name="r", best_epoch=1)
    assert [t.get_text() for t in drawn[0].axes[0].texts] == ["not measured"]
    assert [t.get_text() for t in drawn[0].axes[2].texts] == []


def test_one_epoch_is_a_visible_point(drawn):
    draw_curves(rows(1), run_name="r", best_epoch=1)
    for axes in drawn[0].axes:
        assert axes.lines[0].get_marker() == "o"
        assert axes.get_xticks().tolist() == [1]


def test_two_hundred_epochs_have_whole_ticks_and_no_markers(drawn):
    draw_curves(rows(200), run_name="r", best_epoch=187)
    for axes in drawn[0].axes:
        assert axes.lines[0].get_marker() in ("", "None")
        assert all(float(tick).is_integer() for tick in axes.get_xticks())
        assert len(axes.get_xticks()) <= 10


def test_scales_are_logarithmic_only_where_that_helps(drawn):
    wide = [{**row, "lr": 10.0 ** -row["epoch"], "train_loss": 10.0 ** -row["epoch"]} for row in rows(6)]
    draw_curves(wide, run_name="r")
    draw_curves(rows(6), run_name="r")
    draw_curves([{**row, "lr": 0.0 if row["epoch"] == 1 else 10.0 ** -row["epoch"]} for row in rows(6)], run_name="r")
    assert [[axes.get_yscale() for axes in figure.axes] for figure in drawn] == [
        ["log", "linear", "log"],
        ["linear", "linear", "linear"],
        ["linear", "linear", "linear"],  # a warm-up starts at zero, which has no logarithm
    ]


def test_a_constant_is_not_magnified(drawn):
    draw_curves(rows(5, lr=0.01), run_name="r")
    low, high = drawn[0].axes[2].get_ylim()
    assert low == 0
    assert 0.01 < high < 0.05


def test_no_rows_make_no_file_and_one_row_makes_a_picture(tmp_path, recwarn):
    save_curves(tmp_path, [], run_name="r")
    assert list(tmp_path.iterdir()) == []
    save_curves(tmp_path, rows(1), run_name="r", best_epoch=1)
    assert [path.name for path in tmp_path.iterdir()] == ["curves.png"]
    picture = Image.open(tmp_path / "curves.png")
    assert picture.size == (1320, 420)
    assert len(picture.convert("RGB").getcolors(100_000)) > 50
    assert not heard(recwarn)
