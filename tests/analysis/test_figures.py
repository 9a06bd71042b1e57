"""How pictures are made: bytes that repeat, a user's settings left alone, titles that fit."""

import io
import subprocess
import sys

import matplotlib
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from cifar_lab.analysis.figures import BAD_COLOR, GOOD_COLOR, TRAIN_COLOR, VAL_COLOR, headline, percent, render, shorten


def test_size_and_repeatable_bytes():
    def draw(figure: Figure) -> None:
        figure.subplots().plot([1, 2, 3])

    png = render(draw, 5.0, 3.0)
    picture = Image.open(io.BytesIO(png))
    assert picture.size == (500, 300)
    assert "Software" not in picture.info
    assert render(draw, 5.0, 3.0) == png


def test_a_users_style_is_neither_used_nor_changed():
    def draw(figure: Figure) -> None:
        figure.subplots().plot([1, 2, 3])

    png = render(draw, 3.0, 2.0)
    with matplotlib.rc_context({"axes.facecolor": "red", "font.size": 30, "savefig.dpi": 20}):
        before = dict(matplotlib.rcParams)
        assert render(draw, 3.0, 2.0) == png
        assert dict(matplotlib.rcParams) == before


def test_pyplot_is_not_imported_by_drawing():
    code = "import sys; from cifar_lab.analysis.figures import render; render(lambda figure: figure.subplots(), 1.0, 1.0)"
    code += "; print('matplotlib.pyplot' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize("width", [5.4, 13.2, 30.0])
@pytest.mark.parametrize("length", [1, 40, 120, 400])
@pytest.mark.parametrize("letter", ["m", "_", "i"])
def test_a_title_fits_whatever_its_length(width, length, letter):
    figure = Figure(figsize=(width, 3.0), dpi=100)
    rest = "accuracy 91.3 %, n = 10,000 test images"
    headline(figure, (letter + "/resnet18")[:9] * (length // 9 + 1), rest)
    title = figure._suptitle
    assert title.get_text().endswith(rest)
    assert title.get_fontsize() >= 8.0
    assert title.get_window_extent(FigureCanvasAgg(figure).get_renderer()).width <= 100 * width


def test_names_are_shortened_in_the_middle():
    assert shorten("automobile", 10) == "automobile"
    assert shorten("  a   b ", 10) == "a b"
    assert shorten("abcdefghijklmno", 10) == "abcdef…mno"
    assert all(len(shorten("x y" * 20, length)) <= length for length in range(4, 30))


def test_shares_as_percent():
    assert percent(0.9126) == "91.3 %"
    assert percent(1.0) == "100.0 %"


def luminance(color: str) -> float:
    """Relative luminance of WCAG 2."""
    parts = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("color", [GOOD_COLOR, BAD_COLOR])
def test_small_coloured_text_has_contrast_on_white(color):
    assert 1.05 / (luminance(color) + 0.05) >= 4.5


def test_the_two_curves_differ_for_the_colour_blind():
    # Machado et al., 2009, severity 1: protanopia, deuteranopia, tritanopia.
    matrices = [
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
    ]
    for matrix in matrices:
        seen = []
        for color in (TRAIN_COLOR, VAL_COLOR):
            parts = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
            seen.append([sum(m * c for m, c in zip(row, parts, strict=True)) for row in matrix])
        assert sum((a - b) ** 2 for a, b in zip(*seen, strict=True)) ** 0.5 > 0.3
