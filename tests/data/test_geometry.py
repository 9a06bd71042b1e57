"""Batched affine sampling against torchvision's, one image at a time, and against plain arithmetic in double precision."""

import math

import numpy as np
import pytest
import torch
import torchvision.transforms.v2.functional as tv
from tensors import LAYOUTS, pictures, shown, stored

from cifar_lab.data import geometry

SIZES = [(32, 32), (12, 9), (7, 30), (1, 5)]
SETTINGS = [
    *({"angle": a} for a in (0.0, 3.0, 30.0, 45.0, 90.0, 135.0, -17.5, -90.0, 211.0)),
    *({"shear": s} for s in ((16.7, 0.0), (-44.0, 0.0), (0.0, 11.3), (0.0, -5.7), (20.0, 10.0))),
    *({"translate": t} for t in ((3, 0), (-3, 0), (0, 5), (0, -40), (2, -1))),
    {"angle": 12.0, "translate": (1, 2), "shear": (5.0, -8.0), "center": (-3.0, 2.5)},
]
# Where a point falls between two pixels, torchvision's matrix product and ours may round differently on some processor.
TOLERATED = 0.002


def reference(image: torch.Tensor, *, center: tuple[float, float] = (0.0, 0.0), **setting) -> torch.Tensor:
    height, width = image.shape[1:]
    full = {"angle": 0.0, "translate": (0, 0), "shear": (0.0, 0.0), **setting}
    from_corner = [center[0] + 0.5 * width, center[1] + 0.5 * height]
    return tv.affine(image, full["angle"], list(full["translate"]), 1.0, list(full["shear"]), center=from_corner)


def maps_of(height: int, width: int, settings: list[dict]) -> torch.Tensor:
    return torch.tensor([geometry.inverse_map(height, width, **setting) for setting in settings])


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("size", SIZES)
def test_each_image_goes_through_its_own_map(size, layout):
    images = pictures(len(SETTINGS), *size)
    source = stored(images, layout)
    before = source.clone()
    made = shown(geometry.affine(source, maps_of(*size, SETTINGS)), layout)
    expected = torch.stack([reference(image, **setting) for image, setting in zip(images, SETTINGS, strict=True)])
    assert made.dtype == torch.uint8
    assert (made != expected).float().mean() <= TOLERATED
    assert torch.equal(source, before)


def test_whole_pixels_are_moved_exactly_and_black_comes_in():
    images = pictures(3, 8, 10) | 1
    settings = [{"translate": (2, 0)}, {"translate": (0, -3)}, {"translate": (-10, 0)}]
    made = shown(geometry.affine(stored(images), maps_of(8, 10, settings)))
    assert torch.equal(made[0, :, :, 2:], images[0, :, :, :-2])
    assert not made[0, :, :, :2].any()
    assert torch.equal(made[1, :, :-3], images[1, :, 3:])
    assert not made[1, :, -3:].any()
    assert not made[2].any()


def test_quarter_turns_are_exact():
    images = pictures(4, 16, 16)
    made = shown(geometry.affine(stored(images), maps_of(16, 16, [{"angle": 90.0 * k} for k in range(4)])))
    for k in range(4):
        assert torch.equal(made[k], images[k].rot90(-k, dims=(1, 2)))


@pytest.mark.parametrize("size", [(32, 32), (11, 20)])
def test_sources_are_those_of_double_precision_except_on_a_tie(size):
    height, width = size
    maps = maps_of(height, width, SETTINGS)
    columns = geometry._sources(maps[:, :3], height, width, width)
    rows = geometry._sources(maps[:, 3:], height, width, height)
    y, x = np.mgrid[0:height, 0:width] + 0.5
    for k, setting in enumerate(SETTINGS):
        full = {"angle": 0.0, "translate": (0.0, 0.0), "shear": (0.0, 0.0), "center": (0.0, 0.0), **setting}
        turn, (shear_x, shear_y) = math.radians(full["angle"]), (math.radians(s) for s in full["shear"])
        rotation = np.array([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]])
        along_y = np.array([[1.0, 0.0], [-math.tan(shear_y), 1.0]])
        along_x = np.array([[1.0, -math.tan(shear_x)], [0.0, 1.0]])
        center = np.array(full["center"]) + np.array([width / 2, height / 2])
        # Forward: about the center, sheared along x, then along y, turned, then moved.
        inverse = np.linalg.inv(rotation @ along_y @ along_x)
        moved = np.stack([x, y], -1) - center - np.array(full["translate"])
        exact = moved @ inverse.T + center - 0.5
        for made, of in ((columns[k], exact[..., 0]), (rows[k], exact[..., 1])):
            no_tie = np.abs(of - np.floor(of) - 0.5) > 1e-4
            assert np.array_equal(made.numpy()[no_tie], np.round(of)[no_tie])
            assert np.abs(made.numpy() - of).max() < 0.501


def test_a_map_is_an_images_own():
    images = stored(pictures(len(SETTINGS), 12, 9))
    maps = maps_of(12, 9, SETTINGS)
    together = geometry.affine(images, maps)
    for k in range(len(SETTINGS)):
        assert torch.equal(geometry.affine(images[k : k + 1], maps[k : k + 1])[0], together[k])
