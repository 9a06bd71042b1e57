"""Each corruption against another implementation, picture by picture; the same bytes whatever the batch."""

import io

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage, stats

from cifar_lab.data.batches import Batches
from cifar_lab.data.corruptions import CORRUPTIONS, CorruptedBatches, corrupt
from cifar_lab.data.sets import ImageSet

SEVERITIES = range(1, 6)


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    """Noise, smooth colors and one color: uint8 [12, 3, 32, 32]."""
    generator = torch.Generator().manual_seed(0)
    made = torch.randint(0, 256, (12, 3, 32, 32), dtype=torch.uint8, generator=generator)
    coarse = torch.rand(6, 3, 4, 4, generator=generator) * 255
    made[4:10] = torch.nn.functional.interpolate(coarse, size=32, mode="bilinear").round().byte()
    made[11] = 77
    return made


def worse(images: torch.Tensor, name: str, severity: int, seed: int = 0, first: int = 0) -> torch.Tensor:
    return corrupt(images, name, severity, torch.arange(first, first + len(images)), seed)


def rounded(values: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(values), 0, 255)


@pytest.mark.parametrize("severity", SEVERITIES)
def test_blur_is_scipys(images, severity):
    sigma = CORRUPTIONS["gaussian_blur"].strengths[severity - 1]
    made = worse(images, "gaussian_blur", severity).numpy().astype(float)
    for picture, ours in zip(images.numpy().astype(float), made, strict=True):
        exact = np.stack([ndimage.gaussian_filter(channel, sigma, mode="nearest", truncate=4.0) for channel in picture])
        assert np.abs(ours - exact).max() <= 0.501  # the nearest byte, give or take the rounding of float32


@pytest.mark.parametrize("severity", SEVERITIES)
def test_contrast_and_brightness_are_numpys(images, severity):
    factor, added = (CORRUPTIONS[name].strengths[severity - 1] for name in ("contrast", "brightness"))
    flat = worse(images, "contrast", severity).numpy()
    bright = worse(images, "brightness", severity).numpy()
    for k, picture in enumerate(images.numpy().astype(np.float64)):
        mean = picture.mean(axis=(1, 2), keepdims=True)
        assert np.abs(flat[k] - np.clip((picture - mean) * factor + mean, 0, 255)).max() <= 0.501
        np.testing.assert_array_equal(bright[k], rounded(picture + np.float32(255 * added)))


@pytest.mark.parametrize("severity", SEVERITIES)
def test_jpeg_is_pillows(images, severity):
    quality = int(CORRUPTIONS["jpeg"].strengths[severity - 1])
    made = worse(images, "jpeg", severity)
    for picture, ours in zip(images, made, strict=True):
        stream = io.BytesIO()
        Image.fromarray(picture.permute(1, 2, 0).numpy(), "RGB").save(stream, "jpeg", quality=quality)  # 4:2:0 is its default
        np.testing.assert_array_equal(ours.permute(1, 2, 0).numpy(), np.asarray(Image.open(stream)))


@pytest.mark.parametrize("severity", SEVERITIES)
def test_noise_is_normal_of_the_stated_strength(severity):
    gray = torch.full((40, 3, 32, 32), 128, dtype=torch.uint8)
    strength = 255 * CORRUPTIONS["gaussian_noise"].strengths[severity - 1]
    noise = worse(gray, "gaussian_noise", severity).numpy().astype(float) - 128
    count = noise.size
    assert abs(noise.mean()) < 4 * strength / count**0.5
    spread = (strength**2 + 1 / 12) ** 0.5  # rounding to bytes adds a twelfth
    assert abs(noise.std() / spread - 1) < 4 / (2 * count) ** 0.5
    edges = np.arange(-100.5, 101.5, 5)
    expected = np.diff(stats.norm.cdf(edges, scale=strength)) * count
    seen = np.histogram(noise, bins=edges)[0]
    many = expected > 20
    assert stats.chi2.sf(((seen - expected)[many] ** 2 / expected[many]).sum(), many.sum() - 1) > 1e-4
    rows = noise.reshape(len(noise), -1)
    assert np.abs(np.corrcoef(rows) - np.eye(len(rows))).max() < 0.09, "each picture has noise of its own"


def test_noise_is_one_draw_that_grows(images):
    gray = torch.full((2, 3, 32, 32), 128, dtype=torch.uint8)
    weak, strong = (worse(gray, "gaussian_noise", severity).float() - 128 for severity in (2, 4))
    assert (strong - 2 * weak).abs().max() <= 1.5  # strengths 0.04 and 0.08, rounded to bytes
    assert not torch.equal(worse(gray, "gaussian_noise", 1, seed=1), worse(gray, "gaussian_noise", 1, seed=0))


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_a_picture_is_made_worse_the_same_in_any_company_and_stays_unharmed(images, name):
    before = images.clone()
    together = worse(images, name, 3)
    alone = torch.cat([worse(images[k : k + 1], name, 3, first=k) for k in range(len(images))])
    assert torch.equal(together, alone)
    assert torch.equal(images, before)
    assert together.dtype == torch.uint8
    distances = [(worse(images[:10], name, severity).float() - images[:10].float()).abs().mean() for severity in SEVERITIES]
    assert distances == sorted(distances), "a higher severity is farther away"


@pytest.mark.parametrize("channels_last", [True, False])
@pytest.mark.parametrize("name", ["gaussian_noise", "jpeg"])
def test_batches_hand_out_what_plain_batches_of_worse_pictures_do(images, name, channels_last):
    ids = torch.arange(100, 112)
    labels = torch.arange(12) % 3
    settings = {
        "batch_size": 5,
        "mean": (0.4, 0.5, 0.6),
        "std": (0.2, 0.25, 0.3),
        "channels_last": channels_last,
        "input_size": 24,
    }
    made = CorruptedBatches(ImageSet(images, labels, ids), name=name, severity=2, corruption_seed=3, **settings)
    plain = Batches(ImageSet(corrupt(images, name, 2, ids, 3), labels, ids), **settings)
    for (ours, targets), (exact, exact_targets) in zip(made.iterate(0), plain.iterate(0), strict=True):
        assert torch.equal(ours, exact)
        assert torch.equal(targets, exact_targets)


def test_what_is_no_corruption_is_refused(images):
    with pytest.raises(ValueError, match=r"corruption=fog; must be one of gaussian_noise, "):
        worse(images, "fog", 1)
    with pytest.raises(ValueError, match="severity=6; must be 1 to 5"):
        worse(images, "jpeg", 6)
    with pytest.raises(ValueError, match="neither shuffled nor augmented"):
        CorruptedBatches(
            ImageSet(images, torch.zeros(12).long(), torch.arange(12)),
            name="jpeg",
            severity=1,
            batch_size=5,
            mean=(0, 0, 0),
            std=(1, 1, 1),
            shuffle=True,
        )
