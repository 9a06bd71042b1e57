"""Splits: sizes by rule, disjoint by construction, the same for every seed of a run."""

import hashlib
import math

import numpy as np
import pytest
import torch

from cifar_lab.config import DataConfig
from cifar_lab.data import DATASETS, splits
from cifar_lab.data.sets import ImageSet, Source
from cifar_lab.data.splits import load_splits, make_splits
from cifar_lab.errors import ConfigError, DataError

NAMES = tuple("abcdefghij")


def image_set(labels: list[int] | torch.Tensor, first_id: int = 0, seed: int = 0) -> ImageSet:
    """Pictures that differ from each other."""
    labels = torch.as_tensor(labels, dtype=torch.int64)
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (len(labels), 3, 4, 4), dtype=torch.uint8, generator=generator)
    return ImageSet(images, labels, torch.arange(first_id, first_id + len(labels)))


def source(count: int = 1000, test: int | None = 100, classes: int = 10) -> Source:
    """``count`` training pictures whose classes come in a random order, unequally often."""
    generator = torch.Generator().manual_seed(3)
    weights = torch.arange(1, classes + 1, dtype=torch.float64)
    labels = torch.multinomial(weights, count, replacement=True, generator=generator)
    labels[:classes] = torch.arange(classes)
    test_set = None if test is None else image_set(torch.arange(test) % classes, first_id=count, seed=1)
    return Source(image_set(labels), test_set, None, NAMES[:classes], ("a note",))


def config(**settings) -> DataConfig:
    return DataConfig(**{"name": "mine", **settings})


def test_validation_images_are_held_out_by_class():
    made = make_splits(source(), config(val_fraction=0.1))
    assert (len(made.train), len(made.val), len(made.test)) == (900, 100, 100)
    of_train, of_val = made.train.labels.bincount(), made.val.labels.bincount()
    exact = (of_train + of_val) * 0.1
    assert (of_val - exact).abs().max() < 1
    assert made.notes == ("a note",)
    assert made.num_classes == 10


def test_nothing_is_lost_doubled_or_changed():
    whole = source(test=None)
    made = make_splits(whole, config(val_fraction=0.15, test_fraction=0.25))
    parts = (made.train, made.val, made.test)
    assert [len(part) for part in parts] == [638, 112, 250]  # 250 of 1,000, then 112.5 of 750 to the even side
    assert torch.equal(torch.cat([part.ids for part in parts]).sort().values, whole.train.ids)
    for part in parts:
        assert torch.equal(part.ids, part.ids.sort().values)
        assert torch.equal(part.images, whole.train.images[part.ids])
        assert torch.equal(part.labels, whole.train.labels[part.ids])


@pytest.mark.parametrize(("count", "fraction"), [(1000, 0.1), (1003, 0.1), (997, 0.15), (50_000, 0.2), (10, 0.33), (7, 0.5)])
def test_tail_takes_what_keras_takes(count, fraction):
    """keras.Model.fit(validation_split): split_at = floor(n * (1 - fraction)); train is before it."""
    whole = Source(image_set(torch.zeros(count)), image_set([0], count, seed=9), None, ("only",))
    made = make_splits(whole, config(split="tail", val_fraction=fraction))
    split_at = math.floor(count * (1.0 - fraction))
    assert torch.equal(made.train.ids, torch.arange(split_at))
    assert torch.equal(made.val.ids, torch.arange(split_at, count))


def test_the_split_follows_its_own_seed():
    base, same, other = (make_splits(source(), config(split_seed=seed)) for seed in (0, 0, 1))
    assert base.digest == same.digest
    assert torch.equal(base.val.ids, same.val.ids)
    shared = torch.isin(base.val.ids, other.val.ids).sum()
    assert shared < 30  # 10 of 100 expected
    assert base.digest != other.digest
    assert "seed" not in DataConfig.__dataclass_fields__  # the run's seed cannot get here


def test_the_choice_is_a_matter_of_ids_not_of_places():
    whole = source()
    shuffled = whole.train.take(torch.randperm(1000, generator=torch.Generator().manual_seed(0)))
    made = make_splits(whole, config())
    again = make_splits(Source(shuffled, whole.test, None, NAMES), config())
    assert set(made.val.ids.tolist()) == set(again.val.ids.tolist())


def test_held_out_images_are_spread_over_the_source():
    ids = make_splits(source(5000), config(val_fraction=0.2)).val.ids.numpy()
    quarters = np.histogram(ids, bins=4, range=(0, 5000))[0]
    assert abs(quarters - 250).max() < 60


def test_no_validation_set_if_none_is_asked_for():
    made = make_splits(source(), config(val_fraction=0.0))
    assert made.val is None
    assert len(made.train) == 1000


def test_a_validation_set_of_the_sources_own_is_used_as_it_is():
    whole = source()
    own = image_set([1, 2], first_id=5000, seed=8)
    made = make_splits(Source(whole.train, whole.test, own, NAMES), config(val_fraction=0.3))
    assert made.val is own
    assert made.train is whole.train


