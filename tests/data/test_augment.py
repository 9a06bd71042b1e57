"""Batched augmentation against one image at a time, given the same decisions, and the decisions themselves."""

import numpy as np
import pytest
import torch
import torchvision.transforms.v2.functional as tv
from scipy import stats
from torchvision.models import MobileNet_V2_Weights

from cifar_lab.config import AugmentConfig
from cifar_lab.data import augment as ops
from cifar_lab.data.policies import build_policy
from cifar_lab.data.sets import ImageSet, channel_statistics
from cifar_lab.errors import ConfigError, DataError

LAYOUTS = ["channels_last", "channels_first"]
HEIGHT, WIDTH = 7, 11  # different, so that a mixed-up axis shows


def pictures(count: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 3, HEIGHT, WIDTH), dtype=torch.uint8, generator=generator)


def stored(images: torch.Tensor, layout: str) -> torch.Tensor:
    return images.permute(0, 2, 3, 1).contiguous().unsqueeze(1) if layout == "channels_last" else images.unsqueeze(4)


def shown(images: torch.Tensor, layout: str) -> torch.Tensor:
    return images.squeeze(1).permute(0, 3, 1, 2) if layout == "channels_last" else images.squeeze(4)


def image_set(images: torch.Tensor) -> ImageSet:
    return ImageSet(images, torch.zeros(len(images), dtype=torch.int64), torch.arange(len(images)))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_flip_mirrors_the_chosen_images_only(layout):
    images, chosen = pictures(6), torch.tensor([True, False, False, True, True, False])
    before = images.clone()
    flipped = shown(ops.flip(stored(images, layout), chosen), layout)
    for one, source, is_chosen in zip(flipped, images, chosen, strict=True):
        assert torch.equal(one, tv.horizontal_flip(source) if is_chosen else source)
    assert torch.equal(images, before)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("mode", ["zero", "reflect"])
@pytest.mark.parametrize("padding", [1, 4, 6])
def test_crop_equals_padding_and_cutting_one_image_at_a_time(layout, mode, padding):
    places = torch.tensor([0, 1, padding, 2 * padding])  # the outermost, and the picture itself
    top, left = (part.reshape(-1) for part in torch.meshgrid(places, places, indexing="ij"))
    images = pictures(len(top))
    before = images.clone()
    cropped = shown(ops.crop(stored(images, layout), top, left, padding=padding, mode=mode), layout)
    padding_mode = {"zero": "constant", "reflect": "reflect"}[mode]
    for k in range(len(images)):
        padded = tv.pad(images[k], [padding] * 4, padding_mode=padding_mode)
        assert torch.equal(cropped[k], tv.crop(padded, int(top[k]), int(left[k]), HEIGHT, WIDTH))
    assert torch.equal(images, before)


def test_zero_padding_may_be_larger_than_the_picture():
    images = pictures(2)
    top, left = torch.tensor([0, 20]), torch.tensor([40, 20])
    cropped = shown(ops.crop(stored(images, "channels_last"), top, left, padding=20, mode="zero"), "channels_last")
    assert not cropped[0].any()
    assert torch.equal(cropped[1], images[1])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_normalize_is_torchvisions(layout):
    images = pictures(5)
    mean, std = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
    place = (1, HEIGHT, WIDTH, 3) if layout == "channels_last" else (3, HEIGHT, WIDTH, 1)
    channel = (1, 1, 1, 3) if layout == "channels_last" else (3, 1, 1, 1)
    scale = (1 / (255 * torch.tensor(std))).view(channel).expand(place).reshape(-1)
    shift = (-torch.tensor(mean) / torch.tensor(std)).view(channel).expand(place).reshape(-1)
    made = shown(ops.normalize(stored(images, layout), scale, shift), layout)
    expected = tv.normalize(tv.to_dtype(images, torch.float32, scale=True), list(mean), list(std))
    torch.testing.assert_close(made, expected, rtol=0, atol=2e-6)
    assert made.dtype == torch.float32


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("size", [1, 4, 7])
def test_cutout_zeroes_exactly_its_square(layout, size):
    down, right = HEIGHT - size + 1, WIDTH - size + 1
    top, left = (part.reshape(-1) for part in torch.meshgrid(torch.arange(down), torch.arange(right), indexing="ij"))
    images = torch.randn(len(top), 3, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(1)) * 1000
    cut = shown(ops.cutout_(stored(images, layout).clone(), top, left, size), layout)
    for k in range(len(images)):
        expected = tv.erase(images[k], int(top[k]), int(left[k]), size, size, torch.zeros(3, 1, 1))
        assert torch.equal(cut[k], expected)


