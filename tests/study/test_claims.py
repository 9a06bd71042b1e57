"""Every relation, supported, refuted and left open, from numbers worked out by hand."""

import numpy as np
import pytest
from made_sweep import CLASSES, make_sweep, pack
from scipy import stats

from cifar_lab import storage
from cifar_lab.config import RELATIONS, ClaimConfig, StudyConfig
from cifar_lab.errors import ConfigError
from cifar_lab.stats import Interval
from cifar_lab.study.claims import check_claims, judge_claims
from cifar_lab.study.design import load_study
from cifar_lab.study.naming import find_variant
from cifar_lab.study.relations import judge_between, judge_difference, judge_share
from cifar_lab.study.verdicts import judge

BASE = [0.700, 0.710, 0.705, 0.698]
UP = [0.712, 0.724, 0.716, 0.711]  # +1.2, 1.4, 1.1, 1.3 points
SAME = [0.701, 0.709, 0.706, 0.697]
WIDE = [0.680, 0.730, 0.710, 0.698]
NONE, FIVE, TANH, SGD = "ablation=none", "ablation=kernel5", "ablation=tanh", "ablation=sgd"
SIDES = {NONE: BASE, FIVE: UP, TANH: SAME, SGD: WIDE}


def claims_of(folder, claims, sides=SIDES, **options):
    study = {"margin": options.pop("margin", 0.005), "claims": [dict(claim) for claim in claims]}
    options.setdefault("predictions", False)
    return judge_claims(load_study(make_sweep(folder, sides, study=study, **options)))


def verdicts(folder, claims, sides=SIDES, **options):
    return [found.verdict for found in claims_of(folder, claims, sides, **options)]


# The rules themselves


@pytest.mark.parametrize(
    ("relation", "wide", "narrow", "word"),
    [
        ("higher", (1, 9), (2, 8), "supported"),
        ("higher", (-9, -1), (-8, -2), "refuted"),
        ("higher", (-1, 9), (0, 8), "inconclusive"),
        ("higher", (-6, 4), (-5, 3), "refuted"),  # no difference that matters
        ("higher", (-6, 4), (-5.1, 3), "inconclusive"),
        ("higher", (1, 4), (2, 3), "supported"),  # small, but there
        ("lower", (-9, -1), (-8, -2), "supported"),
        ("lower", (1, 9), (2, 8), "refuted"),
        ("lower", (-1, 9), (0, 8), "inconclusive"),
        ("lower", (-4, 6), (-3, 5), "refuted"),
        ("equivalent", (-6, 6), (-5, 5), "supported"),
        ("equivalent", (-6, 6), (-5.1, 4), "inconclusive"),
        ("equivalent", (5.1, 9), (6, 8), "refuted"),
        ("equivalent", (4.9, 9), (6, 8), "inconclusive"),
        ("equivalent", (-9, -5.1), (-8, -6), "refuted"),
        ("not_lower", (-6, 4), (-4.9, 3), "supported"),
        ("not_lower", (-6, 40), (-4.9, 30), "supported"),
        ("not_lower", (-6, 4), (-5, 3), "inconclusive"),
        ("not_lower", (-9, -5.1), (-8, -6), "refuted"),
        ("not_lower", (-9, -4.9), (-8, -5.5), "inconclusive"),
    ],
)
def test_what_intervals_say_of_a_difference(relation, wide, narrow, word):
    assert judge_difference(relation, Interval(*wide), Interval(*narrow), 5) == word


@pytest.mark.parametrize(
    ("wide", "low", "high", "word"),
    [
        ((80, 120), 80, 120, "supported"),
        ((79, 120), 80, 120, "inconclusive"),
        ((10, 79), 80, 120, "refuted"),
        ((121, 130), 80, 120, "refuted"),
        ((10, 79), 80, None, "refuted"),
        ((90, 500), 80, None, "supported"),
        ((90, 500), None, 600, "supported"),
        ((70, 130), 80, 120, "inconclusive"),
    ],
)
def test_what_an_interval_says_of_a_range(wide, low, high, word):
    assert judge_between(Interval(*wide), low, high) == word


