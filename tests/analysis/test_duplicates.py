"""Near-duplicates: planted ones are found, and all pairs that a comparison of everything with everything finds."""

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance
from scipy.ndimage import convolve

from cifar_lab.analysis.duplicates import DETAIL, WHOLE, find_near_duplicates


def pictures(count: int, seed: int, side: int = 32) -> torch.Tensor:
    """Smooth colors with some texture, as photographs have: uint8 [count, 3, side, side]."""
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        coarse = Image.fromarray(rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)).resize((side, side), Image.Resampling.BICUBIC)
        fine = Image.fromarray(rng.integers(0, 256, (side // 2, side // 2, 3), dtype=np.uint8)).resize((side, side))
        made.append(np.asarray(Image.blend(coarse, fine, 0.25)))
    return torch.from_numpy(np.stack(made)).permute(0, 3, 1, 2).contiguous()


def as_image(picture: torch.Tensor) -> Image.Image:
    return Image.fromarray(picture.permute(1, 2, 0).numpy())


def as_tensor(image: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1)


def unit(x: np.ndarray) -> np.ndarray:
    return x.ravel() / np.sqrt((x * x).sum())


def views(picture: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """The whole and the detail of one picture at length 1, by numpy and scipy."""
    x = np.asarray(picture, dtype=np.float64)
    box = np.ones((1, 5, 5))
    around = convolve(x, box, mode="constant") / convolve(np.ones_like(x), box, mode="constant")
    return unit(x - x.mean(axis=(1, 2), keepdims=True)), unit(x - around)


def correlations(a: torch.Tensor, b: torch.Tensor) -> tuple[float, float]:
    (whole, detail), (other, other_detail) = views(a), views(b)
    return float(whole @ other), float(detail @ other_detail)


def test_planted_duplicates_are_found_and_nothing_else():
    train, test = pictures(300, 0), pictures(40, 1)
    planted = {
        0: train[10],
        1: train[20].flip(2),
        2: as_tensor(ImageEnhance.Brightness(as_image(train[30])).enhance(0.7)),
        3: as_tensor(ImageEnhance.Contrast(as_image(train[40])).enhance(0.6)),
        4: (train[50].float() + 6 * torch.randn(3, 32, 32, generator=torch.Generator().manual_seed(0))).clamp(0, 255).byte(),
    }
    for position, picture in planted.items():
        test[position] = picture
    found = find_near_duplicates(train, test)
    assert {(pair.second, pair.first) for pair in found} == {(0, 10), (1, 20), (2, 30), (3, 40), (4, 50)}
    by_test = {pair.second: pair for pair in found}
    assert [by_test[k].mirrored for k in range(5)] == [False, True, False, False, False]
    assert [by_test[k].equal for k in range(5)] == [True, True, False, False, False]
    for pair in found:
        seen = test[pair.second].flip(2) if pair.mirrored else test[pair.second]
        assert correlations(train[pair.first], seen) == pytest.approx((pair.whole, pair.detail), abs=1e-6)


@pytest.mark.parametrize("side", [32, 20])
def test_no_pair_is_missed(side):
    """Blends of two pictures lie on both sides of the bounds; a size that does not fall into squares is searched as well."""
    train = pictures(24, 3, side)
    shares = torch.linspace(0.5, 1.0, 30)
    test = torch.stack(
        [(share * train[k % 24].float() + (1 - share) * train[-1 - k % 7].float()).byte() for k, share in enumerate(shares)]
    )
    left = [views(picture) for picture in train]
    right = [(views(picture), views(picture.flip(2))) for picture in test]
    brute = {
        (i, j)
        for i, (whole, detail) in enumerate(left)
        for j, both in enumerate(right)
        if any(whole @ other >= WHOLE and detail @ other_detail >= DETAIL for other, other_detail in both)
    }
    assert 10 < len(brute) < 40
    assert {(pair.first, pair.second) for pair in find_near_duplicates(train, test)} == brute


def test_pictures_of_one_color_are_duplicates_of_equal_ones_only():
    shades = torch.tensor([0, 128, 255], dtype=torch.uint8)
    train = shades.view(3, 1, 1, 1).expand(3, 3, 32, 32).contiguous()
    found = find_near_duplicates(train, train)
    assert [(pair.first, pair.second) for pair in found] == [(0, 0), (1, 1), (2, 2)]


def test_progress_is_told_and_a_bound_of_nothing_is_refused():
    told = []
    find_near_duplicates(pictures(3, 0), pictures(2, 1), progress=lambda done, total: told.append((done, total)))
    assert told == [(3, 3)]
    with pytest.raises(ValueError, match="whole=0; must be above 0"):
        find_near_duplicates(pictures(1, 0), pictures(1, 0), whole=0)
