"""Verdicts and notes of made-up sweeps, by hand."""

import math
import statistics
import subprocess
import sys

import pytest
from made_sweep import CLASSES, make_sweep
from scipy import stats

from cifar_lab.errors import ConfigError
from cifar_lab.paired import smallest_detectable
from cifar_lab.study import wording
from cifar_lab.study.design import load_study
from cifar_lab.study.pictures import differences
from cifar_lab.study.tables import results
from cifar_lab.study.verdicts import judge

BASE = [0.700, 0.710, 0.705, 0.698, 0.703, 0.707, 0.701]
UP = [0.712, 0.724, 0.716, 0.711, 0.713, 0.720, 0.715]
SAME = [0.701, 0.709, 0.706, 0.697, 0.704, 0.706, 0.702]
WIDE = [0.680, 0.730, 0.710, 0.698, 0.720, 0.690, 0.715]
NONE, FIVE, TANH = "ablation=none", "ablation=kernel5", "ablation=tanh"


def judged(folder, accuracies, **options):
    return judge(load_study(make_sweep(folder, accuracies, **options)))


def test_each_word(tmp_path):
    found = judged(tmp_path, {NONE: BASE, FIVE: UP, TANH: SAME, "ablation=sgd": WIDE}, predictions=False)
    assert [one.verdict for one in found.comparisons] == ["better", "equivalent", "no evidence"]
    assert [one.label for one in found.outcomes] == ["none", "kernel5", "tanh", "sgd"]
    first = found.comparisons[0]
    differences = [up - base for up, base in zip(UP, BASE, strict=True)]
    assert first.n == 7
    assert first.difference == pytest.approx(statistics.fmean(differences))
    assert (first.p, first.p_corrected) == (2 / 128, 6 / 128)
    expected = stats.ttest_rel(UP, BASE).confidence_interval(0.95)
    assert first.interval95 == pytest.approx((expected.low, expected.high), rel=1e-6)
    assert found.outcomes[0].mean == pytest.approx(statistics.fmean(BASE))
    assert found.outcomes[0].sd == pytest.approx(statistics.stdev(BASE))
    assert found.outcomes[0].values == pytest.approx(dict(enumerate(BASE)))
    assert found.notes == []
    assert (found.pairs, found.attainable_p) == (7, 2 / 128)
    columns = [[one - base for one, base in zip(side, BASE, strict=True)] for side in (UP, SAME, WIDE)]
    pooled = math.sqrt(statistics.fmean(statistics.variance(column) for column in columns))
    assert found.detectable == pytest.approx(smallest_detectable(pooled, 7, 3))


def test_the_baseline_can_be_named_and_worse_is_the_other_way_round(tmp_path):
    found = judged(tmp_path, {NONE: BASE, FIVE: UP}, study={"baseline": FIVE}, predictions=False)
    assert [(one.variant, one.verdict) for one in found.comparisons] == [(NONE, "worse")]
    assert found.comparisons[0].difference < 0


def test_lower_is_better_for_losses(tmp_path):
    # the made-up loss is 3 (1 - accuracy)
    found = judged(tmp_path, {NONE: BASE, FIVE: UP}, study={"metric": "test_loss", "margin": 0.01}, predictions=False)
    assert [one.verdict for one in found.comparisons] == ["better"]
    assert found.comparisons[0].difference < 0
    assert found.other_metrics["test_accuracy"][FIVE].mean == pytest.approx(statistics.fmean(UP))
    assert "test_loss" not in found.other_metrics


def test_what_is_clear_and_does_not_matter_says_so(tmp_path):
    shifted = [value + more for value, more in zip(BASE, (0.001, 0.002, 0.003, 0.002, 0.002, 0.001, 0.003), strict=True)]
    [found] = judged(tmp_path, {NONE: BASE, FIVE: shifted}, predictions=False).comparisons
    assert found.verdict == "better"
    assert found.note == "clear, but within the margin of 0.50 points: it does not matter"


def test_few_seeds_cannot_decide(tmp_path):
    many = {f"ablation=v{k}": UP[:5] for k in range(14)}
    found = judged(tmp_path, {NONE: BASE[:5], **many}, predictions=False)
    assert {one.verdict for one in found.comparisons} == {"no evidence"}
    assert found.notes == [
        "n = 5 cannot decide this: the smallest p that 5 seeds can give is 0.0625, after correction for 14 comparisons 0.875"
    ]
    assert found.attainable_p == 0.0625
    assert found.detectable is None