@pytest.mark.parametrize("split", ["stratified", "tail"])
def test_copies_of_a_picture_stay_in_training(split):
    whole = source()
    images = whole.train.images.clone()
    images[500:] = images[:500]  # each picture twice, and the tail all copies of the head
    labels = torch.cat([whole.train.labels[:500]] * 2)
    images[990:], labels[990:] = source(20).train.images[10:] ^ 255, torch.arange(10)  # but ten are alone
    twice = Source(ImageSet(images, labels, whole.train.ids), whole.test, None, NAMES)
    made = make_splits(twice, config(split=split, val_fraction=0.2))
    assert torch.equal(torch.cat([made.train.ids, made.val.ids]).sort().values, whole.train.ids)
    assert torch.equal(made.train.ids, made.train.ids.sort().values)
    of_train = {picture.numpy().tobytes() for picture in made.train.images}
    assert not of_train & {picture.numpy().tobytes() for picture in made.val.images}
    given_back = 200 - len(made.val)
    assert given_back > 50
    assert made.notes == (f"{given_back} validation images are copies of training images and were given back to training",)
    assert torch.equal(made.train.images, images[made.train.ids])


def test_pictures_that_differ_in_little_are_no_copies():
    """Any two differ in two bytes by the highest bit, at the end of an eight-byte word: sums modulo 2**64 lose that."""
    images = torch.zeros(300, 3, 32, 32, dtype=torch.uint8)
    for k in range(300):
        images.view(300, -1)[k, [7, 8 * k + 15]] = 128
    whole = ImageSet(images, torch.arange(300) % 2, torch.arange(300))
    made = make_splits(Source(whole, whole.take(torch.tensor([0])), None, ("a", "b")), config())
    assert made.notes == ()
    assert len(made.val) == 30


def test_a_subset_is_stratified_of_the_asked_size_and_noted():
    whole = source(2000, test=400)
    made = make_splits(whole, config(subset=90, val_fraction=0.2))
    full = make_splits(whole, config(val_fraction=0.2))
    for part, everything in ((made.train, full.train), (made.val, full.val), (made.test, full.test)):
        assert len(part) == 90
        assert torch.isin(part.ids, everything.ids).all()
        assert torch.equal(part.ids, part.ids.sort().values)
        exact = everything.labels.bincount(minlength=10) * 90 / len(everything)
        assert (part.labels.bincount(minlength=10) - exact).abs().max() < 1
    assert made.notes[-1] == "a subset: at most 90 images each for training, validation and test"
    assert not torch.equal(made.train.ids, full.train.ids[:90])


def test_a_subset_larger_than_a_set_takes_all_of_it():
    made = make_splits(source(), config(subset=500))
    assert (len(made.train), len(made.val), len(made.test)) == (500, 100, 100)


def test_sets_that_would_be_empty_and_classes_that_would_be_lost_are_refused():
    with pytest.raises(DataError, match=r"^data\.val_fraction=0\.01 of 20 images leaves a set empty$"):
        make_splits(source(20), config(val_fraction=0.01))
    sorted_by_class = Source(image_set([0] * 50 + [1] * 50), image_set([0], 100), None, ("cat", "dog"))
    with pytest.raises(DataError) as error:
        make_splits(sorted_by_class, config(split="tail", val_fraction=0.5))
    assert error.value.what == "data.split=tail leaves no training image of class 'dog'"
    assert error.value.hint == "use data.split=stratified"
    made = make_splits(sorted_by_class, config(split="stratified", val_fraction=0.5))
    assert made.train.labels.bincount().tolist() == made.val.labels.bincount().tolist() == [25, 25]


def test_a_class_of_one_image_is_trained_on():
    one_of_a_hundred = Source(image_set([0] * 99 + [1]), image_set([0], 100), None, ("many", "one"))
    made = make_splits(one_of_a_hundred, config(val_fraction=0.9))  # its share would be 0.9 images
    assert made.train.labels.bincount().tolist() == [9, 1]
    assert made.val.labels.bincount().tolist() == [90]


def test_all_copies_leave_no_validation_set():
    same = ImageSet(torch.zeros(10, 3, 4, 4, dtype=torch.uint8), torch.zeros(10, dtype=torch.int64), torch.arange(10))
    with pytest.raises(DataError, match=r"^the validation set is empty$"):
        make_splits(Source(same, image_set([0]), None, ("a",)), config())