# Decisions


def test_draws_are_uniform_over_all_places():
    config = AugmentConfig(crop_padding_px=4, flip_probability=0.3, cutout_px=3)
    count = 40_000
    draws = ops.draw(config, seed=1, epoch=2, ids=torch.arange(count), height=HEIGHT, width=WIDTH)
    for part, places in ((draws.top, 9), (draws.left, 9), (draws.cutout_top, 5), (draws.cutout_left, 9)):
        counts = np.bincount(part.numpy(), minlength=places)
        assert len(counts) == places
        assert 1e-4 < stats.chisquare(counts).pvalue < 1 - 1e-4
    together = np.bincount((draws.top * 9 + draws.left).numpy(), minlength=81)  # and independent of each other
    assert 1e-4 < stats.chisquare(together).pvalue < 1 - 1e-4
    corner = np.bincount((draws.cutout_top * 9 + draws.cutout_left).numpy(), minlength=45)
    assert 1e-4 < stats.chisquare(corner).pvalue < 1 - 1e-4
    assert stats.binomtest(int(draws.flip.sum()), count, 0.3).pvalue > 1e-4
    flipped = np.bincount(draws.top[draws.flip].numpy(), minlength=9)
    assert stats.chisquare(flipped).pvalue > 1e-4


def test_a_draw_is_the_images_own():
    """It does not depend on which other images are drawn for, or in which order."""
    config = AugmentConfig(
        crop_padding_px=4, flip_probability=0.5, cutout_px=2, policy="randaugment", jitter_hue=0.1, erase_probability=0.5
    )
    policy = build_policy(config, HEIGHT, WIDTH, torch.device("cpu"))
    key = {"seed": 3, "epoch": 1, "height": HEIGHT, "width": WIDTH, "policy": policy}
    all_of_them = ops.draw(config, ids=torch.arange(1000), **key)
    chosen = torch.tensor([999, 4, 500])
    some = ops.draw(config, ids=chosen, **key)
    for name, part in vars(some).items():
        assert torch.equal(part, getattr(all_of_them, name)[chosen]), name
    other = ops.draw(config, ids=torch.arange(1000), **{**key, "epoch": 2})
    assert (other.top == all_of_them.top).float().mean() < 0.2


def test_what_is_off_is_not_drawn_and_does_not_change_the_rest():
    key = {"seed": 0, "epoch": 0, "ids": torch.arange(50), "height": 8, "width": 8}
    assert set(vars(ops.draw(AugmentConfig(), **key)).values()) == {None}
    both = ops.draw(AugmentConfig(crop_padding_px=2, flip_probability=0.5), **key)
    only_flip = ops.draw(AugmentConfig(flip_probability=0.5), **key)
    assert torch.equal(both.flip, only_flip.flip)
    assert only_flip.top is None


def test_an_alternating_flip_is_drawn_once_and_then_turned_in_every_other_epoch():
    config = AugmentConfig(flip_probability=0.3, flip_alternating=True)
    key = {"seed": 3, "ids": torch.arange(10_000), "height": HEIGHT, "width": WIDTH}
    first, second, third = (ops.draw(config, epoch=epoch, **key).flip for epoch in range(3))
    assert stats.binomtest(int(first.sum()), 10_000, 0.3).pvalue > 1e-4
    assert torch.equal(second, ~first)
    assert torch.equal(third, first)
    assert not torch.equal(first, ops.draw(config, epoch=0, **{**key, "seed": 4}).flip)