def test_one_seed_gets_no_verdict(tmp_path):
    found = judged(tmp_path, {NONE: [0.70], FIVE: [0.75]}, predictions=False)
    [one] = found.comparisons
    assert (one.verdict, one.n, one.p, one.interval95) == ("", 1, None, None)
    assert one.difference == pytest.approx(0.05)
    assert found.notes == ["n = 1 gets no verdict: one seed does not show how much seeds differ"]
    assert (found.attainable_p, found.detectable) == (None, None)


def test_a_half_finished_sweep_is_judged_by_its_pairs(tmp_path):
    sides = {NONE: [*BASE[:3], "unfinished", "waiting"], FIVE: [UP[0], "waiting", UP[2], UP[3], "waiting"], TANH: ["waiting"] * 5}
    found = judged(tmp_path, sides, predictions=False)
    five, tanh = found.comparisons
    assert five.n == 2
    assert five.difference == pytest.approx((UP[0] - BASE[0] + UP[2] - BASE[2]) / 2)
    assert five.p_corrected == 1.0  # 2 * 2 / 4
    assert (tanh.n, tanh.difference, tanh.verdict) == (0, None, "")
    assert [(one.n, one.planned) for one in found.outcomes] == [(3, 5), (3, 5), (0, 5)]
    assert "not all runs are done: none: seed 3 unfinished; seed 4 waiting" in found.notes
    assert "not all runs are done: kernel5: seeds 1, 4 waiting" in found.notes
    assert "not all runs are done: tanh: all 5 waiting" in found.notes
    assert any(note.startswith("n = 2 cannot decide this") and note.endswith("(kernel5)") for note in found.notes)


def test_nothing_done_is_no_error(tmp_path):
    found = judged(tmp_path, {NONE: ["waiting"] * 3, FIVE: ["waiting"] * 3})
    assert [one.mean for one in found.outcomes] == [None, None]
    assert [one.verdict for one in found.comparisons] == [""]
    assert (found.pairs, found.attainable_p) == (0, None)
    alone = judged(tmp_path / "seeds", {"": [0.7, 0.71]})
    assert (alone.comparisons, alone.attainable_p) == ([], None)
    assert alone.outcomes[0].label == "all runs"


def test_bad_ends_are_counted_and_never_averaged(tmp_path):
    sides = {NONE: BASE, FIVE: [*UP[:3], "diverged", "E-OOM", "E-OOM", "E-TIMEOUT"]}
    found = judged(tmp_path, sides, predictions=False)
    assert found.comparisons[0].note == "4 runs failed or diverged: judged by the pairs that finished"
    outcome = found.outcomes[1]
    assert outcome.failed == {"E-DIVERGED": 1, "E-OOM": 2, "E-TIMEOUT": 1}
    assert (outcome.n, outcome.planned) == (3, 7)
    assert outcome.mean == pytest.approx(statistics.fmean(UP[:3]))
    assert "not all runs are done: kernel5: seed 3 E-DIVERGED; seeds 4, 5 E-OOM; seed 6 E-TIMEOUT" in found.notes
    assert "runs that failed or diverged are counted, and in no mean: means are of runs that finished" in found.notes


def test_interrupted_runs_are_unfinished_and_no_failure(tmp_path):
    found = judged(tmp_path, {NONE: BASE, FIVE: [*UP[:6], "interrupted"]}, predictions=False)
    assert found.outcomes[1].failed == {}
    assert "not all runs are done: kernel5: seed 6 interrupted" in found.notes