def test_what_a_share_says():
    shares = [Interval(0.51, 1), Interval(0, 0.49), Interval(0.4, 0.9)]
    assert [judge_share(share) for share in shares] == ["supported", "refuted", "inconclusive"]


# Differences between seeds


def test_differences_are_judged_by_pairs(tmp_path):
    claims = [{"variant": FIVE, "relation": relation} for relation in ("higher", "lower", "equivalent", "not_lower")]
    found = claims_of(tmp_path, claims)
    assert [one.verdict for one in found] == ["supported", "refuted", "refuted", "supported"]
    expected = stats.ttest_rel(UP, BASE).confidence_interval(0.95)
    assert found[0].estimate == pytest.approx(0.0125)
    assert found[0].interval == pytest.approx((expected.low, expected.high), rel=1e-6)
    assert found[0].words == "test accuracy: +1.25 points, 95 % interval +1.04 to +1.46 points, n = 4"
    assert "margin 0.50 points" in found[2].words


def test_no_difference_that_matters_refutes_a_claim_of_one(tmp_path):
    claims = [{"variant": TANH, "relation": relation} for relation in ("higher", "lower", "equivalent", "not_lower")]
    found = claims_of(tmp_path, claims)
    assert [one.verdict for one in found] == ["refuted", "refuted", "supported", "supported"]
    assert found[0].words.endswith("90 % interval -0.14 to +0.14 points and margin 0.50 points")
    assert verdicts(tmp_path / "b", claims, margin=0.0001) == ["inconclusive"] * 4


def test_much_spread_leaves_all_open(tmp_path):
    claims = [{"variant": SGD, "relation": relation} for relation in ("higher", "lower", "equivalent", "not_lower")]
    assert verdicts(tmp_path, claims) == ["inconclusive"] * 4


def test_a_claim_has_its_own_margin_and_sides(tmp_path):
    claims = [
        {"variant": FIVE, "relation": "equivalent", "margin": 0.02},
        {"variant": NONE, "against": FIVE, "relation": "lower"},
        {"against": FIVE, "relation": "lower"},  # the baseline
        {"variant": FIVE, "against": TANH, "metric": "test_loss", "relation": "lower"},
        {"variant": FIVE, "metric": "recall_cat", "relation": "not_lower", "margin": 0.5},
    ]
    assert verdicts(tmp_path, claims) == ["supported"] * 5


def test_one_seed_decides_nothing(tmp_path):
    claims = [{"variant": FIVE, "relation": "higher"}, {"relation": "between", "low": 0.1, "high": 0.9}]
    claims += [{"relation": "worst_classes", "classes": ["cat"]}, {"relation": "most_confused", "classes": ["bird", "frog"]}]
    found = claims_of(tmp_path, claims, {NONE: [0.7], FIVE: [0.8]}, predictions=True)
    assert [one.verdict for one in found] == ["inconclusive"] * 4
    assert all("n = 1 cannot decide" in one.words for one in found)
    assert found[0].estimate == pytest.approx(0.1)


def test_nothing_done_decides_nothing(tmp_path):
    claims = [{"variant": FIVE, "relation": "higher"}, {"relation": "between", "low": 0.1, "high": 0.9}]
    claims += [{"variant": FIVE, "metric": metric, "relation": "lower"} for metric in ("macs", "latency_ms", "epochs_to_70")]
    claims += [{"relation": "worst_classes", "classes": ["cat"]}, {"relation": "most_confused", "classes": ["bird", "frog"]}]
    assert verdicts(tmp_path, claims, {NONE: ["waiting"] * 3, FIVE: ["waiting"] * 3}) == ["inconclusive"] * 7


def test_between_is_about_the_variants_own_mean(tmp_path):
    claims = [
        {"relation": "between", "low": low, "high": high} for low, high in ((0.69, 0.72), (0.71, None), (0.72, 0.8), (None, 0.7))
    ]
    found = claims_of(tmp_path, claims)
    assert [one.verdict for one in found] == ["supported", "inconclusive", "refuted", "inconclusive"]
    half = stats.t.ppf(0.975, 3) * np.std(BASE, ddof=1) / 2
    assert found[0].interval == pytest.approx((np.mean(BASE) - half, np.mean(BASE) + half))
    assert found[0].words.endswith("asked for 69.00 % to 72.00 %")