def test_the_digest_is_sha256_of_everything_and_sees_every_bit():
    whole = source(50, test=20)
    made = make_splits(whole, config(val_fraction=0.0))
    state = hashlib.sha256()
    state.update(b"[50, 3, 4, 4]\n" + whole.train.images.numpy().tobytes())
    state.update(np.asarray(whole.train.labels).tobytes() + np.asarray(whole.train.ids).tobytes())
    state.update(b"none\n")
    state.update(b"[20, 3, 4, 4]\n" + whole.test.images.numpy().tobytes())
    state.update(np.asarray(whole.test.labels).tobytes() + np.asarray(whole.test.ids).tobytes())
    assert made.digest == state.hexdigest()
    images = whole.test.images.clone()
    images[19, 2, 3, 3] ^= 1
    other = Source(whole.train, ImageSet(images, whole.test.labels, whole.test.ids), None, NAMES)
    assert make_splits(other, config(val_fraction=0.0)).digest != made.digest


def test_labels_that_are_a_view_are_digested_all_the_same():
    plain = image_set([0, 1, 0, 1])
    strided = ImageSet(plain.images, torch.tensor([0, 9, 1, 9, 0, 9, 1, 9])[::2], plain.ids)
    test = image_set([0], 4, seed=2)
    digests = {make_splits(Source(part, test, None, ("a", "b")), config(val_fraction=0)).digest for part in (plain, strided)}
    assert len(digests) == 1


# What a source may be


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ({"images": torch.zeros(2, 3, 4, 4)}, "images are torch.float32 [2, 3, 4, 4]; must be uint8 [N, 3, H, W]"),
        (
            {"images": torch.zeros(2, 1, 4, 4, dtype=torch.uint8)},
            "images are torch.uint8 [2, 1, 4, 4]; must be uint8 [N, 3, H, W]",
        ),
        (
            {"images": torch.zeros(2, 4, 4, 3, dtype=torch.uint8).permute(0, 3, 1, 2)},
            "images must be a contiguous tensor in host memory",
        ),
        ({"labels": torch.zeros(3, dtype=torch.int64)}, "labels are torch.int64 [3]; must be int64 [2]"),
        ({"ids": torch.zeros(2, dtype=torch.int32)}, "ids are torch.int32 [2]; must be int64 [2]"),
    ],
)
def test_an_image_set_is_what_it_says(part, message):
    good = {"images": torch.zeros(2, 3, 4, 4, dtype=torch.uint8), "labels": torch.zeros(2).long(), "ids": torch.arange(2)}
    assert len(ImageSet(**good)) == 2
    with pytest.raises(DataError) as error:
        ImageSet(**{**good, **part})
    assert error.value.what == message


@pytest.mark.parametrize("label", [-1, 2])
def test_a_label_without_a_class_is_refused(label):
    for train, test in (([0, label], [0]), ([0, 1], [label])):
        with pytest.raises(DataError, match=rf"^(train|test): label {label} with 2 classes$"):
            Source(image_set(train), image_set(test), None, ("a", "b"))


def test_pictures_of_two_sizes_and_no_pictures_are_refused():
    larger = ImageSet(torch.zeros(1, 3, 5, 4, dtype=torch.uint8), torch.zeros(1).long(), torch.arange(1))
    with pytest.raises(DataError, match=r"^val: pictures are \[3, 5, 4\], train \[3, 4, 4\]$"):
        Source(image_set([0]), None, larger, ("a",))
    with pytest.raises(DataError, match=r"^the data set has no training images$"):
        Source(image_set([]), None, None, ("a",))


# Loaders


def test_a_persons_loader_is_called_and_handed_what_it_asks_for(monkeypatch):
    seen = {}

    def plain(settings: DataConfig) -> Source:
        seen["plain"] = settings
        return source()

    def asking(settings: DataConfig, *, stop, progress) -> Source:
        seen["asking"] = (stop, progress)
        return source()

    monkeypatch.setattr(splits, "DATASETS", {"plain": "tests_loaders:plain", "asking": "tests_loaders:asking"})
    monkeypatch.setattr(splits.pkgutil, "resolve_name", lambda row: {"plain": plain, "asking": asking}[row.split(":")[1]])
    settings = config(name="plain")
    assert len(load_splits(settings).train) == 900
    assert seen["plain"] is settings

    def stop() -> None: ...

    def progress(what: str, done: int, total: int) -> None: ...

    load_splits(config(name="asking"), stop=stop, progress=progress)
    assert seen["asking"] == (stop, progress)
    monkeypatch.setattr(splits.pkgutil, "resolve_name", lambda row: lambda settings: [1, 2])
    with pytest.raises(DataError, match=r"^data=plain: its loader returned list; must be a Source$"):
        load_splits(config(name="plain"))


def test_an_unknown_data_set_is_refused_with_all_known_ones():
    with pytest.raises(ConfigError, match=r"^data\.name=mnist; must be one of cifar10, cifar100, digits, folder$"):
        load_splits(config(name="mnist"))


@pytest.mark.parametrize("name", DATASETS)
def test_every_row_is_a_loader(name):
    load = splits.pkgutil.resolve_name(DATASETS[name])
    assert callable(load)
    assert load.__name__ == f"load_{name}"