def test_runs_of_unlike_conditions_are_named_first(tmp_path):
    results = {(FIVE, 1): {"device": "cuda", "environment": {"packages": {"torch": "2.16.0"}, "gpu": {"name": "H100"}}}}
    results |= {(FIVE, 0): {"precision": "bf16"}, (TANH, 0): {"precision": "bf16"}, (TANH, 1): {"precision": "bf16"}}
    sides = {NONE: BASE[:2], FIVE: UP[:2], TANH: SAME[:2]}
    found = judged(tmp_path, sides, results=results, predictions=False)
    assert [note.split(" (")[0] for note in found.notes[:3]] == [
        f"runs differ in {what}, which may make a difference of its own" for what in ("device", "precision", "torch version")
    ]
    assert "H100: kernel5 seed 1)" in found.notes[0]
    assert "bf16: kernel5 seed 0, tanh)" in found.notes[1]
    assert "(2.15.0: none, kernel5 seed 0, tanh; 2.16.0: kernel5 seed 1)" in found.notes[2]


def test_unlike_thread_counts_are_named_on_a_cpu_alone(tmp_path):
    sides = {NONE: BASE[:2], FIVE: UP[:2]}
    one, four = ({"environment": {"threads": threads}} for threads in (1, 4))
    threads = {(NONE, 0): one, (NONE, 1): one, (FIVE, 0): one, (FIVE, 1): four}
    found = judged(tmp_path / "cpu", sides, results=threads, predictions=False)
    text = "runs differ in number of threads, which may make a difference of its own (1: none, kernel5 seed 0; 4: kernel5 seed 1)"
    assert text in found.notes
    on_gpu = {key: {**environment, "device": "cuda"} for key, environment in threads.items()}
    assert not any("threads" in note for note in judged(tmp_path / "gpu", sides, results=on_gpu, predictions=False).notes)


@pytest.mark.parametrize(("recalls", "told"), [([0, 1, 0], True), ([0, 1, 0.01], False), ([0, 0.99, 0], False), ([1], False)])
def test_networks_that_always_answer_the_same_are_named(tmp_path, recalls, told):
    rows = [{"name": name, "recall": float(recall), "support": 50} for name, recall in zip("abc", recalls, strict=False)]
    rows.append({"name": "d", "recall": 0.0, "support": 0})
    collapsed = {"metrics": {"train": None, "val": None, "test": {"accuracy": 0.1, "per_class": rows}}}
    results = {(FIVE, 0): collapsed, (FIVE, 1): collapsed, (TANH, 1): collapsed}
    found = judged(tmp_path, dict.fromkeys((NONE, FIVE, TANH), BASE[:2]), results=results, predictions=False)
    note = "training has collapsed, every image gets the same class: kernel5, tanh seed 1"
    assert (note in found.notes) == told


def test_seeds_that_came_after_a_look_are_named(tmp_path):
    found = judged(tmp_path, {NONE: BASE, FIVE: UP}, rounds={4: 1, 5: 1, 6: 2}, predictions=False)
    assert found.notes == [
        "seeds 4, 5 added after a look at the results: p values do not account for the choice to go on",
        "seed 6 added after a look at the results (the 2. time): p values do not account for the choice to go on",
    ]


def test_seeds_on_one_side_have_no_pair(tmp_path):
    found = judged(tmp_path, {NONE: BASE[:6], FIVE: UP}, predictions=False)
    assert found.comparisons[0].n == 6
    assert found.outcomes[1].n == 7
    assert found.notes == ["kernel5: seed 6 planned on one side only: no pair"]


@pytest.mark.parametrize("metric", ["train_s", "images_per_s", "seconds_to_70"])
def test_seconds_of_shared_devices_give_no_verdict(tmp_path, metric):
    curves = {(name, seed): [0.5, 0.75] for name in (NONE, FIVE) for seed in range(7)} | {(FIVE, 0): [0.75]}
    sides = {NONE: BASE, FIVE: UP}
    options = {"study": {"metric": metric, "margin": 1.0}, "curves": curves, "predictions": False}
    differs = {(NONE, 0): {"cost": {"train_s": 20.5, "images_per_s": 2000.5}}}
    alone = judged(tmp_path / "a", sides, results=differs, **options)
    assert alone.comparisons[0].verdict == "equivalent"
    shared = {"cost": {"train_s": 40.0, "images_per_s": 1000.0, "shared": True}}
    found = judged(tmp_path / "b", sides, results={(FIVE, seed): shared for seed in range(7)}, **options)
    [one] = found.comparisons
    assert (one.verdict, one.p) == ("", None)
    assert one.note == "7 of 14 runs shared a device: their seconds allow no verdict"
    assert "seconds of runs that shared a device are marked and stay out of verdicts: kernel5" in found.notes
    # accuracies do not care
    assert judged(tmp_path / "c", sides, results={(FIVE, 0): {"cost": {"shared": True}}}).comparisons[0].verdict == "better"