def test_settling_is_judged_by_epochs(tmp_path):
    curve = [0.4, 0.6, 0.7, 0.701, 0.702]
    curves = {(NONE, seed): curve if seed else [0.4, 0.7, 0.701] for seed in range(4)}
    claim = {"metric": "settled_epoch", "relation": "between", "low": 1, "high": 5}
    [found] = claims_of(tmp_path, [claim], curves=curves)
    assert (found.verdict, found.estimate) == ("supported", 2.75)


@pytest.mark.parametrize("n", [2, 4])
def test_seeds_that_agree_show_no_spread(tmp_path, n):
    claims = [{"variant": FIVE, "relation": "higher"}, {"relation": "between", "high": 0.9}]
    found = claims_of(tmp_path, claims, {NONE: [0.7] * n, FIVE: [0.72] * n})
    assert [one.verdict for one in found] == ["inconclusive"] * 2
    assert [one.estimate for one in found] == pytest.approx([0.02, 0.7])
    assert found[0].words == f"n = {n} and the same in each pair of seeds: there is no spread to judge by"
    assert found[1].words == f"n = {n} and the same in each run: there is no spread to judge by"


def test_signs_need_no_spread(tmp_path):
    """Peak memory on a GPU is the same in every run: six pairs of one sign have p = 2 / 64, five 2 / 32."""
    claims = [
        {"variant": FIVE, "metric": "peak_memory_mib", "relation": r} for r in ("lower", "higher", "equivalent", "not_lower")
    ]
    costs, sides = {FIVE: {"peak_memory_mib": 280.0}}, {NONE: [*BASE, 0.7, 0.71], FIVE: [*UP, 0.72, 0.73]}
    found = claims_of(tmp_path / "six", claims, sides, costs=costs)
    assert [one.verdict for one in found] == ["supported", "refuted", "inconclusive", "inconclusive"]
    signs = "n = 6 and the same in each pair of seeds: there is no spread to judge by but the signs, p = 0.031"
    assert found[0].words == f"peak memory in MiB: -20, {signs}"
    five = {name: values[:5] for name, values in sides.items()}
    assert verdicts(tmp_path / "five", claims, five, costs=costs) == ["inconclusive"] * 4


# What is no matter of seeds


def test_counts_are_known_before_a_run_is_done(tmp_path):
    claims = [{"variant": FIVE, "metric": "macs", "relation": "lower"}, {"metric": "macs", "relation": "between", "high": 9}]
    facts = {NONE: {"macs": 50, "latency": None}, FIVE: {"macs": 40}}
    assert verdicts(tmp_path, claims, {NONE: ["waiting"], FIVE: ["waiting"]}, facts=facts) == ["supported", "refuted"]


def test_counts_decide_without_an_interval(tmp_path):
    claims = [{"variant": FIVE, "metric": "macs", "relation": relation} for relation in ("lower", "higher", "equivalent")]
    claims += [
        {"variant": TANH, "metric": "num_params", "relation": relation} for relation in ("lower", "equivalent", "not_lower")
    ]
    claims += [{"variant": FIVE, "metric": "macs", "relation": "between", "low": 10_000, "high": 30_000}]
    sides = {NONE: [0.7], FIVE: [0.8], TANH: [0.7]}
    found = claims_of(tmp_path, claims, sides, costs={FIVE: {"macs": 20_000}})
    words = ["supported", "refuted", "refuted", "refuted", "supported", "supported", "supported"]
    assert [one.verdict for one in found] == words
    assert found[0].words == "multiply-adds of one image: 20,000 and 50,000, counted, the same in every run"
    assert found[0].estimate == -30_000


