"""A data set looked at: counts and statistics by numpy, augmented pictures out of the batches, pairs that are planted."""

import json

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from cifar_lab import schema
from cifar_lab.augmented import augmented_views
from cifar_lab.cli import app
from cifar_lab.data.sets import ImageSet, Splits
from cifar_lab.data.splits import load_splits
from cifar_lab.exploring import check_images, find_pairs, mean_images
from cifar_lab.parts import build_batches

DIGITS = ("data=digits", "data.subset=120", "threads=1")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    schema.register()


def test_the_command_says_what_numpy_says(tmp_path):
    arguments = ["eda", *DIGITS, "data.label_noise=0.2", "augment=cutmix", "--out", str(tmp_path / "eda"), "--json"]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert json.loads((tmp_path / "eda" / "eda.json").read_text()) == found
    splits = load_splits(schema.compose([*DIGITS, "data.label_noise=0.2"]).data)
    assert found["digest"] == splits.digest
    assert found["notes"] == list(splits.notes)
    assert len(found["notes"]) == 2
    for name in ("train", "val", "test"):
        part, said = getattr(splits, name), found["splits"][name]
        pixels = part.images.numpy() / 255
        np.testing.assert_allclose(said["mean"], pixels.mean(axis=(0, 2, 3)), rtol=1e-12)
        np.testing.assert_allclose(said["std"], pixels.std(axis=(0, 2, 3)), rtol=1e-12)
        assert said["class_counts"] == np.bincount(part.labels.numpy(), minlength=10).tolist()
    assert all(check["passed"] for check in found["checks"])
    header, *rows = (tmp_path / "eda" / "class_counts.csv").read_text().splitlines()
    assert header == "class,train,val,test"
    assert [sum(int(row.split(",")[k]) for row in rows) for k in (1, 2, 3)] == [120, 120, 120]
    names = {"class_counts.png", "class_samples.png", "mean_images.png", "near_duplicates.png", "augmentation_cutmix.png"}
    assert set(found["pictures"]) == names
    assert names < {path.name for path in (tmp_path / "eda").iterdir()}
    pairs, seconds, remembered = find_pairs(splits)
    assert (found["near_duplicates"]["remembered"], remembered) == (False, True)
    assert found["near_duplicates"]["seconds"] == seconds
    assert [(row["detail"], row["test_id"]) for row in found["near_duplicates"]["pairs"]] == [
        (pair.detail, int(splits.test.ids[pair.second])) for pair in pairs
    ]


def test_mean_images_are_numpys_and_a_class_without_images_has_none():
    images = torch.randint(0, 256, (9, 3, 4, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([0, 2, 2, 0, 0, 2, 2, 0, 2])
    means = mean_images(ImageSet(images, labels, torch.arange(9)), 3)
    for k in (0, 2):
        np.testing.assert_allclose(means[k], images.numpy().astype(float)[labels == k].mean(axis=0))
    assert np.isnan(means[1]).all()


@pytest.mark.parametrize("augment", ["crop_flip_cutout", "cutmix"])
def test_augmented_pictures_are_those_of_the_batches(augment):
    config = schema.compose([*DIGITS, f"augment={augment}", "train.batch_size=32", "train.drop_last=true", "seed=3"])
    splits = load_splits(config.data)
    statistics = ((0.5,) * 3, (0.5,) * 3)
    batches = build_batches(config, splits.train, statistics, torch.device("cpu"), training=True, num_classes=10)
    positions = list(range(40))
    views = augmented_views(config, splits, positions, 2)
    for epoch in range(2):
        seen = list(batches.iterate(epoch))
        shown = torch.cat([images for images, _ in seen])
        targets = torch.cat([labels for _, labels in seen])
        targets = torch.nn.functional.one_hot(targets, 10).double() if targets.ndim == 1 else targets.double()
        # Which picture stands where is asked of batches that leave pictures as they are.
        plain = build_batches(
            schema.compose([*DIGITS, "train.batch_size=32", "seed=3"]),
            splits.train,
            statistics,
            torch.device("cpu"),
            training=True,
        )
        order = torch.cat([images for images, _ in plain.iterate(epoch)])
        stored = (splits.train.images / 255 - 0.5) / 0.5
        left_out = 0
        for position in positions:
            (place,) = ((order - stored[position]).abs().amax((1, 2, 3)) < 1e-3).nonzero()
            view = views[position][epoch]
            if place >= len(shown):
                assert view is None
                left_out += 1
                continue
            bytes_of = (shown[int(place)] * 0.5 + 0.5).mul(255).round().clamp(0, 255).byte()
            np.testing.assert_array_equal(view[0], bytes_of.numpy())
            np.testing.assert_allclose(view[1], targets[int(place)].numpy())
        assert left_out > 0, "96 of 120 pictures fill the batches"


def test_planted_near_duplicates_are_found_in_train_and_in_val(tmp_path):
    generator = torch.Generator().manual_seed(0)

    def noise(count: int, first: int) -> ImageSet:
        images = torch.randint(0, 256, (count, 3, 32, 32), dtype=torch.uint8, generator=generator)
        return ImageSet(images, torch.zeros(count).long(), torch.arange(first, first + count))

    train, val, test = noise(30, 0), noise(10, 30), noise(20, 40)
    test.images[4], test.images[9] = train.images[7].flip(2), (val.images[3].float() * 0.8).byte()
    splits = Splits(train, val, test, ("a",), (), "d" * 64)
    pairs, _, remembered = find_pairs(splits)
    assert not remembered
    assert {(pair.first, pair.second, pair.mirrored) for pair in pairs} == {(7, 4, True), (33, 9, False)}
    assert find_pairs(splits)[0] == pairs
    assert find_pairs(splits)[2]


def test_checks_see_what_is_wrong():
    dark = ImageSet(torch.randint(0, 2, (4, 3, 8, 8), dtype=torch.uint8), torch.tensor([0, 0, 1, 1]), torch.tensor([0, 0, 1, 2]))
    dark.images[0] = 1
    wrong = {check["check"] for check in check_images({"train": dark}, 3) if not check["passed"]}
    assert wrong == {"pixels use the range 0 to 255", "ids are unique", "every class occurs", "no picture is of one color"}


def test_what_is_wrong_in_the_line_is_said_before_any_work(tmp_path):
    assert CliRunner().invoke(app, ["eda", "data.subst=3"]).exit_code == 2
    assert CliRunner().invoke(app, ["eda", *DIGITS, "--figures", "gif", "--out", str(tmp_path / "x")]).exit_code == 2
    assert not (tmp_path / "x").exists()
