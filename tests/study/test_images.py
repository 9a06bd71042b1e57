"""Classes and images of made-up sweeps, against counting in plain loops."""

import io
import itertools
import math

import numpy as np
import pytest
from made_sweep import CLASSES, IMAGES, make_sweep, pack
from scipy import stats
from sklearn.metrics import confusion_matrix

from cifar_lab import storage
from cifar_lab.study.design import load_study
from cifar_lab.study.detail import Detail, look_closer
from cifar_lab.study.images import (
    Answers,
    changes_between,
    confusion_counts,
    load_answers,
    recall_changes,
)
from cifar_lab.study.measures import read_measures
from cifar_lab.study.verdicts import judge

NONE, FIVE = "ablation=none", "ablation=kernel5"
SIDES = {NONE: [0.70, 0.71, 0.69], FIVE: [0.80, 0.82, 0.79]}


def given(rows, belief=None):
    """Answers by seed from rows of right (1) and wrong (0) images of class 0."""
    found = {}
    for seed, row in enumerate(rows):
        row = np.array(row)
        likely = np.full(len(row), 0.5, dtype=np.float32) if belief is None else np.array(belief[seed], dtype=np.float32)
        found[seed] = Answers(np.zeros(len(row), dtype=np.int64), 1 - row, likely, np.arange(len(row)) + 100)
    return found


def detail_of(study) -> Detail:
    return look_closer(judge(study), read_measures(study), None)


def test_only_one_side_means_all_seeds_of_it_and_none_of_the_other():
    #            both  gained  lost  churn  gained  neither
    variant = [[1, 1, 0, 1, 1, 0], [1, 1, 0, 0, 1, 0]]
    baseline = [[1, 0, 1, 0, 0, 0], [1, 0, 1, 1, 0, 0]]
    belief = [[0.9, 0.6, 0.1, 0.5, 0.9, 0.1]] * 2, [[0.9, 0.4, 0.8, 0.5, 0.1, 0.1]] * 2
    found = changes_between("v", given(variant, belief[0]), given(baseline, belief[1]))
    assert found.only_variant.tolist() == [4, 1]  # the belief in the truth rose most in 4
    assert found.only_baseline.tolist() == [2]
    assert (found.n, found.images) == (2, 6)
    # images with 2 of 4 runs right: 1, 2, 3, 4; one in C(4, 2) = 6 of each would be so
    assert found.expected == pytest.approx(4 / 6)
    # only image 3 is disputed between the seeds of a side, on both sides
    assert found.churn == pytest.approx(1 / 6)
    assert found.between == pytest.approx((4 + 4) / 12)
    assert found.ids.tolist() == [100, 101, 102, 103, 104, 105]


def test_what_is_expected_is_the_mean_over_all_ways_to_choose_sides():
    rng = np.random.default_rng(3)
    rows = (rng.random((6, 40)) < rng.random(40)).astype(int)
    found = changes_between("v", given(rows[:3]), given(rows[3:]))
    counts = []
    for side in itertools.combinations(range(6), 3):
        rest = [k for k in range(6) if k not in side]
        counts.append(int((rows[list(side)].all(0) & ~rows[rest].any(0)).sum()))
    assert len(counts) == math.comb(6, 3)
    assert found.expected == pytest.approx(np.mean(counts))
    pairs = [(a, b) for side in ((0, 1, 2), (3, 4, 5)) for a, b in itertools.combinations(side, 2)]
    assert found.churn == pytest.approx(np.mean([(rows[a] != rows[b]).mean() for a, b in pairs]))


def test_alike_recipes_show_what_is_expected_and_better_ones_more(tmp_path):
    sides = {NONE: [0.7] * 4, "ablation=same": [0.7] * 4, FIVE: [0.85] * 4}
    found = detail_of(load_study(make_sweep(tmp_path, sides))).numbers["images"]
    same, five = found["ablation=same"], found[FIVE]
    assert abs(same["only_variant_count"] - same["expected"]) < 4 * math.sqrt(same["expected"]) + 2
    assert five["only_variant_count"] > five["expected"] + 4 * math.sqrt(five["expected"])
    assert five["images"] == IMAGES
    assert set(found) == {"ablation=same", FIVE}