def test_latencies_are_judged_by_the_spread_of_their_calls(tmp_path):
    facts = {name: {"latency": {"p10_ms": 1.9, "p50_ms": 2.0, "p90_ms": high}} for name, high in ((NONE, 2.2), (TANH, 4.0))}
    facts[FIVE] = {"latency": {"p10_ms": 2.8, "p50_ms": 3.0, "p90_ms": 3.3}}
    claims = [
        {"variant": NONE, "against": FIVE, "metric": "latency_ms", "relation": relation} for relation in ("lower", "higher")
    ]
    claims += [{"variant": FIVE, "against": TANH, "metric": "latency_ms", "relation": "higher"}]
    claims += [{"variant": SGD, "metric": "latency_ms", "relation": "lower"}]
    claims += [{"variant": NONE, "metric": "latency_ms", "relation": "between", "low": 1, "high": 3}]
    found = claims_of(tmp_path, claims, facts=facts)
    assert [one.verdict for one in found] == ["supported", "refuted", "inconclusive", "inconclusive", "supported"]
    assert found[0].estimate == -1.0
    assert found[0].interval == pytest.approx((1.9 - 3.3, 2.2 - 2.8))
    assert found[2].words.endswith("the spreads overlap")
    assert found[3].words == "sgd: milliseconds for one image were not measured"


def test_seconds_of_shared_devices_decide_nothing(tmp_path):
    claims = [
        {"variant": FIVE, "metric": "train_s", "relation": "lower"},
        {"metric": "train_s", "relation": "between", "high": 99},
    ]
    results = {(name, s): {"cost": {"train_s": t + 0.1 * s}} for name, t in ((NONE, 20.0), (FIVE, 5.0)) for s in (1, 2, 3)}
    costs = {FIVE: {"train_s": 5.5}}
    assert verdicts(tmp_path / "a", claims, results=results, costs=costs) == ["supported", "supported"]
    results[NONE, 2] = {"cost": {"train_s": 20.0, "shared": True}}
    found = claims_of(tmp_path / "b", claims, results=results, costs=costs)
    assert [one.verdict for one in found] == ["inconclusive", "inconclusive"]
    assert found[0].words == "1 of 8 runs shared a device: their seconds say nothing"


@pytest.mark.parametrize(
    ("first", "second", "words"),
    [
        # epochs_to_70 of the variant and of the baseline; reached by how many of 4 runs
        (4, 0, {"lower": "supported", "higher": "refuted", "equivalent": "refuted", "not_lower": "refuted"}),
        (0, 4, {"lower": "refuted", "higher": "supported", "equivalent": "refuted", "not_lower": "supported"}),
        (4, 3, dict.fromkeys(("lower", "higher", "equivalent", "not_lower"), "inconclusive")),
        (1, 0, dict.fromkeys(("lower", "higher", "equivalent", "not_lower"), "inconclusive")),
        (0, 0, dict.fromkeys(("lower", "higher", "equivalent", "not_lower"), "inconclusive")),
    ],
)
def test_runs_that_never_got_there_are_counted(tmp_path, first, second, words):
    curves = {(FIVE, seed): [0.71 if seed < first - 3 else 0.5, 0.75 if seed < first else 0.6] for seed in range(4)}
    curves |= {(NONE, seed): [0.5, 0.6, 0.75 if seed < second else 0.6] for seed in range(4)}
    claims = [{"variant": FIVE, "metric": "epochs_to_70", "relation": relation} for relation in words]
    found = claims_of(tmp_path, claims, curves=curves)
    assert {one.claim.relation: one.verdict for one in found} == words
    assert f"kernel5 in {first} of 4 runs and none in {second} of 4 runs" in found[0].words
    between = {"metric": "epochs_to_70", "variant": FIVE, "relation": "between", "high": 9}
    [own] = claims_of(tmp_path / "own", [between], curves=curves)
    assert own.verdict == ("supported" if first == 4 else "inconclusive")


@pytest.mark.parametrize(("n", "p", "word"), [(2, "0.33", "inconclusive"), (3, "0.1", "inconclusive"), (4, "0.029", "supported")])
def test_always_against_never_takes_four_runs_of_each(tmp_path, n, p, word):
    """Of all ways to share out n runs that got there over 2n, two are as clear: p = 2 / C(2n, n)."""
    curves = {(FIVE, seed): [0.75] for seed in range(n)} | {(NONE, seed): [0.5] for seed in range(n)}
    claim = {"variant": FIVE, "metric": "epochs_to_70", "relation": "lower"}
    [found] = claims_of(tmp_path, [claim], {NONE: BASE[:n], FIVE: UP[:n]}, curves=curves)
    assert found.verdict == word
    assert f"Fisher's exact test, p = {p}" in found.words
    assert found.words.endswith("so few runs cannot decide") == (word == "inconclusive")


