"""The digits of scikit-learn as 32x32 RGB."""

import numpy as np
import torch
from sklearn.datasets import load_digits as sklearn_digits

from cifar_lab.config import DataConfig
from cifar_lab.data.digits import load_digits
from cifar_lab.data.splits import load_splits


def test_each_shade_becomes_a_grey_square_of_sixteen_pixels():
    values = sklearn_digits().images  # [1797, 8, 8], 0 to 16
    images = load_digits(DataConfig(name="digits")).train.images
    assert images.shape == (1797, 3, 32, 32)
    assert torch.equal(images[:, 0], images[:, 1])
    assert torch.equal(images[:, 0], images[:, 2])
    for row in range(32):
        for column in range(0, 32, 3):
            shade = images[:, 0, row, column].numpy()
            assert np.array_equal(np.rint(shade / 255 * 16), values[:, row // 4, column // 4])
    assert images[:, 0].numpy().min() == 0
    assert images[:, 0].numpy().max() == 255


def test_labels_names_and_counts():
    source = load_digits(DataConfig(name="digits"))
    assert np.array_equal(source.train.labels.numpy(), sklearn_digits().target)
    assert source.train.labels.bincount().tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]  # UCI's count
    assert source.class_names == tuple("0123456789")
    assert source.test is source.val is None
    assert torch.equal(source.train.ids, torch.arange(1797))


def test_the_splits_of_a_run():
    made = load_splits(DataConfig(name="digits"))
    assert (len(made.test), len(made.val), len(made.train)) == (359, 144, 1294)  # a fifth, then a tenth of the rest
    every = torch.cat([made.train.ids, made.val.ids, made.test.ids])
    assert torch.equal(every.sort().values, torch.arange(1797))
    assert made.test.labels.bincount().min() >= 34
    assert load_splits(DataConfig(name="digits")).digest == made.digest
    assert made.notes == ()