def test_certain_flips_and_a_square_of_full_height():
    config = AugmentConfig(flip_probability=1.0, cutout_px=HEIGHT)
    draws = ops.draw(config, seed=0, epoch=0, ids=torch.arange(100), height=HEIGHT, width=WIDTH)
    assert draws.flip.all()
    assert not draws.cutout_top.any()


def test_take_cuts_every_decision():
    config = AugmentConfig(flip_probability=0.5, cutout_px=2)
    draws = ops.draw(config, seed=0, epoch=0, ids=torch.arange(20), height=8, width=8)
    part = draws.take(5, 9)
    assert part.top is None
    assert torch.equal(part.flip, draws.flip[5:9])
    assert torch.equal(part.cutout_left, draws.cutout_left[5:9])


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (AugmentConfig(cutout_px=8), "augment.cutout_px=8; pictures are 11x7, so at most 7"),
        (
            AugmentConfig(crop_padding_px=7, crop_padding_mode="reflect"),
            "augment.crop_padding_px=7 with reflect; pictures are 11x7, so at most 6",
        ),
    ],
)
def test_what_does_not_fit_is_refused(config, message):
    with pytest.raises(ConfigError) as error:
        ops.check_augment(config, HEIGHT, WIDTH)
    assert error.value.what == message


def test_what_just_fits_is_taken():
    ops.check_augment(AugmentConfig(cutout_px=7, crop_padding_px=6, crop_padding_mode="reflect"), HEIGHT, WIDTH)
    ops.check_augment(AugmentConfig(crop_padding_px=64), HEIGHT, WIDTH)


# Statistics


def test_statistics_are_those_of_numpy_in_double_precision():
    images = torch.cat([pictures(700, seed=2), pictures(333, seed=3) // 4])
    mean, std = channel_statistics(images)
    pixels = images.numpy().astype(np.float64) / 255
    np.testing.assert_allclose(mean, pixels.mean((0, 2, 3)), rtol=1e-12)
    np.testing.assert_allclose(std, pixels.std((0, 2, 3)), rtol=1e-12)
    assert ops.normalization("data", image_set(images)) == (mean, std)


def test_statistics_do_not_cancel():
    images = torch.full((2000, 3, HEIGHT, WIDTH), 255, dtype=torch.uint8)
    images[0, 1, 0, 0] = 254
    mean, std = channel_statistics(images)
    share = 1 / (2000 * HEIGHT * WIDTH)
    assert std[0] == std[2] == 0.0
    assert mean[0] == 1.0
    assert std[1] == pytest.approx((share * (1 - share)) ** 0.5 / 255, rel=1e-12)


def test_fixed_statistics():
    train = image_set(pictures(1))
    assert ops.normalization("cifar", train) == ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616))
    theirs = MobileNet_V2_Weights.IMAGENET1K_V2.transforms()
    assert ops.normalization("imagenet", train) == (tuple(theirs.mean), tuple(theirs.std))
    assert ops.normalization("half", train) == ((0.5,) * 3, (0.5,) * 3)
    assert ops.normalization("unit", train) == ((0.0,) * 3, (1.0,) * 3)


def test_a_channel_without_contrast_and_an_unknown_kind_are_refused():
    images = pictures(4)
    images[:, 2] = 9
    with pytest.raises(DataError, match=r"^data\.normalize=data: a colour channel is the same in all training pixels$"):
        ops.normalization("data", image_set(images))
    with pytest.raises(ConfigError, match=r"^data\.normalize=mnist; must be one of cifar, imagenet, half, unit, data$"):
        ops.normalization("mnist", image_set(images))
