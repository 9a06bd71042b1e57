"""Test images that only one side gets right: how many, more than chance explains or not, and what some of them look like."""

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from cifar_lab.analysis.typeset import Column, Row, Table
from cifar_lab.study import wording
from cifar_lab.study.design import Run, Study
from cifar_lab.study.images import Answers, ImageChanges
from cifar_lab.study.inline import png

Side = Mapping[int, Answers]
"""Answers of a variant's runs by seed."""
_VARIANTS = 4  # that are shown with pictures
_EACH = 8  # pictures of each side
_LISTED = 40  # numbers of images, where there are no pictures
_SIZE = 96  # pixels a side


@dataclass(frozen=True)
class Shown:
    """A picture with what is below it.

    Args:
        address: The picture itself, as data.
        text: Its class and what it was taken for.
    """

    address: str
    text: str


@dataclass(frozen=True)
class Group:
    """Images that one side gets right and the other does not.

    Args:
        title: Which side, and how many they are.
        pictures: Some of them; empty where they are not to be had.
        text: Their numbers.
    """

    title: str
    pictures: Sequence[Shown]
    text: str


@dataclass(frozen=True)
class Gallery:
    """What the page says of single images.

    Args:
        table: A row per variant.
        caption: How to read it.
        groups: Of the variants with the most such images beyond chance.
    """

    table: Table
    caption: str
    groups: Sequence[Group]


def gallery(
    study: Study,
    changes: Mapping[str, ImageChanges],
    answers: Callable[[str], Side],
    class_names: Sequence[str],
    test_images: Callable[[Run], np.ndarray | None] | None,
) -> Gallery | None:
    """None where nothing could be compared.

    Args:
        study: Of the labels.
        changes: By variant.
        answers: Of a variant; asked for those that are shown.
        class_names: K names.
        test_images: Where pictures come from; None: their numbers stand for them.
    """
    usable = {name: one for name, one in changes.items() if one.images}
    if not usable:
        return None
    excess = {name: len(one.only_variant) + len(one.only_baseline) - 2 * one.expected for name, one in usable.items()}
    first = sorted((name for name, one in usable.items() if one.n > 1 and excess[name] > 0), key=lambda name: -excess[name])
    shown = [name for name in first[:_VARIANTS] if len(usable[name].only_variant) + len(usable[name].only_baseline)]
    run = next(iter(study.variants[study.baseline].done.values()))
    images = test_images(run) if test_images is not None and shown else None
    baseline = answers(study.baseline) if shown else {}
    groups = []
    for name in shown:
        one, label = usable[name], study.variants[name].label
        for places, right, wrong, told in (
            (one.only_variant, label, baseline, "all seeds of {} and none of the baseline"),
            (one.only_baseline, label, answers(name), "all seeds of the baseline and none of {}"),
        ):
            if len(places):
                title = f"{told.format(right)}: {wording.count(len(places), 'image')}"
                groups.append(_group(f"Right in {title}", places, wrong, class_names, images))
    return Gallery(_table(study, usable), _caption(bool(groups), images is not None), groups)


def _group(title: str, places: np.ndarray, wrong: Side, names: Sequence[str], images: np.ndarray | None) -> Group:
    shown: list[Shown] = []
    for place in places[:_EACH].tolist():
        if images is None:
            break
        true = names[next(iter(wrong.values())).labels[place]]
        taken = names[_most_frequent([one.predicted[place] for one in wrong.values()])]
        shown.append(Shown(_picture(images[place]), f"{true}, taken for {taken} (image {place})"))
    more = f" and {len(places) - _LISTED:,} more" if len(places) > _LISTED else ""
    return Group(title, shown, f"Images {', '.join(map(str, places[:_LISTED].tolist()))}{more}.")


def _table(study: Study, changes: Mapping[str, ImageChanges]) -> Table:
    rows = [
        {
            "variant": name,
            "label": study.variants[name].label,
            "pairs": one.n,
            "images": one.images,
            "only_variant": len(one.only_variant),
            "only_baseline": len(one.only_baseline),
            "expected": one.expected,
            "churn": one.churn,
            "between": one.between,
        }
        for name, one in changes.items()
    ]

    def share(name: str) -> Callable[[Row], str]:
        return lambda row: wording.DASH if row[name] is None else f"{100 * row[name]:.1f} %"

    columns = [
        Column("variant", lambda row: row["label"], is_number=False),
        Column("seeds", lambda row: str(row["pairs"])),
        Column("only variant right", lambda row: f"{row['only_variant']:,}"),
        Column("only baseline right", lambda row: f"{row['only_baseline']:,}"),
        Column("expected by chance", lambda row: f"{row['expected']:.1f}"),
        Column("two seeds disagree", share("churn")),
        Column("variant and baseline disagree", share("between")),
    ]
    return Table("images", "Images that only one side gets right.", columns, rows)


def _caption(any_group: bool, pictures: bool) -> str:
    text = (
        "Test images that all seeds of one side and none of the other get right; by chance: how many there would be on either "
        "side, "
        "did it not matter which side a run is on. Disagreement is about which images are right: of two seeds of one side, which "
        "is "
        "churn, and of a run of each side with the same seed."
    )
    if any_group and not pictures:
        text += " The images themselves were not found here: the numbers below are places in the test set, counted from 0."
    elif any_group:
        text += " Image numbers are places in the test set, counted from 0."
    return text


def _most_frequent(values: Sequence[int]) -> int:
    return int(np.bincount(values).argmax())


def _picture(image: np.ndarray) -> str:
    """An image uint8 [3, H, W], not larger than the page shows it."""
    picture = Image.fromarray(np.ascontiguousarray(image.transpose(1, 2, 0)))
    picture.thumbnail((_SIZE, _SIZE))
    made = io.BytesIO()
    picture.save(made, format="PNG", optimize=True)
    return png(made.getvalue())
