"""Features in place of images: the order, the batches and the labels are those that images would come in."""

import pytest
import torch

from cifar_lab.data.batches import Batches
from cifar_lab.data.features import FeatureBatches
from cifar_lab.data.sets import ImageSet

COUNT = 23


def both(**settings):
    """``Batches`` of images that show their own number, and ``FeatureBatches`` of those numbers."""
    numbers = torch.arange(COUNT)
    images = numbers.to(torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, 4, 4).contiguous()
    plain = {"mean": (0.0,) * 3, "std": (1.0,) * 3}
    of_images = Batches(ImageSet(images, numbers % 5, numbers), batch_size=4, **plain, **settings)
    return of_images, FeatureBatches(numbers.float().unsqueeze(1) / 255, numbers % 5, batch_size=4, **settings)


@pytest.mark.parametrize(
    "settings", [{}, {"shuffle": True, "seed": 3}, {"shuffle": True, "drop_last": True}], ids=["plain", "shuffled", "drop_last"]
)
def test_batches_are_those_of_the_images(settings):
    images, features = both(**settings)
    assert len(images) == len(features)
    assert (features.num_images, features.batch_size) == (images.num_images, images.batch_size)
    for epoch, start in ((0, 0), (1, 0), (1, 2), (1, len(features))):
        pairs = list(zip(images.iterate(epoch, start), features.iterate(epoch, start), strict=True))
        assert len(pairs) == len(features) - start
        for (image, label), (feature, same) in pairs:
            torch.testing.assert_close(image[:, 0, 0, :1], feature)
            assert torch.equal(label, same)


def test_a_place_that_no_epoch_has_is_refused():
    _, features = both()
    with pytest.raises(ValueError, match="start=7; must be 0 to 6"):
        next(features.iterate(0, 7))
