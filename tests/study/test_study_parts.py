"""Parts of a study's report on their own: wording, the front of costs, what is on the screen, the command."""

import io
import re

import pytest
from made_sweep import make_sweep
from matplotlib.figure import Figure
from rich.console import Console
from typer.testing import CliRunner

from cifar_lab.analysis.figures import COLUMN
from cifar_lab.cli import app
from cifar_lab.stats import Interval
from cifar_lab.study import wording
from cifar_lab.study.design import load_study
from cifar_lab.study.inline import svg
from cifar_lab.study.naming import short_labels
from cifar_lab.study.pareto import front
from cifar_lab.study.pictures import course, curves, differences, fit, seeds
from cifar_lab.study.screen import show_report
from cifar_lab.study.verdicts import judge

NAMES = ("baseline", "a_name_that_is_longer_than_most_names_are", "kernel5")
ACCURACIES = {f"ablation={name}": [0.70 + 0.02 * k + 0.001 * ((s + k) % 3) for s in range(8)] for k, name in enumerate(NAMES)}


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    return make_sweep(tmp_path_factory.mktemp("sweeps") / "kernel", ACCURACIES)


def shown(findings, width: int) -> list[str]:
    stream = io.StringIO()
    show_report(findings, console=Console(file=stream, width=width))
    return stream.getvalue().splitlines()


@pytest.mark.parametrize("width", [80, 120])
def test_a_window_of_any_width_shows_every_number_whole(sweep, width):
    lines = shown(judge(load_study(sweep)), width)
    assert max(map(len, lines)) <= width
    row = next(line for line in lines if line.startswith("kernel5"))
    assert re.search(r"\b8 +74\.10 ± 0\.09 +\+4\.01 +\+3\.88 to \+4\.14 .*▲ better", row)


def test_numbers_in_words():
    assert wording.value("test_accuracy", 0.91234) == "91.23"
    assert wording.difference("test_accuracy", -0.0123) == "−1.23"
    assert wording.ends("test_accuracy", Interval(-0.002, 0.011)) == "−0.20 to +1.10"
    assert wording.margin("test_accuracy", 0.005) == "±0.5 points"
    assert wording.value("macs", 6_200_000) == "6.2 M"
    assert wording.value("latency_ms", 0.40) == "0.400"
    assert wording.value("test_loss", None) == wording.DASH
    assert wording.p_text(0.0) == "< 0.001"
    assert wording.p_text(0.0496) == "0.050"
    assert wording.listed(["a", "b", "c", "d", "e", "f"]) == "a, b, c, d and 2 more"
    assert wording.listed(["a"]) == "a"
    assert wording.listed(["lr=1, width=2", "lr=1, width=4", "x"]) == "lr=1, width=2; lr=1, width=4 and x"


def test_front_holds_what_nothing_beats():
    points = [(1, 0.70), (1, 0.72), (2, 0.71), (3, 0.75), (4, 0.75), (0.5, 0.60)]
    found = front(points)
    assert found == [5, 1, 3]
    for place, (cost, value) in enumerate(points):
        beaten = any(c <= cost and v >= value and (c, v) != (cost, value) for c, v in points)
        assert (place in found) == (not beaten)


def test_curves_are_means_with_the_lowest_and_highest_run(tmp_path):
    rows = {("a=1", 0): [0.1, None, 0.5], ("a=1", 1): [0.3, 0.4, 0.7, 0.8]}
    study = load_study(make_sweep(tmp_path / "s", {"a=1": [0.5, 0.6, "waiting"]}, curves=rows))
    found = course(study.variants["a=1"], "val_accuracy")
    assert [(epoch, low, high) for epoch, low, _, high in found] == [(1, 0.1, 0.3), (2, 0.4, 0.4), (3, 0.5, 0.7), (4, 0.8, 0.8)]
    assert [mean for _, _, mean, _ in found] == pytest.approx([0.2, 0.4, 0.6, 0.8])


