"""CIFAR's batch files: what they may hold, what they cannot do, and the real ones."""

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from cifar_lab.config import DataConfig
from cifar_lab.data import cifar, cifar_files
from cifar_lab.data.cifar import load_cifar10
from cifar_lab.data.sets import Source, channel_statistics
from cifar_lab.data.splits import load_splits
from cifar_lab.errors import DataError

# What the files may hold


class _Evil:
    def __init__(self, marker: Path):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


def test_a_pickle_that_runs_code_does_not_run_it(fake_cifar, tmp_path, python2):
    marker = tmp_path / "ran"
    content = python2({b"data": _Evil(marker), b"labels": []})
    evil = fake_cifar.with_file("data_batch_1", content)
    evil.lay_out(tmp_path / "root")
    with pytest.raises(DataError) as error:
        evil.load(tmp_path / "root")
    assert error.value.what == "CIFAR-10 data_batch_1 cannot be read: posix.mkdir is not allowed"
    assert not marker.exists()
    pickle.loads(content, encoding="bytes")  # it would have run
    assert marker.exists()


@pytest.mark.parametrize("name", ["numpy.core.multiarray\nscalar", "builtins\neval", "numpy\nload", "_codecs\nencode"])
def test_only_what_an_array_needs_can_be_named(name):
    module, _, attribute = name.partition("\n")
    with pytest.raises(DataError, match=rf"^CIFAR-10 x cannot be read: {module}\.{attribute} is not allowed$"):
        cifar._unpickle(cifar_files.CIFAR10, "x", b"\x80\x02c" + name.encode() + b"\n.")


def pictures(count: int = 20, dtype: str = "uint8", width: int = 3072) -> np.ndarray:
    return np.zeros((count, width), dtype=dtype)


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        ({b"data": pictures(19), b"labels": [0] * 19}, "data are not 20 pictures of 3072 bytes"),
        ({b"data": pictures(dtype="int8"), b"labels": [0] * 20}, "data are not 20 pictures of 3072 bytes"),
        ({b"data": pictures(width=3071), b"labels": [0] * 20}, "data are not 20 pictures of 3072 bytes"),
        ({b"labels": [0] * 20}, "data are not 20 pictures of 3072 bytes"),
        ({b"data": pictures(), b"labels": [0] * 21}, "there are not 20 labels"),
        ({b"data": pictures(), b"fine_labels": [0] * 20}, "there are not 20 labels"),
        ({b"data": pictures(), b"labels": [0] * 19 + [10]}, "label 10; must be 0 to 9"),
        ({b"data": pictures(), b"labels": [0] * 19 + [-1]}, "label -1; must be 0 to 9"),
        ({b"data": pictures(), b"labels": [0] * 19 + [True]}, "label True; must be 0 to 9"),
        ({b"data": pictures(), b"labels": [0] * 19 + [0.5]}, "label 0.5; must be 0 to 9"),
    ],
)
def test_counts_types_and_labels_are_checked(batch, message, fake_cifar, python2):
    with pytest.raises(DataError) as error:
        cifar._parse(fake_cifar.layout, "data_batch_1", python2(batch), 20)
    assert error.value.what == f"CIFAR-10 data_batch_1: {message}"


def test_what_is_no_batch_is_named(fake_cifar, python2):
    with pytest.raises(DataError, match=r"^CIFAR-10 test_batch holds list instead of a dictionary$"):
        cifar._parse(fake_cifar.layout, "test_batch", python2([1]), 10)
    with pytest.raises(DataError, match=r"^CIFAR-10 test_batch cannot be read: "):
        cifar._parse(fake_cifar.layout, "test_batch", b"\x80\x02}", 10)
    for names in ([b"cat"], [1] * 10, b"catdogbird"):
        with pytest.raises(DataError, match=r"^CIFAR-10 batches\.meta: there are not 10 class names$"):
            cifar._class_names(fake_cifar.layout, python2({b"label_names": names}))


# CIFAR-100


def test_cifar100_has_one_training_file_and_fine_labels(tmp_path, monkeypatch, python2):
    generator = np.random.default_rng(1)
    images = generator.integers(0, 256, (12, 3072), dtype=np.uint8)
    fine, coarse = list(range(88, 100)), [0] * 12
    files = {
        "train": python2({b"data": images[:8], b"fine_labels": fine[:8], b"coarse_labels": coarse[:8]}),
        "test": python2({b"data": images[8:], b"fine_labels": fine[8:], b"coarse_labels": coarse[8:]}),
        "meta": python2({b"fine_label_names": [f"fine{k}".encode() for k in range(100)], b"coarse_label_names": [b"c"] * 20}),
    }
    layout = cifar_files.CIFAR100
    assert set(layout.md5) == set(files)
    md5 = {name: cifar_files._md5(content) for name, content in files.items()}
    monkeypatch.setattr(cifar, "CIFAR100", cifar_files.Layout(**{**vars(layout), "md5": md5, "rows": 8, "test_rows": 4}))
    folder = tmp_path / "cifar-100-python"
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_bytes(content)
    made = cifar.load_cifar100(DataConfig(name="cifar100", root=str(tmp_path), download=False))
    assert made.train.labels.tolist() == fine[:8]
    assert made.test.labels.tolist() == fine[8:]
    assert np.array_equal(made.train.images.numpy().reshape(8, -1), images[:8])
    assert made.class_names[99] == "fine99"
    assert made.notes == ()
    with pytest.raises(DataError, match=r"^CIFAR-100 not in .*; put cifar-100-python\.tar\.gz there$"):
        cifar.load_cifar100(DataConfig(name="cifar100", root=str(tmp_path / "none"), download=False))


# The real thing


@pytest.fixture(scope="module")
def real(cifar10_root) -> Source:
    return load_cifar10(DataConfig(root=str(cifar10_root), download=False))


def test_the_real_cifar10_has_its_published_counts_and_statistics(real):
    assert real.train.images.shape == (50_000, 3, 32, 32)
    assert real.test.images.shape == (10_000, 3, 32, 32)
    assert real.train.labels.bincount().tolist() == [5000] * 10
    assert real.test.labels.bincount().tolist() == [1000] * 10
    assert real.class_names == ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
    assert torch.equal(real.train.ids, torch.arange(50_000))
    assert torch.equal(real.test.ids, torch.arange(50_000, 60_000))
    assert real.notes == ()
    mean, std = channel_statistics(real.train.images)
    assert mean == pytest.approx((0.4914, 0.4822, 0.4465), abs=5e-5)
    assert std == pytest.approx((0.2470, 0.2435, 0.2616), abs=5e-5)


def test_the_real_cifar10_begins_with_a_frog_two_trucks_and_a_deer(real):
    assert [real.class_names[label] for label in real.train.labels[:4]] == ["frog", "truck", "truck", "deer"]
    assert real.train.images[0, :, 0, 0].tolist() == [59, 62, 63]  # as every tutorial prints it


def test_one_real_batch_and_its_split(cifar10_root):
    settings = DataConfig(root=str(cifar10_root), download=False, train_batches=[1])
    made = load_splits(settings)
    assert (len(made.train), len(made.val), len(made.test)) == (9000, 1000, 10_000)
    assert made.notes == ("trained on data_batch_1 only",)
    # as published tutorials count the first batch
    assert (made.train.labels.bincount() + made.val.labels.bincount()).tolist() == [
        1005,
        974,
        1032,
        1016,
        999,
        937,
        1030,
        1001,
        1025,
        981,
    ]
    assert torch.cat([made.train.ids, made.val.ids]).max() < 10_000