def test_what_cannot_be_compared_says_why():
    found = changes_between("v", {0: given([[1, 0]])[0]}, {1: given([[1, 0]])[0]})
    assert (found.images, found.reason) == (0, "no seed has saved answers about the same classes on both sides")
    found = changes_between("v", given([[1, 0]]), given([[1, 0, 1]]))
    assert found.reason == "the runs were tested on different images"
    one = changes_between("v", given([[1, 0]]), given([[0, 0]]))
    assert (one.n, one.churn, one.between, one.expected) == (1, None, 0.5, 0.5)


def test_answers_are_read_back(tmp_path):
    study = load_study(make_sweep(tmp_path, SIDES))
    run = study.runs[0]
    found = load_answers(run)
    assert found is not None
    assert found.right.mean() == run.result["metrics"]["test"]["accuracy"] == 0.70
    assert found.ids[0] == 50_000
    # logits of 4 for the answer and 0 for four others
    assert np.unique(found.belief.round(4)).tolist() == pytest.approx(
        [1 / (math.e**4 + 4), math.e**4 / (math.e**4 + 4)], abs=1e-4
    )
    assert len(load_answers(run, "val").labels) == IMAGES // 2
    assert load_answers(run, "train") is None


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04 no archive", None])
def test_missing_and_damaged_answers_are_none(tmp_path, damage):
    study = load_study(make_sweep(tmp_path, SIDES))
    path = study.runs[0].folder / "predictions.npz"
    if damage is None:
        whole = path.read_bytes()
        damage = whole[: len(whole) // 2]
    storage.write_bytes(path, damage)
    assert load_answers(study.runs[0]) is None
    # the seed is no pair any more
    found = detail_of(study).numbers
    assert found["images"][FIVE]["n"] == 2
    whole = [confusion_counts(load_answers(run), 5) for run in study.variants[NONE].runs[1:]]
    assert found["mean_confusion"][NONE] == np.mean(whole, axis=0).tolist()


def test_confusions_are_sklearns(tmp_path):
    study = load_study(make_sweep(tmp_path, SIDES, confused={"bird": "airplane"}))
    matrices = []
    for run in study.variants[NONE].runs:
        answers = load_answers(run)
        expected = confusion_matrix(answers.labels, answers.predicted, labels=range(5))
        assert np.array_equal(confusion_counts(answers, 5), expected)
        matrices.append(expected)
    found, mean = detail_of(study), np.mean(matrices, axis=0)
    assert found.numbers["mean_confusion"][NONE] == pytest.approx(mean)
    first, second = found.confused.columns[1:3]
    assert (first.title, first.show(found.confused.rows[0])) == ("bird → airplane", f"{mean[1, 0]:.1f}")
    assert found.confused.rows[0][first.title] > found.confused.rows[0][second.title] > 0


@pytest.mark.parametrize("names", [[f"digit {k}" for k in range(5)], [f"class {k}" for k in range(7)]])
def test_variants_of_another_data_set_are_in_no_table_of_classes(tmp_path, names):
    other = "data=other"
    make_sweep(tmp_path, {NONE: [0.7, 0.71], FIVE: [0.8, 0.81], other: [0.5, 0.5]})
    rng = np.random.default_rng(0)
    for seed in range(2):
        place = tmp_path / f"{other},seed={seed}"
        result = storage.read_json(place / "result.json")
        result["data"]["classes"] = names
        for row, name in zip(result["metrics"]["test"]["per_class"], names, strict=False):
            row["name"] = name
        storage.write_json(place / "result.json", result)
        labels = np.arange(IMAGES) % len(names)
        storage.write_bytes(place / "predictions.npz", pack(test=(rng.permutation(labels), labels)))
    study = load_study(tmp_path)
    note = "runs on data with other classes stay out of what is said of classes and images: data=other"
    assert judge(study).notes[-1] == note
    found = detail_of(study)
    assert set(found.numbers["mean_confusion"]) == {NONE, FIVE}
    assert [row["variant"] for row in found.confused.rows] == [NONE, FIVE]
    assert set(found.numbers["recall_changes"]) == {FIVE}
    assert found.numbers["images"][other]["reason"] == "no seed has saved answers about the same classes on both sides"
    assert found.numbers["images"][FIVE]["images"] == IMAGES


def test_recalls_change_by_pairs(tmp_path):
    study = load_study(make_sweep(tmp_path, {NONE: [*SIDES[NONE], 0.7], FIVE: [*SIDES[FIVE], "E-OOM"]}))
    found = recall_changes(study, FIVE)
    assert [one.name for one in found] == list(CLASSES)
    for k, one in enumerate(found):
        sides = []
        for variant in (FIVE, NONE):
            answers = [load_answers(run) for run in study.variants[variant].runs[:3]]
            sides.append([a.right[a.labels == k].mean() for a in answers])
        expected = stats.ttest_rel(*sides).confidence_interval(0.95)
        assert one.n == 3
        assert one.interval == pytest.approx((expected.low, expected.high), rel=1e-6)
        assert (one.variant, one.baseline) == pytest.approx((np.mean(sides[0]), np.mean(sides[1])))
        assert one.difference == pytest.approx(one.variant - one.baseline)


def test_equal_changes_of_a_class_are_not_marked(tmp_path):
    make_sweep(tmp_path, {NONE: [0.70, 0.71], FIVE: [0.80, 0.82]})
    for k, side in enumerate((NONE, FIVE)):
        for seed in range(2):
            place = tmp_path / f"{side},seed={seed}" / "result.json"
            result = storage.read_json(place)
            for row in result["metrics"]["test"]["per_class"]:
                # cat: the same change in both seeds; deer: nearly so, which two seeds may show
                row["recall"] = 0.5 + 0.01 * seed + 0.1 * k + 0.001 * (row["name"] == "deer") * k * seed
            storage.write_json(place, result)
    found = detail_of(load_study(tmp_path))
    cat, deer = (next(one for one in found.numbers["recall_changes"][FIVE] if one["class"] == name) for name in ("cat", "deer"))
    assert cat["interval"] is None
    assert deer["interval"][0] > 0
    _, cells = found.classes.cells
    assert cells[1:] == ["+10.00", "+10.00", "+10.00", "+10.05*", "+10.00"]
    assert [row[-1] for row in found.recalls.cells][2] == "–"


def test_a_class_of_the_same_name_among_others_is_another_class(tmp_path):
    make_sweep(tmp_path, {NONE: [0.70, 0.71], FIVE: [0.80, 0.82]})
    for seed in range(2):
        place = tmp_path / f"{FIVE},seed={seed}" / "result.json"
        result = storage.read_json(place)
        result["data"]["classes"] = [*CLASSES[:-1], "whale"]
        storage.write_json(place, result)
    assert [one.difference for one in recall_changes(load_study(tmp_path), FIVE)] == [None] * 5


def test_nothing_done_changes_nothing(tmp_path):
    study = load_study(make_sweep(tmp_path, {NONE: [0.7], FIVE: ["waiting"]}))
    assert [one.difference for one in recall_changes(study, FIVE)] == [None] * 5
    found = detail_of(study).numbers
    assert found["images"][FIVE]["images"] == 0
    assert set(found["mean_confusion"]) == {NONE}


def test_logits_far_from_zero_stay_finite(tmp_path):
    make_sweep(tmp_path, {NONE: [0.7]})
    logits = 1e4 * np.eye(5, dtype=np.float32)
    packed = io.BytesIO()
    np.savez(packed, test_logits=logits, test_labels=np.array([0, 1, 2, 3, 0]))
    storage.write_bytes(tmp_path / f"{NONE},seed=0" / "predictions.npz", packed.getvalue())
    found = load_answers(load_study(tmp_path).runs[0])
    assert found.belief.tolist() == [1, 1, 1, 1, 0]
    assert found.ids.tolist() == [0, 1, 2, 3, 4]