def test_long_runs_are_thinned_and_keep_their_ends(tmp_path):
    rows = {("a=1", 0): [k / 1000 for k in range(1, 731)]}
    study = load_study(make_sweep(tmp_path / "s", {"a=1": [0.5]}, curves=rows, predictions=False))
    found = course(study.variants["a=1"], "val_accuracy")
    assert len(found) <= 102
    assert (found[0][0], found[-1][0]) == (1, 730)


def test_pictures_fit_a_column_and_carry_names_of_their_own(sweep):
    study = load_study(sweep)
    findings = judge(study)
    for picture in (differences(findings), seeds(findings), curves(study)):
        assert picture is not None
        assert picture.layout(True)[1] == COLUMN
        text = svg(picture.layout, picture.name, 'a "<b>" & c')
        ids = re.findall(r'\bid="([^"]+)"', text)
        assert ids
        assert all(one.startswith(f"{picture.name}-") for one in ids)
        assert 'aria-label="a &quot;&lt;b>&quot; &amp; c"' in text
        assert "<style" not in text
        assert "metadata" not in text


def test_a_mean_is_drawn_only_of_runs_that_all_got_there(tmp_path):
    rows = {("a=1", s): [0.5, 0.95] for s in range(3)} | {("a=2", s): [0.95] if s else [0.5] for s in range(3)}
    folder = make_sweep(tmp_path, {name: [0.9] * 3 for name in ("a=1", "a=2")}, curves=rows, study={"metric": "epochs_to_90"})
    picture = seeds(judge(load_study(folder)))
    draw, *size = picture.layout(False)
    figure = Figure(size)
    draw(figure)
    upright = [line for line in figure.axes[0].lines if len(line.get_xdata()) == 2 and line.get_color() == "black"]
    assert [set(line.get_xdata()) for line in upright] == [{2.0}]
    assert "never got there" in picture.caption


def test_names_in_pictures_are_short_and_told_apart():
    assert fit(["kernel5", "baseline"], 20) == ["kernel5", "baseline"]
    long = [f"lr=0.1, width={width}, augment=crop_flip" for width in (1, 2)]
    assert fit(long, 20) == ["0.1, 1, crop_flip", "0.1, 2, crop_flip"]
    alike = [f"a_name_that_is_the_same_{k}_up_to_the_middle_of_it" for k in range(12)]
    found = fit(alike, 20)
    assert len(set(found)) == 12
    assert max(map(len, found)) <= 20


def test_labels_leave_out_what_all_names_share():
    assert short_labels(["optimizer.lr=0.1,model.width=2", "optimizer.lr=0.01,model.width=2", ""]) == {
        "optimizer.lr=0.1,model.width=2": "lr=0.1, width=2",
        "optimizer.lr=0.01,model.width=2": "lr=0.01, width=2",
        "": "baseline",
    }
    assert short_labels(["model.widths=[1,2]", "model.widths=[3,4]"]) == {
        "model.widths=[1,2]": "[1,2]",
        "model.widths=[3,4]": "[3,4]",
    }
    assert short_labels(["a.size=1,b.size=1", "a.size=2,b.size=1"])["a.size=2,b.size=1"] == "a.size=2, b.size=1"


def test_command_writes_and_prints(sweep):
    done = CliRunner().invoke(app, ["report", str(sweep), "--no-gallery", "--tables", "md"])
    assert done.exit_code == 0, done.output
    assert "▲ better" in done.stdout
    assert (sweep / "tables" / "results.md").is_file()
    assert all((sweep / f"report.{kind}").is_file() for kind in ("html", "csv", "json"))


def test_command_without_a_sweep_says_so(tmp_path, capfd):
    done = CliRunner().invoke(app, ["report", str(tmp_path)])
    assert done.exit_code == 3
    assert "plan.json" in done.stderr + capfd.readouterr().err
