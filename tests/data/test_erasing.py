"""Random erasing: torchvision's rectangles, by distribution, and exactly those pixels set to the mean color."""

import math

import numpy as np
import pytest
import torch
import torchvision.transforms.v2.functional as tv
from scipy import stats
from tensors import LAYOUTS, shown, stored
from torchvision.transforms import v2

from cifar_lab.config import AugmentConfig
from cifar_lab.data import erasing

ON = AugmentConfig(erase_probability=1.0)
HEIGHT, WIDTH = 20, 28


def drawn(config: AugmentConfig, count: int, seed: int = 0) -> torch.Tensor:
    return erasing.draw_rectangles(config, seed=seed, epoch=0, ids=torch.arange(count), height=HEIGHT, width=WIDTH)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_exactly_the_rectangle_is_erased(layout):
    rectangles = drawn(AugmentConfig(erase_probability=0.7), 60)
    images = torch.randn(60, 3, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(1)) * 100
    made = shown(erasing.erase_(stored(images, layout).clone(), rectangles), layout)
    for one, image, (top, left, height, width) in zip(made, images, rectangles.tolist(), strict=True):
        expected = tv.erase(image, top, left, height, width, torch.zeros(3, 1, 1)) if height else image
        assert torch.equal(one, expected)
    assert 0 < (rectangles[:, 2] == 0).sum() < 40


def test_rectangles_are_distributed_as_torchvisions():
    """Two samples: every pair of sides, and places given the sides."""
    torch.manual_seed(0)
    peer, image = v2.RandomErasing(p=1.0), torch.zeros(3, HEIGHT, WIDTH)
    theirs = []
    for _ in range(4000):
        params = peer.make_params([image])
        theirs.append((params["i"], params["j"], params["h"], params["w"]))
    ours, theirs = drawn(ON, 40_000).numpy(), np.array(theirs)
    for made in (lambda r: r[:, 2], lambda r: r[:, 3], lambda r: r[:, 2] * r[:, 3] // 20, lambda r: r[:, 0], lambda r: r[:, 1]):
        one, other = made(ours), made(theirs)
        length = int(max(one.max(), other.max())) + 1
        counts = np.stack([np.bincount(one, minlength=length), np.bincount(other, minlength=length)])
        often = counts.sum(0) * len(theirs) / len(ours) >= 8
        counts = np.concatenate([counts[:, often], counts[:, ~often].sum(1, keepdims=True)], axis=1)
        counts = counts[:, counts.sum(0) > 0]
        assert stats.chi2_contingency(counts).pvalue > 1e-3


def test_rectangles_lie_inside_and_keep_to_area_and_ratio():
    config = AugmentConfig(erase_probability=1.0, erase_min_area=0.1, erase_max_area=0.2)
    top, left, height, width = drawn(config, 20_000).double().unbind(1)
    assert top.min() == left.min() == 0
    assert (top + height).max() == HEIGHT
    assert (left + width).max() == WIDTH
    # Each side is rounded by at most a half.
    assert ((height + 0.5) * (width + 0.5) >= 0.1 * HEIGHT * WIDTH).all()
    assert ((height - 0.5) * (width - 0.5) <= 0.2 * HEIGHT * WIDTH).all()
    assert ((height + 0.5) / (width - 0.5) >= 0.3).all()
    assert ((height - 0.5) / (width + 0.5) <= 3.3).all()


def test_sides_are_torchvisions_arithmetic():
    uniform = torch.rand(2, 2000, generator=torch.Generator().manual_seed(3))
    tall, wide = erasing.sides(ON, *uniform, HEIGHT, WIDTH)
    differ = 0
    for area, ratio, h, w in zip(*uniform.tolist(), tall.tolist(), wide.tolist(), strict=True):
        pixels = HEIGHT * WIDTH * (0.02 + 0.31 * area)
        aspect = math.exp(math.log(0.3) + (math.log(3.3) - math.log(0.3)) * ratio)
        differ += (h, w) != (round(math.sqrt(pixels * aspect)), round(math.sqrt(pixels / aspect)))
    assert differ <= 2  # at a half, in single precision


@pytest.mark.parametrize("probability", [0.0, 0.25, 1.0])
def test_so_many_images_are_erased(probability):
    count = 20_000
    erased = int((drawn(AugmentConfig(erase_probability=probability), count)[:, 2] > 0).sum())
    assert stats.binomtest(erased, count, probability).pvalue > 1e-4 or probability in (0.0, 1.0)
    assert probability not in (0.0, 1.0) or erased == count * probability


def test_without_a_rectangle_that_fits_the_image_stays_whole():
    """A picture of one row has no rectangle of fewer rows."""
    made = erasing.draw_rectangles(ON, seed=0, epoch=0, ids=torch.arange(100), height=1, width=50)
    assert not made[:, 2].any()


def test_a_rectangle_is_the_images_own():
    everyone = drawn(ON, 200)
    chosen = torch.tensor([150, 2])
    some = erasing.draw_rectangles(ON, seed=0, epoch=0, ids=chosen, height=HEIGHT, width=WIDTH)
    assert torch.equal(some, everyone[chosen])
    assert (drawn(ON, 200, seed=1) == everyone).all(1).sum() < 5