# Classes


def answers(wrong):
    """True and answered classes, 10 images each, of which ``wrong`` says how many of a class are taken for which."""
    labels = np.repeat(np.arange(5), 10)
    predicted = labels.copy()
    for (true, taken), count in wrong.items():
        free = np.flatnonzero((labels == CLASSES.index(true)) & (predicted == labels))[:count]
        predicted[free] = CLASSES.index(taken)
    return predicted, labels


def class_claim(folder, relation, classes, runs):
    """One claim about the baseline, with the given wrong answers in each seed."""
    make_sweep(folder, {NONE: [0.7] * len(runs)}, study={"claims": [{"relation": relation, "classes": classes}]})
    for seed, wrong in enumerate(runs):
        place = folder / f"{NONE},seed={seed}"
        predicted, labels = answers(wrong)
        storage.write_bytes(place / "predictions.npz", pack(test=(predicted, labels)))
        result = storage.read_json(place / "result.json")
        for k, row in enumerate(result["metrics"]["test"]["per_class"]):
            row["recall"] = float((predicted == labels)[labels == k].mean())
        storage.write_json(place / "result.json", result)
    [found] = judge_claims(load_study(folder))
    return found


def test_worst_classes_are_so_in_most_seeds(tmp_path):
    worst = {("cat", "bird"): 5, ("bird", "cat"): 4, ("deer", "frog"): 1}
    tied = {("cat", "bird"): 5, ("bird", "cat"): 4, ("deer", "frog"): 4}
    always = class_claim(tmp_path / "a", "worst_classes", ["bird", "cat"], [worst] * 6)
    # Clopper and Pearson, 6 of 6: the sixth root of 0.025
    assert (always.verdict, always.estimate) == ("supported", 1.0)
    assert always.interval == pytest.approx((0.025 ** (1 / 6), 1.0))
    assert always.words.startswith(
        "bird, cat have the lowest recalls in 6 of 6 seeds; lowest on average: cat 50.0 %, bird 60.0 %, deer"
    )
    assert class_claim(tmp_path / "b", "worst_classes", ["bird", "cat"], [worst] * 5).verdict == "inconclusive"
    assert class_claim(tmp_path / "c", "worst_classes", ["bird", "cat"], [tied] * 6).verdict == "refuted"
    assert class_claim(tmp_path / "d", "worst_classes", ["deer", "cat"], [worst] * 6).verdict == "refuted"
    assert (
        class_claim(tmp_path / "e", "worst_classes", ["bird", "cat"], [worst, tied, worst, worst, tied]).verdict == "inconclusive"
    )


def test_birds_are_not_taken_for_airplanes(tmp_path):
    one = {("bird", "airplane"): 1, ("bird", "frog"): 5, ("bird", "deer"): 2}
    two = {("bird", "airplane"): 1, ("bird", "frog"): 4, ("bird", "deer"): 3}
    found = class_claim(tmp_path / "a", "most_confused", ["bird", "airplane"], [one, two] * 3)
    assert (found.verdict, found.estimate) == ("refuted", 0.0)
    assert found.words.startswith("bird -> airplane 1 a run, behind frog 4.5 and deer 2.5; most frequent in 0 of 6 seeds")
    frogs = class_claim(tmp_path / "b", "most_confused", ["bird", "frog"], [one, two] * 3)
    assert frogs.verdict == "supported"
    assert frogs.words.startswith("bird -> frog 4.5 a run, ahead of deer 2.5 and airplane 1; most frequent in 6 of 6 seeds")
    tied = {("bird", "frog"): 3, ("bird", "deer"): 3}
    assert class_claim(tmp_path / "c", "most_confused", ["bird", "frog"], [tied] * 4).estimate == 0.0


