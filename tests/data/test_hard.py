"""Long tails against the published counts, wrong labels against the binomial distribution; val and test untouched."""

import pytest
import torch
from scipy.stats import binom, chisquare

from cifar_lab.config import DataConfig
from cifar_lab.data.hard import long_tail_counts
from cifar_lab.data.sets import ImageSet, Source
from cifar_lab.data.splits import load_splits, make_splits
from cifar_lab.errors import ConfigError, DataError

NAMES = tuple("abcdefghij")


def labelled(labels: torch.Tensor, first_id: int = 0) -> ImageSet:
    """Pictures that differ in their first bytes, which spell the id."""
    ids = torch.arange(first_id, first_id + len(labels))
    images = torch.zeros(len(labels), 3, 2, 2, dtype=torch.uint8)
    for place in range(3):
        images.view(len(labels), -1)[:, place] = (ids >> (8 * place)) & 255
    return ImageSet(images, labels, ids)


def balanced(per_class: int = 600, classes: int = 10) -> Source:
    labels = torch.arange(per_class * classes) % classes
    return Source(labelled(labels), labelled(torch.arange(100) % classes, 10**6), None, NAMES[:classes])


def config(**settings) -> DataConfig:
    return DataConfig(**{"name": "mine", "val_fraction": 0.0, **settings})


# The counts that papers give for the long-tailed CIFAR-10 with 5,000 images of the largest class.
PUBLISHED = {
    100: [5000, 2997, 1796, 1077, 645, 387, 232, 139, 83, 50],
    10: [5000, 3871, 2997, 2320, 1796, 1391, 1077, 834, 645, 500],
}


@pytest.mark.parametrize("factor", PUBLISHED)
def test_counts_are_the_published_ones(factor):
    assert long_tail_counts([5000] * 10, factor) == PUBLISHED[factor]


@pytest.mark.parametrize("factor", [1, 2, 3, 7, 10, 50, 100, 1000])
@pytest.mark.parametrize("classes", [2, 10, 100])
def test_the_ends_are_exact_whatever_the_rounding(factor, classes):
    counts = long_tail_counts([6000] * classes, factor)
    assert counts[0] == 6000
    assert counts[-1] == 6000 // factor
    assert counts == sorted(counts, reverse=True)


def test_unequal_classes_keep_the_profile_as_large_as_it_can_be():
    counts = long_tail_counts([100, 30, 80], 4)  # 1, 1/2, 1/4: the second class allows 60 of the first
    assert counts == [60, 30, 15]
    assert long_tail_counts([100, 0, 80], 4) == [100, 0, 25]


def test_a_long_tail_of_real_splits():
    whole = make_splits(balanced(), config(val_fraction=0.1))
    made = make_splits(balanced(), config(val_fraction=0.1, imbalance_factor=10.0))
    exact = [540 * 0.1 ** (k / 9) for k in range(10)]
    assert made.train.labels.bincount().tolist() == [int(n + 1e-9) for n in exact]
    for part in ("val", "test"):
        for field in ("images", "labels", "ids"):
            assert torch.equal(getattr(getattr(made, part), field), getattr(getattr(whole, part), field))
    assert torch.isin(made.train.ids, whole.train.ids).all()
    assert torch.equal(made.train.ids, made.train.ids.sort().values)
    assert torch.equal(made.train.labels, whole.train.labels[torch.isin(whole.train.ids, made.train.ids)])
    assert made.digest != whole.digest
    assert made.notes == (f"imbalance factor 10: {len(made.train):,} of 5,400 training images",)


def test_which_images_are_kept_is_a_matter_of_seed_and_id():
    source = balanced()
    shuffled = source.train.take(torch.randperm(6000, generator=torch.Generator().manual_seed(1)))
    ids = [
        set(
            make_splits(
                Source(train, source.test, None, NAMES), config(imbalance_factor=20.0, split_seed=seed)
            ).train.ids.tolist()
        )
        for train, seed in ((source.train, 0), (shuffled, 0), (source.train, 1))
    ]
    assert ids[0] == ids[1]
    assert ids[0] != ids[2]
    mild = make_splits(source, config(imbalance_factor=5.0)).train.ids.tolist()
    assert ids[0] <= set(mild), "a longer tail keeps a part of what a shorter one keeps"


@pytest.mark.parametrize("rate", [0.05, 0.4, 1.0])
def test_as_many_labels_are_wrong_as_chance_says_and_all_others_are_equally_likely(rate):
    clean, made = (make_splits(balanced(), config(**settings)) for settings in ({}, {"label_noise": rate}))
    assert torch.equal(clean.train.ids, made.train.ids)
    assert torch.equal(clean.train.images, made.train.images)
    changed = clean.train.labels != made.train.labels
    low, high = binom.interval(0.9999, 6000, rate)
    assert low <= int(changed.sum()) <= high
    further = (made.train.labels - clean.train.labels)[changed] % 10
    assert further.min() >= 1
    assert chisquare(further.bincount(minlength=10)[1:].numpy()).pvalue > 1e-3
    assert chisquare(made.train.labels[changed].bincount(minlength=10).numpy()).pvalue > 1e-3
    assert torch.equal(clean.test.labels, made.test.labels)
    assert made.notes == (f"label noise {rate:g}: {int(changed.sum()):,} of 6,000 training labels wrong",)
    assert made.digest != clean.digest


def test_wrong_labels_are_a_matter_of_seed_and_id():
    """The same image is wrong in the same way in a subset and in a long tail; other seeds give other ones."""

    def labels(**settings) -> dict[int, int]:
        train = make_splits(balanced(), config(label_noise=0.3, **settings)).train
        return dict(zip(train.ids.tolist(), train.labels.tolist(), strict=True))

    whole, subset, tail, other = labels(), labels(subset=500), labels(imbalance_factor=10.0), labels(split_seed=1)
    assert len(subset) == 500
    assert subset.items() <= whole.items()
    assert tail.items() <= whole.items()
    same = sum(whole[key] == other[key] for key in whole) / len(whole)
    assert 0.45 < same < 0.55  # 0.7 * 0.7 + a little chance


def test_validation_images_stay_clean():
    clean, noisy = (make_splits(balanced(), config(val_fraction=0.2, label_noise=rate)) for rate in (0.0, 0.9))
    assert torch.equal(clean.val.labels, noisy.val.labels)
    assert torch.equal(clean.val.ids, noisy.val.ids)


def test_what_cannot_be_is_refused():
    with pytest.raises(DataError) as error:
        make_splits(balanced(20), config(imbalance_factor=1000.0))
    assert error.value.what == "data.imbalance_factor=1000 leaves no training image of class 'e'"
    with pytest.raises(ConfigError, match=r"^data\.label_noise=0\.5 with one class"):
        make_splits(balanced(20, classes=1), config(label_noise=0.5))


def test_every_data_set_takes_both():
    made = load_splits(DataConfig(name="digits", imbalance_factor=10.0, label_noise=0.2))
    assert len(made.notes) == 2
    assert made.train.images.shape[1:] == (3, 32, 32)
