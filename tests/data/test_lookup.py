"""Operations on bytes and colors against torchvision's functions, one image at a time, each with its own strength."""

import colorsys

import pytest
import torch
import torchvision.transforms.v2.functional as tv
from tensors import LAYOUTS, pictures, shown, stored

from cifar_lab.data import lookup, pixels

COUNT = 48
# A multiple of 32 bytes: the last few bytes of other pictures torchvision may round otherwise than the bytes before them.
SIZES = [(8, 12), (32, 32), (4, 16)]


def amounts(low: float, high: float) -> torch.Tensor:
    """One for each image: both ends, nothing at all, and what lies between."""
    between = torch.rand(COUNT - 3, generator=torch.Generator().manual_seed(2)) * (high - low) + low
    return torch.cat([torch.tensor([low, high, 0.0]), between])


STRENGTHS = {
    "brightness": (lookup.brightness, amounts(-1, 2), lambda image, m: tv.adjust_brightness(image, 1.0 + m)),
    "contrast": (lookup.contrast, amounts(-1, 2), lambda image, m: tv.adjust_contrast(image, 1.0 + m)),
    "saturation": (pixels.saturation, amounts(-1, 2), lambda image, m: tv.adjust_saturation(image, 1.0 + m)),
    "sharpness": (pixels.sharpness, amounts(-1, 2), lambda image, m: tv.adjust_sharpness(image, 1.0 + m)),
    "solarize": (lookup.solarize, amounts(0, 255), tv.solarize),
    "hue": (pixels.hue, amounts(-0.5, 0.5), tv.adjust_hue),
}
PLAIN = {
    "autocontrast": (lookup.autocontrast, tv.autocontrast),
    "equalize": (lookup.equalize, tv.equalize),
    "invert": (lookup.invert, tv.invert),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", STRENGTHS)
def test_each_image_gets_its_own_strength_bit_for_bit(name, size, layout):
    operation, strengths, reference = STRENGTHS[name]
    images = pictures(COUNT, *size)
    source = stored(images, layout)
    before = source.clone()
    made = shown(operation(source, strengths), layout)
    expected = torch.stack([reference(image, m) for image, m in zip(images, strengths.tolist(), strict=True)])
    assert made.dtype == torch.uint8
    assert torch.equal(made, expected)
    assert torch.equal(source, before)
    assert not torch.equal(made, images)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", PLAIN)
def test_operations_without_a_strength_bit_for_bit(name, size, layout):
    operation, reference = PLAIN[name]
    images = pictures(COUNT, *size)
    source = stored(images, layout)
    before = source.clone()
    assert torch.equal(shown(operation(source), layout), torch.stack([reference(image) for image in images]))
    assert torch.equal(source, before)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_posterize_keeps_the_highest_bits(layout):
    bits = torch.arange(COUNT) % 9
    images = pictures(COUNT)
    made = shown(lookup.posterize(stored(images, layout), 2.0 ** (8 - bits)), layout)
    assert torch.equal(made, torch.stack([tv.posterize(image, b) for image, b in zip(images, bits.tolist(), strict=True)]))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_entry_of_a_table_is_used_for_its_own_image_and_channel(layout):
    generator = torch.Generator().manual_seed(4)
    images = pictures(5, 16, 32)
    for channels in (1, 3):
        tables = torch.randint(0, 256, (5, channels, 256), dtype=torch.uint8, generator=generator)
        made = shown(lookup.look_up(stored(images, layout), tables), layout)
        for k in range(5):
            for channel in range(3):
                table = tables[k, channel % channels]
                assert torch.equal(made[k, channel], table[images[k, channel].long()])


def test_equalize_of_one_value_of_two_and_of_all():
    flat = torch.full((1, 3, 32, 32), 200, dtype=torch.uint8)
    two = torch.cat([flat[:, :, :16], flat[:, :, :16] // 2], dim=2)
    ramp = torch.arange(1024).view(1, 1, 32, 32).expand(1, 3, 32, 32).div(4, rounding_mode="floor").to(torch.uint8)
    images = torch.cat([flat, two, ramp])
    made = shown(lookup.equalize(stored(images)))
    assert torch.equal(made, torch.stack([tv.equalize(image) for image in images]))
    assert torch.equal(made[0], flat[0])
    assert torch.equal(made[2], ramp[0])
    assert made[1].unique().tolist() == [0, 255]


def test_gray_is_pils_up_to_its_own_rounding():
    images = pictures(COUNT, 16, 16)
    exact = (images.double() * torch.tensor([0.2989, 0.587, 0.114], dtype=torch.float64).view(3, 1, 1)).sum(1).flatten(1)
    made = pixels.gray(stored(images))
    assert torch.equal(made, made.floor())
    assert ((exact - made) > -1e-4).all()
    assert ((exact - made) < 1 + 1e-4).all()


def test_hue_is_that_of_the_standard_library():
    """Half a turn gives the opposite color: one byte more or less for truncation."""
    images = pictures(2, 4, 5)
    made = shown(pixels.hue(stored(images), torch.tensor([0.5, 0.25])))
    for k, turn in enumerate((0.5, 0.25)):
        for old, new in zip(images[k].flatten(1).t().tolist(), made[k].flatten(1).t().tolist(), strict=True):
            h, s, v = colorsys.rgb_to_hsv(*(x / 255 for x in old))
            expected = [255 * x for x in colorsys.hsv_to_rgb((h + turn) % 1, s, v)]
            assert all(abs(a - b) <= 1.01 for a, b in zip(expected, new, strict=True))


def test_pictures_too_small_to_sharpen_stay_as_they_are():
    for size in ((2, 9), (9, 1)):
        images = stored(pictures(4, *size))
        assert torch.equal(pixels.sharpness(images, torch.ones(4)), images)