def test_runs_without_saved_answers_are_told(tmp_path):
    make_sweep(tmp_path, {NONE: BASE}, study={"claims": [{"relation": "most_confused", "classes": ["bird", "cat"]}]})
    for seed in (1, 3):
        (tmp_path / f"{NONE},seed={seed}" / "predictions.npz").unlink()
    [found] = judge_claims(load_study(tmp_path))
    assert "(2 without saved answers)" in found.words
    assert "n = 2" in found.words


# Refusals


@pytest.mark.parametrize(
    ("claim", "text"),
    [
        ({"variant": "ablation=kernel9"}, "study.claims[0]: ablation=kernel9 is no variant of this sweep"),
        ({"variant": FIVE, "against": "kernel"}, "study.claims[0]: kernel is no variant of this sweep"),
        ({"variant": FIVE, "metric": "acuracy"}, "study.claims[0].metric=acuracy is no column of report.csv"),
        ({"variant": FIVE, "metric": "recall_dog"}, "study.claims[0].metric=recall_dog is no column of report.csv"),
        ({}, "study.claims[0]: higher compares ablation=none with itself"),
        ({"variant": NONE}, "study.claims[0]: higher compares ablation=none with itself"),
        ({"relation": "between"}, "study.claims[0]: between needs low or high"),
        ({"relation": "between", "low": 2, "high": 1}, "study.claims[0]: low=2 is above high=1"),
        ({"relation": "worst_classes"}, "study.claims[0].classes=[]: worst_classes needs classes, each once"),
        ({"relation": "worst_classes", "classes": ["cat", "cat"]}, "worst_classes needs classes, each once"),
        ({"relation": "worst_classes", "classes": ["cat", "dog"]}, "study.claims[0].classes: dog is no class of the data"),
        ({"relation": "most_confused", "classes": ["cat"]}, "most_confused needs two classes"),
    ],
)
def test_what_cannot_be_judged_is_refused(tmp_path, claim, text):
    settings = StudyConfig(claims=[ClaimConfig(**claim)])
    with pytest.raises(ConfigError) as caught:
        check_claims(settings, [NONE, FIVE], CLASSES)
    assert text in caught.value.what
    assert ("study.claims=[]" in caught.value.hint) == ("is no variant" in text)
    with pytest.raises(ConfigError):
        claims_of(tmp_path, [claim], {NONE: BASE, FIVE: UP})


def test_classes_that_are_not_known_yet_are_not_refused():
    claims = [ClaimConfig(relation="worst_classes", classes=["dog"]), ClaimConfig(variant=FIVE, metric="recall_dog")]
    check_claims(StudyConfig(claims=claims), [NONE, FIVE])


def test_the_metric_of_the_study_is_checked_too():
    with pytest.raises(ConfigError, match=r"study\.metric=speed is no column"):
        check_claims(StudyConfig(metric="speed"), [NONE])


def test_variants_are_found_by_a_part_of_their_name():
    names = ["optimizer.weight_decay=0.0,model=a", "optimizer.weight_decay=0.005,model=a", "optimizer.weight_decay=0.005,model=b"]
    assert find_variant(names[1], names, "x") == names[1]
    assert find_variant("model=b", names, "x") == names[2]
    assert find_variant("optimizer.weight_decay=0", names, "x") == names[0]
    assert find_variant("model=a,optimizer.weight_decay=5e-3", names, "x") == names[1]
    with pytest.raises(ConfigError, match=r"x: model=a fits 2 variants") as caught:
        find_variant("model=a", names, "x", "; or another")
    assert caught.value.hint == f"variants are {'; '.join(names)}; or another"


def test_every_relation_of_the_configuration_is_judged(tmp_path):
    claims = [
        {"relation": relation, "variant": FIVE, "classes": ["bird", "cat"], "low": 0.1, "high": 0.9} for relation in RELATIONS
    ]
    found = judge(load_study(make_sweep(tmp_path, {NONE: BASE, FIVE: UP}, study={"claims": claims}))).claims
    assert [one.claim.relation for one in found] == list(RELATIONS)
    assert {one.verdict for one in found} <= {"supported", "refuted", "inconclusive"}
    assert all(one.words for one in found)
