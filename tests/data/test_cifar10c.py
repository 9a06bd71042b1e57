"""The official CIFAR-10-C files: read as published, refused as anything else."""

from pathlib import Path

import numpy as np
import pytest

from cifar_lab.data.cifar10c import BENCHMARK, EXTRA, Cifar10C
from cifar_lab.errors import DataError

LABELS = np.random.default_rng(0).integers(0, 10, 10_000)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """The published layout with two corruptions; every picture is one color that tells severity and place."""
    made = tmp_path_factory.mktemp("c10c")
    np.save(made / "labels.npy", np.tile(LABELS, 5).astype(np.uint8))
    rows = np.arange(50_000)
    pictures = np.zeros((50_000, 32, 32, 3), dtype=np.uint8)
    pictures[:, :, :, 0] = (1 + rows // 10_000)[:, None, None]
    pictures[:, 0, 1, 1], pictures[:, 1, 0, 2] = rows % 251, rows % 241
    for name in ("fog", "spatter"):
        np.save(made / f"{name}.npy", pictures)
    return made


def test_pictures_come_by_severity_in_the_order_of_the_test_set(folder):
    source = Cifar10C(folder)
    assert source.names == ("fog", "spatter")
    rows = np.arange(50_000).reshape(5, 10_000)
    for severity, part in enumerate(source.severities("fog")):
        assert part.images.shape == (10_000, 3, 32, 32)
        assert (part.images[:, 0] == severity + 1).all()
        np.testing.assert_array_equal(part.images[:, 1, 0, 1].numpy(), rows[severity] % 251)
        np.testing.assert_array_equal(part.images[:, 2, 1, 0].numpy(), rows[severity] % 241)
        np.testing.assert_array_equal(part.labels.numpy(), LABELS)
        assert part.ids[0] == 50_000
    assert severity == 4


def test_labels_are_compared_with_those_of_the_run(folder):
    source = Cifar10C(folder)
    ids = np.array([50_003, 59_999])
    source.check_labels(ids, LABELS[ids - 50_000])
    with pytest.raises(DataError, match=r"labels\.npy: 1 of 2 labels are not those of CIFAR-10's test set"):
        source.check_labels(ids, (LABELS[ids - 50_000] + [0, 1]) % 10)


def test_the_benchmark_has_its_fifteen_and_four():
    assert len(set(BENCHMARK)) == 15
    assert len({*BENCHMARK, *EXTRA}) == 19


@pytest.mark.parametrize(
    ("name", "content", "text"),
    [
        ("labels.npy", np.zeros(10_000, dtype=np.uint8), r"labels\.npy holds uint8 \[10000\]; must be 50000 labels"),
        ("labels.npy", np.full(50_000, 10, dtype=np.uint8), r"labels\.npy holds .* 0 to 9"),
        ("labels.npy", np.repeat(np.arange(10), 5000).astype(np.uint8), "the labels of the five severities differ"),
        ("labels.npy", np.array([{}] * 50_000), r"labels\.npy cannot be read: .*Python objects"),
        ("labels.npy", None, "is no folder of CIFAR-10-C"),
        ("fog.npy", None, "is no folder of CIFAR-10-C"),
        ("fog.npy", np.zeros((10, 32, 32, 3), dtype=np.uint8), r"fog\.npy holds uint8 \[10, 32, 32, 3\]; must be uint8 \[50000"),
        ("fog.npy", np.zeros((4,), dtype=np.float32), r"fog\.npy holds float32 \[4\]"),
        ("fog.npy", b"no array", r"fog\.npy cannot be read"),
    ],
)
def test_another_file_is_refused(tmp_path, name, content, text):
    files = {"labels.npy": np.tile(LABELS, 5).astype(np.uint8), "fog.npy": np.zeros((1, 1), dtype=np.uint8), name: content}
    for file, value in files.items():
        if isinstance(value, bytes):
            (tmp_path / file).write_bytes(value)
        elif value is not None:
            np.save(tmp_path / file, value, allow_pickle=True)
    with pytest.raises(DataError, match=text):
        list(Cifar10C(tmp_path).severities("fog"))
