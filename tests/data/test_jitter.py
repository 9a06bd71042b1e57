"""Color jitter: torchvision's ranges and order, and its picture for the same decisions."""

from collections import Counter

import numpy as np
import pytest
import torch
import torchvision.transforms.v2.functional as tv
from scipy import stats
from tensors import pictures, shown, stored
from torchvision.transforms import v2

from cifar_lab.config import AugmentConfig
from cifar_lab.data import jitter, steps
from cifar_lab.data.steps import Kind

ALL = AugmentConfig(jitter_brightness=0.4, jitter_contrast=0.3, jitter_saturation=1.5, jitter_hue=0.1)
FUNCTIONS = {
    Kind.BRIGHTNESS: lambda image, m: tv.adjust_brightness(image, 1.0 + m),
    Kind.CONTRAST: lambda image, m: tv.adjust_contrast(image, 1.0 + m),
    Kind.SATURATION: lambda image, m: tv.adjust_saturation(image, 1.0 + m),
    Kind.HUE: tv.adjust_hue,
}


def test_each_image_is_jittered_as_torchvision_does_it_in_its_own_order():
    images = pictures(80, 16, 16)
    kinds, amounts = jitter.draw_jitter(ALL, seed=2, epoch=1, ids=torch.arange(80))
    made = shown(jitter.jitter(stored(images), kinds, amounts, ALL))
    for image, of_image, kind_row, amount_row in zip(images, made, kinds.tolist(), amounts.tolist(), strict=True):
        for kind, amount in zip(kind_row, amount_row, strict=True):
            image = FUNCTIONS[Kind(kind)](image, amount)
        assert torch.equal(of_image, image)


def test_amounts_are_uniform_over_torchvisions_ranges():
    count = 30_000
    kinds, amounts = jitter.draw_jitter(ALL, seed=0, epoch=0, ids=torch.arange(count))
    peer = v2.ColorJitter(0.4, 0.3, 1.5, 0.1)
    ranges = {
        Kind.BRIGHTNESS: [x - 1 for x in peer.brightness],
        Kind.CONTRAST: [x - 1 for x in peer.contrast],
        Kind.SATURATION: [x - 1 for x in peer.saturation],
        Kind.HUE: peer.hue,
    }
    for kind, (low, high) in ranges.items():
        drawn = amounts[kinds == kind].numpy()
        assert len(drawn) == count
        assert 1e-4 < stats.kstest(drawn, "uniform", args=(low, high - low)).pvalue < 1 - 1e-4


def test_every_order_is_as_likely():
    kinds, _ = jitter.draw_jitter(ALL, seed=4, epoch=0, ids=torch.arange(24_000))
    orders = Counter(map(tuple, kinds.tolist()))
    assert len(orders) == 24
    assert all(sorted(order) == sorted(FUNCTIONS) for order in orders)
    assert 1e-4 < stats.chisquare(np.array(list(orders.values()))).pvalue < 1 - 1e-4


def test_only_what_is_on_is_drawn():
    config = AugmentConfig(jitter_contrast=0.2)
    assert jitter.is_on(config)
    assert not jitter.is_on(AugmentConfig())
    kinds, amounts = jitter.draw_jitter(config, seed=0, epoch=0, ids=torch.arange(9))
    assert kinds.tolist() == [[Kind.CONTRAST]] * 9
    assert amounts.abs().max() <= 0.2


def test_working_on_groups_and_on_everything_gives_the_same_bytes():
    images = stored(pictures(60, 12, 9))
    kinds, amounts = jitter.draw_jitter(ALL, seed=1, epoch=1, ids=torch.arange(60))
    for slot in range(4):
        kind, amount = kinds[:, slot], amounts[:, slot : slot + 1]
        grouped = steps._grouped(images, kind, amount)
        assert torch.equal(grouped, steps._masked(images, kind, amount, list(FUNCTIONS)))


@pytest.mark.gpu
def test_a_gpu_jitters_alike():
    if not torch.cuda.is_available():
        pytest.skip("needs CUDA")
    images, ids = stored(pictures(200, 32, 32)), torch.arange(200)
    kinds, amounts = jitter.draw_jitter(ALL, seed=1, epoch=1, ids=ids)
    there = jitter.draw_jitter(ALL, seed=1, epoch=1, ids=ids.cuda())
    assert torch.equal(there[0].cpu(), kinds)
    torch.testing.assert_close(there[1].cpu(), amounts, rtol=0, atol=1e-6)
    made = jitter.jitter(images.cuda(), kinds.cuda(), amounts.cuda(), ALL).cpu()
    expected = jitter.jitter(images, kinds, amounts, ALL)
    assert (made.int() - expected.int()).abs().max() <= 2  # a hue at the border of two bytes
    assert (made != expected).float().mean() < 1e-3