def test_counts_need_no_test(tmp_path):
    costs = {FIVE: {"macs": 90_000}, TANH: {"macs": 50_000}}
    found = judged(tmp_path, {NONE: [0.7], FIVE: [0.71], TANH: [0.7]}, costs=costs, study={"metric": "macs"}, predictions=False)
    assert [(one.difference, one.verdict, one.p) for one in found.comparisons] == [
        (40_000, "worse", None),
        (0, "equivalent", None),
    ]
    assert found.comparisons[0].note == "counted, the same in every run: no test is needed"
    assert found.notes == []


def test_latency_is_measured_once_and_gets_no_verdict(tmp_path):
    facts = {NONE: {"latency": {"p50_ms": 2.0, "p90_ms": 2.2}}, FIVE: {"latency": {"p50_ms": 3.0, "p90_ms": 3.1}}}
    found = judged(tmp_path, {NONE: BASE, FIVE: UP}, facts=facts, study={"metric": "latency_ms"}, predictions=False)
    [one] = found.comparisons
    assert (one.difference, one.verdict, one.p) == (1.0, "", None)
    assert "one machine" in one.note
    assert [outcome.mean for outcome in found.outcomes] == [2.0, 3.0]


def test_a_milestone_that_was_missed_is_not_left_out(tmp_path):
    curves = {(NONE, seed): [0.5, 0.6, 0.72] for seed in range(7)} | {(FIVE, seed): [0.5, 0.74] for seed in range(6)}
    study = {"metric": "epochs_to_70", "margin": 0.5}
    found = judged(tmp_path, {NONE: BASE, FIVE: UP}, curves=curves | {(FIVE, 6): [0.5, 0.6]}, study=study, predictions=False)
    [one] = found.comparisons
    assert one.verdict == ""
    assert "kernel5 in 6 of 7 runs" in one.note
    assert [(side.n, side.missed, side.mean) for side in found.outcomes] == [(7, 0, 3.0), (6, 1, None)]
    assert (one.n, one.difference) == (6, None), "the runs that got there would mislead"
    assert results(found).cells[1][3] == wording.DASH
    assert differences(found) is None
    whole = judged(
        tmp_path / "b", {NONE: BASE, FIVE: UP}, curves=curves | {(FIVE, 6): [0.5, 0.7]}, study=study, predictions=False
    )
    assert (whole.comparisons[0].verdict, whole.comparisons[0].difference) == ("better", -1.0)
    assert whole.comparisons[0].note == "every pair differs by the same: there is no spread to judge by"
    assert (whole.comparisons[0].interval95, whole.detectable) == (None, None)


def test_notes_on_the_data_are_told(tmp_path):
    data = {"classes": list(CLASSES), "images": {"train": 8000}, "notes": ["only data_batch_1"]}
    sides = {NONE: BASE[:2], FIVE: UP[:2]}
    every = {(name, seed): {"data": data} for name in sides for seed in range(2)}
    assert judged(tmp_path / "a", sides, results=every, predictions=False).notes[-1] == "data: only data_batch_1"
    some = judged(tmp_path / "b", sides, results={(FIVE, 1): {"data": data}}, predictions=False)
    assert some.notes[-1] == "data: only data_batch_1 (kernel5 seed 1)"


def test_a_metric_that_is_no_column_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"study\.metric=acuracy is no column"):
        judged(tmp_path, {NONE: [0.7]}, study={"metric": "acuracy"})
    with pytest.raises(ConfigError, match="recall_dog"):
        judged(tmp_path / "b", {NONE: [0.7]}, study={"metric": "recall_dog"})
    assert judged(tmp_path / "c", {NONE: [0.7]}, study={"metric": "recall_cat"}).outcomes[0].mean is not None


def test_the_room_imports_no_torch():
    modules = "asked claims classes deciding design findings images measures notes relations verdicts"
    code = (
        "import sys; "
        + "; ".join(f"import cifar_lab.study.{name}" for name in modules.split())
        + "; print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
