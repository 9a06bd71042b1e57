"""Which pictures are shown, and that what stands beside them is true."""

import numpy as np
import pytest
import torch
from fake_run import FakeRun
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from cifar_lab.analysis import samples
from cifar_lab.analysis.made import LeftOut
from cifar_lab.analysis.samples import (
    choose_samples,
    least_certain,
    one_per_class,
    samples_per_class,
    samples_worst,
    save_samples,
    worst_mistakes,
)

NAMES = ["cat", "dog", "a remarkably long name of a class"]


@pytest.fixture
def drawn(monkeypatch) -> list[Figure]:
    """The figures that are drawn; they are looked at as they are, not as pixels."""
    figures: list[Figure] = []

    def keep(draw, width, height):
        figures.append(Figure(figsize=(width, height), dpi=100, layout="constrained"))
        draw(figures[-1])
        return b""

    monkeypatch.setattr(samples, "render", keep)
    return figures


def cases(count: int, share_right: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pictures whose first pixel says which they are, labels, and probabilities of which this share is right."""
    rng = np.random.default_rng(seed)
    images = rng.integers(256, size=(count, 3, 8, 8), dtype=np.uint8)
    images[:, 0, 0, 0] = np.arange(count)
    labels = rng.integers(3, size=count)
    answer = np.where(np.arange(count) < round(share_right * count), labels, (labels + 1) % 3)
    probs = np.full((count, 3), 0.1)
    probs[np.arange(count), answer] = 0.8
    return images, labels, probs


@pytest.mark.parametrize(
    ("right", "wrong", "hits", "mistakes"),
    [(80, 20, 16, 8), (97, 3, 21, 3), (100, 0, 24, 0), (5, 95, 5, 19), (0, 50, 0, 24), (2, 1, 2, 1)],
)
def test_right_ones_come_first_and_a_third_are_mistakes_if_there_are_enough(right, wrong, hits, mistakes):
    flags = np.random.default_rng(1).permutation(np.array([True] * right + [False] * wrong))
    chosen = choose_samples(flags, seed=0, count=24)
    assert flags[chosen].tolist() == [True] * hits + [False] * mistakes
    assert len(set(chosen.tolist())) == len(chosen)


def test_the_choice_follows_the_seed():
    flags = np.random.default_rng(1).random(500) < 0.7
    assert choose_samples(flags, 3, 24).tolist() == choose_samples(flags, 3, 24).tolist()
    assert choose_samples(flags, 3, 24).tolist() != choose_samples(flags, 4, 24).tolist()


@pytest.mark.parametrize(("count", "share_right"), [(60, 0.7), (30, 1.0), (30, 0.0), (3, 0.67), (1, 1.0)])
def test_every_picture_is_labelled_with_the_truth(tmp_path, drawn, count, share_right):
    images, labels, probs = cases(count, share_right)
    save_samples(tmp_path, images, labels, probs, NAMES, run_name="my run")
    shown = [axes for axes in drawn[0].axes if axes.images]
    assert len(shown) == min(24, count)
    wrong = 0
    for axes in shown:
        picture = np.asarray(axes.images[0].get_array())
        index = int(picture[0, 0, 0])
        np.testing.assert_array_equal(picture, images[index].transpose(1, 2, 0))
        true, predicted = labels[index], probs[index].argmax()
        mark = "✓" if true == predicted else "✗"
        wrong += true != predicted
        assert axes.get_title().startswith(f"{mark} {NAMES[predicted][:6]}")
        assert axes.get_title().endswith("80 % sure")
        assert axes.get_xlabel().startswith(f"true: {NAMES[true][:6]}")
    accuracy = 100 * (probs.argmax(1) == labels).mean()
    expected = f"{len(shown)} of {count} test images, {wrong} of them mistaken (accuracy over all: {accuracy:.1f} %)"
    assert drawn[0].get_suptitle().endswith(expected)


def test_no_text_leaves_its_place(tmp_path, drawn):
    images, labels, probs = cases(40, 0.6)
    names = ["W" * 13, "a remarkably long name of a class", "m" * 40]
    save_samples(tmp_path, images, labels, probs, names, run_name="a run with a name that would not fit above the pictures, " * 4)
    figure = drawn[0]
    renderer = FigureCanvasAgg(figure).get_renderer()
    figure.draw_without_rendering()
    whole = figure.bbox
    title = figure._suptitle.get_window_extent(renderer)
    assert whole.x0 <= title.x0 < title.x1 <= whole.x1
    for axes in figure.axes:
        label = axes.xaxis.label.get_window_extent(renderer)
        heading = axes.title.get_window_extent(renderer)
        assert label.y1 <= axes.bbox.y0 + 1
        assert heading.y0 >= axes.bbox.y1 - 1


def test_the_picture_is_drawn_and_tensors_will_do(tmp_path, recwarn):
    images, labels, probs = cases(40, 0.6)
    save_samples(tmp_path, torch.from_numpy(images), torch.from_numpy(labels), probs, NAMES, run_name="my run")
    assert [path.name for path in tmp_path.iterdir()] == ["samples.png"]
    picture = Image.open(tmp_path / "samples.png")
    assert picture.size == (1072, 585)
    assert len(picture.convert("RGB").getcolors(1_000_000)) > 1000
    assert not recwarn.list


# Which mistakes are the worst


def test_the_surest_mistakes_and_the_least_certain_answers_by_sorting():
    rng = np.random.default_rng(4)
    confidence, right = rng.choice(np.linspace(0.1, 1.0, 40), size=300), rng.random(300) < 0.7
    worst = sorted((i for i in range(300) if not right[i]), key=lambda i: (-confidence[i], i))
    assert worst_mistakes(right, confidence, 24).tolist() == worst[:24]
    assert worst_mistakes(right, confidence, 1000).tolist() == worst
    assert least_certain(confidence, 24).tolist() == sorted(range(300), key=lambda i: (confidence[i], i))[:24]


def test_each_class_is_shown_once_and_a_class_without_images_not_at_all():
    labels = np.random.default_rng(5).permutation([0] * 50 + [1] * 3 + [3] * 20)
    chosen = one_per_class(labels, 5, seed=0)
    assert labels[chosen].tolist() == [0, 1, 3]
    assert chosen.tolist() == one_per_class(labels, 5, seed=0).tolist()
    assert chosen.tolist() != one_per_class(labels, 5, seed=1).tolist()


@pytest.mark.parametrize(("analysis", "column"), [(samples_per_class, True), (samples_worst, True), (samples_worst, False)])
def test_no_text_of_a_grid_leaves_its_place(analysis, column):
    run = FakeRun(44, count=300, names=tuple(f"long class name {i}" for i in range(44)))
    (layout,) = analysis(run).pictures.values()
    draw, width, height = layout(column)
    figure = Figure(figsize=(width, height), dpi=100, layout="constrained")
    draw(figure)
    renderer = FigureCanvasAgg(figure).get_renderer()
    title = figure._suptitle.get_window_extent(renderer)
    headings = [axes.title.get_window_extent(renderer) for axes in figure.axes]
    labels = [axes.xaxis.label.get_window_extent(renderer) for axes in figure.axes]
    assert min(title.x0, title.y0) >= 0
    assert title.y0 >= max(heading.y1 for heading in headings), "the title is above all pictures"
    assert title.y1 <= figure.bbox.y1 + 1
    room = figure.bbox.width / len({round(axes.bbox.x0) for axes in figure.axes})  # of one picture
    assert max(box.width for box in (*headings, *labels)) <= room


def test_numbers_name_the_images_that_are_shown():
    run = FakeRun(10, count=200)
    made = samples_worst(run).numbers["images"]
    right = run.predicted("test") == run.labels("test")
    expected = sorted(np.flatnonzero(~right), key=lambda i: -run.confidence("test")[i])[:24]
    assert [row["image"] for row in made] == [1000 + i for i in expected]
    assert all(row["true"] != row["predicted"] for row in made)
    assert [row["confidence"] for row in made] == [run.confidence("test")[i] for i in expected]


def test_a_run_without_a_mistake_has_no_worst_one():
    run = FakeRun(3, count=20)
    run._answers["test"][0][:] = 9 * np.eye(3, dtype=np.float32)[run.labels("test")]
    with pytest.raises(LeftOut, match="made no mistake"):
        samples_worst(run)
