"""Counts against scikit-learn and by hand; the table is read back; pictures are drawn for 2 to 100 classes."""

import csv
import io

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image
from rig import heard
from sklearn.metrics import confusion_matrix

from cifar_lab.analysis import confusion
from cifar_lab.analysis.confusion import confusion_counts, draw_confusion, save_confusion


def answers(num_classes: int, count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities that are right somewhat more often than by chance, and labels."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(num_classes, size=count)
    scores = rng.random((count, num_classes))
    scores[np.arange(count), labels] += 0.3
    return scores / scores.sum(axis=1, keepdims=True), labels


def read_table(path) -> tuple[list[str], np.ndarray]:
    header, *rows = csv.reader(path.read_text(encoding="utf-8").splitlines())
    return header, np.array(rows, dtype=np.int64)


def pixels(png: bytes) -> Image.Image:
    assert png.startswith(b"\x89PNG")
    picture = Image.open(io.BytesIO(png))
    picture.load()
    return picture


@pytest.fixture
def texts(monkeypatch) -> list[str]:
    """Every text of the pictures that are drawn; nothing is rendered."""
    found: list[str] = []

    def look(draw, width, height):
        figure = Figure(figsize=(width, height), dpi=100)
        draw(figure)
        found.extend(t.get_text() for t in figure.findobj(Text))
        return b""

    monkeypatch.setattr(confusion, "render", look)
    return found


def test_counts_by_hand_with_the_true_class_in_the_row():
    probs = np.array([[0.9, 0.1, 0.0], [0.2, 0.8, 0.0], [0.6, 0.4, 0.0], [0.5, 0.5, 0.0]])
    counts = confusion_counts(probs, np.array([0, 0, 1, 1]))
    assert counts.tolist() == [[1, 1, 0], [2, 0, 0], [0, 0, 0]]
    assert counts.dtype == np.int64


@pytest.mark.parametrize("num_classes", [2, 10, 100])
def test_counts_and_table_against_scikit_learn(tmp_path, num_classes):
    probs, labels = answers(num_classes, 2000)
    names = [f"class {i}" for i in range(num_classes)]
    counts = save_confusion(tmp_path, probs, labels, names, run_name="run", picture=False)
    expected = confusion_matrix(labels, probs.argmax(1), labels=range(num_classes))
    np.testing.assert_array_equal(counts, expected)
    header, table = read_table(tmp_path / "confusion_matrix.csv")
    assert header == names
    np.testing.assert_array_equal(table, expected)
    assert not (tmp_path / "confusion_matrix.png").exists()


def test_names_with_commas_quotes_and_other_letters_are_read_back(tmp_path):
    probs, labels = answers(4, 50)
    names = ["cat, domestic", 'the "dog"', "größer", "日本"]
    save_confusion(tmp_path, probs, labels, names, run_name="run", picture=False)
    header, table = read_table(tmp_path / "confusion_matrix.csv")
    assert header == names
    np.testing.assert_array_equal(table, confusion_counts(probs, labels))


def test_ten_classes_show_every_count_and_percentage(tmp_path, texts):
    probs, labels = answers(10, 1000)
    names = [f"kind {i}" for i in range(10)]
    counts = save_confusion(tmp_path, probs, labels, names, run_name="my run", split="validation")
    accuracy = 100 * (probs.argmax(1) == labels).mean()
    assert f"my run: accuracy {accuracy:.1f} %, n = 1,000 validation images" in texts
    assert {"images", "percent of the true class", "true class", "predicted class", *names} <= set(texts)
    shown = [text for text in texts if text.isdecimal()]
    assert all(str(n) in shown for n in counts[counts > 0])
    assert all(f"{100 * n / row.sum():.1f}" in texts for row in counts for n in row if n > 0)


def test_a_class_without_images_and_rare_mistakes(texts):
    counts = np.array([[19_998, 2, 0], [0, 5000, 0], [0, 0, 0]])
    draw_confusion(counts, ["a", "b", "never"], run_name="r")
    assert "<0.1" in texts
    assert "0.0" not in texts
    assert "nan" not in " ".join(texts)


def test_long_names_are_shortened_and_a_hundred_classes_have_no_numbers(texts):
    probs, labels = answers(100, 1000)
    names = [f"a class with quite a long name, number {i}" for i in range(100)]
    draw_confusion(confusion_counts(probs, labels), names, run_name="r")
    assert "a class with…ber 99" in texts
    assert max(len(text) for text in texts if text.startswith("a class")) <= 20
    assert not any(text in texts for text in ("<1", "<0.1"))


def test_names_are_not_read_as_mathematics(tmp_path, recwarn):
    # Either name would be refused as a formula.
    save_confusion(tmp_path, np.eye(2), np.arange(2), ["$x", "$\\frac$"], run_name="$\\oops_$")
    picture = pixels((tmp_path / "confusion_matrix.png").read_bytes())
    assert picture.size[0] > picture.size[1] > 400
    assert not heard(recwarn)


@pytest.mark.parametrize("num_classes", [10, 100])
def test_pictures_are_drawn(num_classes, recwarn):
    probs, labels = answers(num_classes, 1000)
    picture = pixels(draw_confusion(confusion_counts(probs, labels), [f"class {i}" for i in range(num_classes)], run_name="r"))
    assert picture.size[0] > 1.8 * picture.size[1] > 1000
    assert not heard(recwarn)
