"""Comparisons of committed evidence counted again by sklearn and numpy; seeds, refusals, files, LaTeX, JSON."""

import csv
import json
import math
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from latex import latex_cells
from PIL import Image
from rig import ROOT
from scipy import stats as scipy_stats
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support, recall_score
from typer.testing import CliRunner

from cifar_lab import stats
from cifar_lab.cli import app
from cifar_lab.comparing import pictures
from cifar_lab.comparing.convergence import convergence_table
from cifar_lab.comparing.entries import default_name, load_entries, split_sweep
from cifar_lab.comparing.notes import notes_on
from cifar_lab.comparing.page import compare, sentences
from cifar_lab.comparing.pairs import compare_pairs
from cifar_lab.comparing.tables import best_for, runs_table
from cifar_lab.errors import ConfigError
from cifar_lab.study.design import PLAN_SCHEMA

REFERENCE = ROOT / "outputs" / "reference"
MOBILENET, DENSE, SMALL, SMALL_ADAM = (
    REFERENCE / name for name in ("d1_mobilenet_like", "d4_dense_dnn", "d3_small_cnn", "d3_small_cnn_lr0.001")
)


def answers(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    with np.load(folder / "test_predictions.npz", allow_pickle=False) as saved:
        return saved["labels"].astype(int), saved["predicted"].astype(int)


def command(*arguments: object):
    return CliRunner().invoke(app, ["compare", *map(str, arguments)])


def variant(where: Path, name: str, *, source: Path = SMALL, seed: int = 0, flips: int = 0, **settings: object) -> Path:
    """Evidence of another seed or setting: ``flips`` more of its answers are wrong, and its accuracy says so."""
    folder = where / name
    shutil.copytree(source, folder)
    labels, predicted = answers(folder)
    hits = np.flatnonzero(labels == predicted)
    chosen = np.random.default_rng(seed).permutation(hits)[:flips]
    predicted[chosen] = (predicted[chosen] + 1) % 10
    confidence = np.full(len(labels), 0.5, np.float16)
    np.savez(folder / "test_predictions.npz", labels=labels, predicted=predicted, confidence=confidence)
    result = json.loads((folder / "result.json").read_text())
    result["seed"] = seed
    result["metrics"]["test"]["accuracy"] = float((labels == predicted).mean())
    config = yaml.safe_load((folder / "config.yaml").read_text())
    config["seed"] = seed
    for key, value in settings.items():
        group, _, leaf = key.partition("__")
        config[group][leaf] = value
    (folder / "result.json").write_text(json.dumps(result))
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    return folder


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """MobileNet-like against the small CNN with Adam, every format."""
    out = tmp_path_factory.mktemp("compare") / "two"
    formats = {"table_formats": ("csv", "md", "tex"), "figure_formats": ("png",)}
    return compare([str(MOBILENET), str(SMALL_ADAM)], out=str(out), data_root=str(out), **formats)


def test_answers_are_counted_as_numpy_counts_them(two):
    (labels, first), (_, second) = answers(MOBILENET), answers(SMALL_ADAM)
    one, other = first == labels, second == labels
    (pair,) = two.plain()["pairs"]
    assert pair["only_first_right"] == (one & ~other).sum()
    assert pair["only_second_right"] == (other & ~one).sum()
    assert pair["both_right"] == (one & other).sum()
    assert pair["neither_right"] == (~one & ~other).sum()
    assert pair["difference"] == pytest.approx(one.mean() - other.mean())
    assert pair["difference_low"] < pair["difference"] < pair["difference_high"]
    # With ten thousand images the plain normal interval is nearly the same.
    sd = math.sqrt(np.var(one.astype(float) - other.astype(float)) / len(labels))
    assert pair["difference_low"] == pytest.approx(pair["difference"] - 1.96 * sd, abs=5e-4)
    assert pair["mcnemar_p"] == pair["mcnemar_p_holm"] < 1e-50


def test_measures_are_those_of_sklearn(two):
    for entry, folder in zip(two.plain()["entries"], (MOBILENET, SMALL_ADAM), strict=True):
        labels, predicted = answers(folder)
        precision, recall, f1, _ = precision_recall_fscore_support(labels, predicted, average="macro")
        means = {name: measure["mean"] for name, measure in entry["measures"].items()}
        assert means["test_accuracy"] == (labels == predicted).mean()
        found = (means["precision_macro"], means["recall_macro"], means["f1_macro"])
        assert found == pytest.approx((precision, recall, f1))
        wilson = scipy_stats.binomtest(int((labels == predicted).sum()), len(labels)).proportion_ci(method="wilson")
        assert (entry["test_accuracy_low"], entry["test_accuracy_high"]) == pytest.approx((wilson.low, wilson.high))


def test_classes_have_sklearns_recalls(two):
    with (two.folder / "classes.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    for place, folder in (("first", MOBILENET), ("second", SMALL_ADAM)):
        recalls = recall_score(*answers(folder), average=None)
        assert [float(row[f"recall_{place}"]) for row in rows] == pytest.approx(recalls.tolist())
    for row in rows:
        assert float(row["difference_low"]) <= float(row["difference"]) <= float(row["difference_high"])


def test_the_list_of_disagreements_is_complete(two):
    (labels, first), (_, second) = answers(MOBILENET), answers(SMALL_ADAM)
    with (two.folder / "only_one_right.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    for side, own, other in (("first", first, second), ("second", second, first)):
        expected = np.flatnonzero((own == labels) & (other != labels)).tolist()
        assert [int(row["position"]) for row in rows if row["right"] == side] == expected
    names = two.entries[0].runs[0].class_names
    assert all(row["true_class"] == names[labels[int(row["position"])]] for row in rows)
    assert all(row["second_predicted"] == names[second[int(row["position"])]] for row in rows)


def test_best_for_follows_the_rule(two):
    mobilenet, small = (entry["best_for"] for entry in two.plain()["entries"])
    assert mobilenet == ["most accurate"]
    assert small == ["smallest", "fewest MACs", "fastest to train", "least memory"]
    different = load_entries([DENSE, SMALL])  # one and two threads
    assert best_for(different) == [["most accurate"], ["smallest", "fewest MACs"]]
    assert any("times and memory are of different machines" in note for note in notes_on(different, []))


@pytest.mark.parametrize("is_shared", [False, True])
def test_seconds_of_a_shared_device_win_nothing(tmp_path, is_shared):
    """The second of two configurations takes twice as long in twice the memory, and answers twice as slowly."""
    folders = [variant(tmp_path, f"lr{k}", source=MOBILENET, optimizer__lr=float(k)) for k in (1, 2)]
    for k, folder in enumerate(folders, 1):
        result = json.loads((folder / "result.json").read_text())
        call_ms = {"p50": 1.0 * k}
        result["cost"] |= {"train_s": 60.0 * k, "peak_memory_mib": 500.0 * k, "latency": {"batch_1": {"call_ms": call_ms}}}
        result["cost"]["shared"] = is_shared and k == 2
        (folder / "result.json").write_text(json.dumps(result))
    entries = load_entries(folders)
    assert best_for(entries) == [[] if is_shared else ["fastest to train", "fastest to answer", "least memory"], []]
    runs, reached = runs_table(entries), convergence_table(entries)
    cells = [dict(zip([column.title for column in runs.columns], line, strict=True)) for line in runs.cells]
    assert [cell["training"] for cell in cells] == ["60 s", "2.0 min*" if is_shared else "2.0 min"]
    assert [cell["peak memory"] for cell in cells] == ["500 MiB", "1,000 MiB*" if is_shared else "1,000 MiB"]
    assert [cell["latency"] for cell in cells] == ["1.00 ms", "2.00 ms*" if is_shared else "2.00 ms"]
    assert [row["shared_device"] for row in runs.rows] == [False, is_shared]
    assert [cell.endswith("*") for cell in reached.cells[0][1:]] == [False, is_shared]
    assert runs.caption.endswith("*: other runs had the same device at the same time.") == is_shared
    assert any("of mobilenet_like lr=2.0 were measured beside other runs" in note for note in notes_on(entries, [])) == is_shared


def test_convergence_is_read_from_the_rows(two):
    rows = [json.loads(line) for line in (MOBILENET / "metrics.jsonl").read_text().splitlines()]
    found = two.plain()["entries"][0]["convergence"][0]
    for milestone in found:
        reached = [row for row in rows if row["val_accuracy"] >= milestone["accuracy"]]
        epoch = reached[0]["epoch"] if reached else None
        assert milestone["epoch"] == epoch
        assert milestone["images"] == (None if epoch is None else 40000 * epoch)
        spent = sum(row["seconds"] for row in rows[:epoch]) if epoch else None
        assert milestone["seconds"] == (pytest.approx(spent) if epoch else None)
    assert [milestone["epoch"] for milestone in found] == [1, 6, None, None]


def test_never_is_said_of_runs_that_validated_only(tmp_path):
    """speednet has no validation images; of two copies of the small CNN one gets to 70 %, and the third lost its rows."""
    seeds = [variant(tmp_path, f"s{seed}", seed=seed, optimizer__lr=3.0) for seed in (0, 1, 2)]
    rows = [json.loads(line) for line in (seeds[0] / "metrics.jsonl").read_text().splitlines()]
    rows[4]["val_accuracy"] = 0.75
    (seeds[0] / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (seeds[2] / "metrics.jsonl").unlink()
    table = convergence_table(load_entries([REFERENCE / "fast_speednet", MOBILENET, *seeds]))
    speednet, mobilenet, small = list(zip(*table.cells, strict=True))[1:]
    assert speednet == ("-",) * 4
    assert [cell.partition(",")[0] for cell in mobilenet] == ["epoch 1", "epoch 6", "never", "never"]
    assert small[1].startswith("epoch 5, ")
    assert small[1].endswith(" (1 of 2 runs)")
    assert small[2:] == ("never (0 of 2 runs)",) * 2
    assert [table.rows[0][f"{name} validated"] for name in ("speednet", "mobilenet_like", "small_cnn")] == [0, 1, 2]
    assert table.caption.endswith(" -: no validation accuracy was measured.")


def test_files_and_words(two):
    names = {file.name for file in two.files}
    tables = {f"{name}.{suffix}" for name in ("runs", "pairs", "convergence", "classes") for suffix in ("csv", "md", "tex")}
    drawn = {"curves.png", "accuracy_against_cost.png", "confusion_difference.png"}
    assert names == tables | drawn | {"only_one_right.csv", "comparison.md", "comparison.json"}
    assert names == {path.name for path in two.folder.iterdir()}
    assert any("no pictures of the images that only one side gets right: " in note for note in two.notes)
    text = (two.folder / "comparison.md").read_text()
    assert "mobilenet_like is 10.84 points more accurate than small_cnn (95 % interval +9.81 to +11.87)" in text
    for name in drawn:
        assert f"]({name})" in text
        with Image.open(two.folder / name) as picture:
            assert min(picture.size) > 400
    assert json.loads((two.folder / "comparison.json").read_text())["pairs"] == json.loads(json.dumps(two.plain()["pairs"]))


def test_every_latex_table_can_be_read(two):
    for name, rows in (("runs", 3), ("pairs", 2), ("convergence", 5), ("classes", 11)):
        cells = latex_cells((two.folder / f"{name}.tex").read_text())
        assert len(cells) == rows
    assert cells[0][2:4] == [r"mobilenet\_like", r"small\_cnn"]


def test_latency_is_shown_where_it_was_measured(tmp_path):
    folders = [variant(tmp_path, f"lr{k}", optimizer__lr=float(k)) for k in (1, 2)]
    for k, folder in enumerate(folders):
        result = json.loads((folder / "result.json").read_text())
        result["cost"]["latency"] = {"batch_1": {"calls": 100, "call_ms": {"p50": 1.25 + k, "p90": 2.0, "p99": 3.0, "mean": 1.5}}}
        (folder / "result.json").write_text(json.dumps(result))
    table = runs_table(load_entries(folders))
    assert [row["latency_ms"] for row in table.rows] == [1.25, 2.25]
    assert "fastest to answer" in table.rows[0]["best_for"]
    place = [column.title for column in table.columns].index("latency")
    assert [line[place] for line in table.cells] == ["1.25 ms", "2.25 ms"]
    assert "latency" not in [column.title for column in runs_table(load_entries([SMALL, DENSE])).columns]


def test_sentences_turn_with_the_order(two):
    text = "mobilenet_like is 10.84 points more accurate than small_cnn (95 % interval +9.81 to +11.87)"
    (turned,) = compare_pairs(load_entries([SMALL_ADAM, MOBILENET]))
    assert turned.counts.difference == pytest.approx(-0.1084)
    assert text in turned.sentence()
    assert text in two.pairs[0].sentence()


def test_seeds_of_one_configuration_are_put_together(tmp_path):
    base = [variant(tmp_path, f"base{seed}", seed=seed, flips=40 * seed) for seed in (2, 0, 1)]
    other = [variant(tmp_path, f"lr{seed}", seed=seed, flips=300 + 10 * seed, optimizer__lr=0.5) for seed in (1, 2, 3)]
    made = compare([*map(str, base), *map(str, other)], out=str(tmp_path / "out"))
    plain = made.plain()
    assert [entry["label"] for entry in plain["entries"]] == ["small_cnn lr=0.01", "small_cnn lr=0.5"]
    assert [entry["seeds"] for entry in plain["entries"]] == [[0, 1, 2], [1, 2, 3]]
    accuracies = [[(np.equal(*answers(folder))).mean() for folder in group] for group in (base, other)]
    for entry, values in zip(plain["entries"], accuracies, strict=True):
        measure = entry["measures"]["test_accuracy"]
        assert measure["mean"] == pytest.approx(np.mean(values))
        assert measure["sd"] == pytest.approx(np.std(values, ddof=1))
    (pair,) = plain["pairs"]
    assert pair["runs"] == [str(tmp_path / "base1"), str(tmp_path / "lr1")], "the lowest seed that both have"
    assert pair["shared_seeds"] == 2
    differences = [accuracies[0][2] - accuracies[1][0], accuracies[0][0] - accuracies[1][1]]
    interval = scipy_stats.t.interval(0.95, 1, np.mean(differences), np.std(differences, ddof=1) / math.sqrt(2))
    assert (pair["mean_difference_low"], pair["mean_difference_high"]) == pytest.approx(interval)
    assert "small_cnn lr=0.01 (seed 1) is 2.70 points more accurate than small_cnn lr=0.5 (seed 1)" in sentences(made)[0]
    assert "Over 2 shared seeds small_cnn lr=0.01 less small_cnn lr=0.5 is" in sentences(made)[0]
    assert " ± " in (tmp_path / "out" / "runs.md").read_text()


@pytest.fixture(scope="module")
def several(tmp_path_factory):
    """Two seeds of a configuration, of which the lower is the worse one, against a single run of another."""
    where = tmp_path_factory.mktemp("several")
    runs = [variant(where, f"s{seed}", seed=seed, flips=flips) for seed, flips in ((3, 400), (4, 0))]
    single = variant(where, "single", seed=7, flips=100, optimizer__lr=0.5)
    return compare([*map(str, runs), str(single)], out=str(where / "out"), table_formats=("csv", "md", "tex"))


def test_what_is_of_one_seed_names_it(several):
    first, second = "small_cnn lr=0.01 (seed 3)", "small_cnn lr=0.5 (seed 7)"
    tables = {table.name: table for table in several.tables}
    assert [column.title for column in tables["classes"].columns][2:4] == [first, second]
    assert tables["pairs"].cells[0][:2] == [first, second]
    assert f"Recall of each class in percent, {first} and {second}, and" in tables["classes"].caption
    assert "Where a side has several seeds, these are of the one in brackets." in tables["pairs"].caption
    assert first in latex_cells((several.folder / "classes.tex").read_text())[0][2].replace("\\_", "_")
    for name in ("pairs", "classes", "only_one_right"):
        with (several.folder / f"{name}.csv").open() as stream:
            assert {(row["first_seed"], row["second_seed"]) for row in csv.DictReader(stream)} == {("3", "7")}
    right = [np.equal(*answers(several.folder.parent / name)).mean() for name in ("s3", "single")]
    ahead = f"{second} is {100 * (right[1] - right[0]):.2f} points more accurate than {first} ("
    assert sentences(several)[0].startswith(ahead)
    assert tables["pairs"].cells[0][4] == f"{100 * (right[0] - right[1]):+.2f}".replace("-", "−")


def test_pictures_of_one_seed_name_it(several, tmp_path, monkeypatch):
    titles = []
    monkeypatch.setattr(pictures, "save_figure", lambda path, draw, *size: draw(None))
    monkeypatch.setattr(pictures.contrast, "draw_difference", lambda figure, difference, classes, *names: titles.append(names))
    monkeypatch.setattr(pictures.contrast, "draw_only_one_right", lambda *given, most, seed: titles.append(given[5]))
    pictures.draw_difference(tmp_path, several.pairs[0], ["a"] * 10, ["png"])
    pictures.draw_only_one_right(tmp_path, several.pairs[0], np.zeros(0), ["a"] * 10, ["png"])
    assert titles == [("small_cnn lr=0.01 (seed 3)", "small_cnn lr=0.5 (seed 7)")] * 2


def test_a_single_run_of_each_needs_no_seed(two):
    assert two.pairs[0].sides == two.pairs[0].names
    assert [column.title for column in two.tables[-1].columns][2:4] == ["mobilenet_like", "small_cnn"]


def test_the_note_on_tests_is_there_where_there_are_tests(several):
    def said(notes):
        return [note for note in notes if note.startswith("the tests speak of these trained models")]

    assert len(said(several.notes)) == 1
    entries = several.entries
    assert said(notes_on(entries, [])) == []
    (pair,) = compare_pairs([replace(entries[0], label=label) for label in ("a", "b")])
    assert pair.mean_interval is None, "of one and the same runs"
    over_seeds = replace(pair, mean_interval=stats.Interval(-0.01, 0.01))
    assert said(notes_on(entries, [over_seeds]))[0].endswith(" (the mean over shared seeds)")


def test_runs_of_one_configuration_alone_are_compared_by_seed(tmp_path):
    folders = [variant(tmp_path, f"s{seed}", seed=seed, flips=seed) for seed in (0, 1)]
    entries = load_entries(folders)
    assert [entry.label for entry in entries] == ["small_cnn, seed 0", "small_cnn, seed 1"]
    copies = [variant(tmp_path / place, "same") for place in ("a", "b")]
    assert [entry.label for entry in load_entries(copies)] == ["a/same", "b/same"]


def test_several_pairs_are_corrected_by_holm(tmp_path):
    near = [variant(tmp_path, f"lr{k}", flips=4 * k, optimizer__lr=0.1 * k) for k in (1, 2, 3)]
    pairs = [pair.plain() for pair in compare_pairs(load_entries(near))]
    raw = [pair["mcnemar_p"] for pair in pairs]
    order = sorted(range(3), key=lambda k: raw[k])
    expected, running = [0.0] * 3, 0.0
    for rank, k in enumerate(order):
        running = max(running, min(1.0, (3 - rank) * raw[k]))
        expected[k] = running
    assert [pair["mcnemar_p_holm"] for pair in pairs] == pytest.approx(expected)


def test_other_test_images_are_refused_by_name(tmp_path):
    said = command(SMALL, REFERENCE / "quickstart", "--out", tmp_path / "out")
    assert said.exit_code == 4
    assert f"{SMALL} and {REFERENCE / 'quickstart'} were tested on different images: cifar10 and digits" in said.stderr
    assert not (tmp_path / "out").exists()
    shuffled = variant(tmp_path, "shuffled", optimizer__lr=3.0)
    labels, predicted = answers(shuffled)
    np.savez(shuffled / "test_predictions.npz", labels=labels[::-1], predicted=predicted[::-1], confidence=np.ones(len(labels)))
    result = json.loads((shuffled / "result.json").read_text())
    result["digests"]["data"] = "0" * 64
    (shuffled / "result.json").write_text(json.dumps(result))
    said = command(SMALL, shuffled, "--out", tmp_path / "out")
    assert said.exit_code == 4
    assert "other images of cifar10 (10,000 and 10,000, labels differ)" in said.stderr
    unpaired = command(SMALL, REFERENCE / "quickstart", "--unpaired", "--out", tmp_path / "out", "--json")
    assert unpaired.exit_code == 0
    plain = json.loads(unpaired.stdout)
    assert plain["pairs"] == []
    assert "(--unpaired)" in plain["notes"][0]
    assert "pairs.csv" not in plain["files"]


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        ([SMALL], 2, "compare needs two runs or more"),
        ([SMALL, SMALL], 2, "is given twice"),
        ([SMALL, ROOT], 4, "is no run folder"),
        ([SMALL, DENSE, "--tables", "doc"], 2, "--tables doc; must be of csv, md, tex"),
        ([SMALL, DENSE, "--figures", "png,gif"], 2, "--figures png,gif; must be of png, pdf, svg"),
        ([SMALL, DENSE, "--out", SMALL], 4, "is a run folder"),
        ([SMALL, DENSE, "--unpaired", "--data-root", "."], 2, "gets right; --unpaired compares no answers"),
        ([SMALL, DENSE, MOBILENET, "--data-root", "."], 2, "gets right; 3 pairs get none"),
    ],
)
def test_what_cannot_be_compared_gets_one_line(tmp_path, monkeypatch, arguments, code, text):
    monkeypatch.chdir(tmp_path)
    said = command(*arguments)
    assert (said.exit_code, said.stdout) == (code, "")
    assert text in said.stderr.splitlines()[0]
    assert not list(tmp_path.iterdir())


def test_three_runs_get_a_list_of_all_pairs_and_labels_by_setting(tmp_path):
    folders = [variant(tmp_path, f"lr{k}", flips=k, optimizer__lr=0.1 * k) for k in range(1, 6)]
    three = compare(list(map(str, folders[:3])), out=str(tmp_path / "three"))
    with (tmp_path / "three" / "only_one_right.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    for pair in three.pairs:
        own = [row for row in rows if (row["first"], row["second"]) == pair.names]
        assert len(own) == pair.counts.only_first + pair.counts.only_second
    assert not (tmp_path / "three" / "confusion_difference.png").exists()
    assert len([text for text in sentences(three) if "McNemar" in text]) == 3
    assert [entry.label for entry in load_entries(folders)] == [f"small_cnn lr={0.1 * k}" for k in range(1, 6)]


def test_more_than_can_be_told_apart_is_refused(tmp_path):
    folders = [variant(tmp_path, f"lr{k}", optimizer__lr=0.1 * k) for k in range(1, 26)]
    with pytest.raises(ConfigError, match="25 configurations; compare puts at most 24 side by side"):
        load_entries(folders)


def test_features_of_a_frozen_network_count_as_training(tmp_path):
    frozen = variant(tmp_path, "frozen", optimizer__lr=3.0)
    result = json.loads((frozen / "result.json").read_text())
    result["cost"]["features_s"] = 1000.0
    (frozen / "result.json").write_text(json.dumps(result))
    plain, with_features = load_entries([SMALL_ADAM, frozen])
    spent = sum(json.loads(line)["seconds"] for line in (SMALL / "metrics.jsonl").read_text().splitlines())
    assert with_features.mean("train_s") == pytest.approx(spent + 1000)
    assert best_for([plain, with_features])[0][-2:] == ["fastest to train", "least memory"]


def test_damaged_predictions_get_one_line(tmp_path):
    broken = variant(tmp_path, "broken", optimizer__lr=3.0)
    data = (broken / "test_predictions.npz").read_bytes()
    for damaged in (data[: len(data) // 2], data[:60] + bytes(200) + data[260:], b""):
        (broken / "test_predictions.npz").write_bytes(damaged)
        said = command(SMALL, broken)
        assert said.exit_code == 4
        assert len(said.stderr.splitlines()) == 1
        assert "cannot be read" in said.stderr


def test_parts_of_different_runs_are_refused(tmp_path):
    mixed = variant(tmp_path, "mixed", optimizer__lr=3.0)
    shutil.copy(DENSE / "test_predictions.npz", mixed / "test_predictions.npz")
    said = command(SMALL, mixed)
    assert said.exit_code == 4
    assert f"{mixed}: result.json and the saved predictions do not belong together" in said.stderr


def test_a_star_behind_a_sweep_means_its_runs(tmp_path):
    """What a sweep leaves beside its runs: plan, facts, reports, their tables, and a run of older code that was set aside."""
    sweep = tmp_path / "sweep"
    names = [variant(sweep, f"lr={k}", flips=k, optimizer__lr=float(k)).name for k in (1, 2)]
    (sweep / "plan.json").write_text(json.dumps({"schema": PLAN_SCHEMA, "jobs": [{"name": name} for name in names]}))
    variant(sweep, "lr=2.bad-1", optimizer__lr=2.0)
    for file in ("facts.json", "report.csv", "report.html", "report.json", "tables/runs.csv"):
        (sweep / file).parent.mkdir(exist_ok=True)
        (sweep / file).write_text("{}")
    starred = sorted(sweep.glob("*"))
    assert len(starred) == 9
    said = command(*starred, "--unpaired", "--out", tmp_path / "out", "--json")
    assert said.exit_code == 0, said.stderr
    assert [entry["folders"] for entry in json.loads(said.stdout)["entries"]] == [[str(sweep / name)] for name in names]
    (line,) = said.stderr.splitlines()
    assert line.endswith(": facts.json, lr=2.bad-1, plan.json, report.csv, report.html, report.json, tables")
    chosen = [str(sweep / name) for name in ("lr=2.bad-1", "lr=2", "report.json")]
    assert split_sweep(chosen) == (chosen, []), "what is named without the plan is meant"
    (sweep / "plan.json").write_text("[]")
    assert command(*starred).stderr.startswith(f"cifar-lab: error[E-CKPT]: {sweep / 'plan.json'} is no plan of a sweep")


def test_default_names_tell_comparisons_apart():
    assert default_name([SMALL, DENSE]) == "d3_small_cnn_vs_d4_dense_dnn"
    assert re.fullmatch(r"run_vs_run-[0-9a-f]{8}", default_name(["a/run", "b/run"]))
    assert default_name(["a/run", "b/run"]) != default_name(["a/run", "c/run"])
    assert len(default_name([f"outputs/{'x' * 60}{k}" for k in range(5)])) <= 100


@pytest.fixture(scope="module")
def tiny(small_run, tmp_path_factory):
    """A small run with everything that runs keep, and one that answers backwards."""
    where = tmp_path_factory.mktemp("runs")
    shutil.copytree(small_run, where / "fast")
    shutil.copytree(where / "fast", where / "slow")
    with np.load(where / "fast" / "predictions.npz", allow_pickle=False) as saved:
        arrays = dict(saved)
    np.savez(where / "slow" / "predictions.npz", **{**arrays, "test_logits": -arrays["test_logits"]})
    result = json.loads((where / "slow" / "result.json").read_text())
    result["metrics"]["test"]["accuracy"] = float((arrays["test_logits"].argmin(axis=1) == arrays["test_labels"]).mean())
    (where / "slow" / "result.json").write_text(json.dumps(result))
    config = yaml.safe_load((where / "slow" / "config.yaml").read_text())
    config["optimizer"]["lr"] = 0.0001
    (where / "slow" / "config.yaml").write_text(yaml.safe_dump(config))
    return where


def test_run_folders_get_pictures_of_their_disagreements(tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    said = command(tiny / "slow", tiny / "fast", "--figures", "png,pdf")
    assert said.exit_code == 0, said.stderr
    out = tmp_path / "outputs" / "compare" / "slow_vs_fast"
    assert (out / "only_one_right.png").is_file()
    assert (out / "only_one_right.pdf").read_bytes().startswith(b"%PDF")
    assert {path.suffix for path in out.glob("curves.*")} == {".png", ".pdf"}
    assert "small_cnn lr=0.0001" in said.stdout
    assert "everything is in outputs/compare/slow_vs_fast: comparison.md" in said.stdout
    assert "data: a subset: at most 60 images" in said.stdout
    paths = {path.name for path in (tiny / "slow").iterdir()}
    assert "comparison.md" not in paths, "run folders stay as they are"


def test_the_matrix_is_sklearns_difference(two):
    from cifar_lab.analysis.contrast import confusion_difference

    (labels, first), (_, second) = answers(MOBILENET), answers(SMALL_ADAM)
    expected = confusion_matrix(labels, first) - confusion_matrix(labels, second)
    np.testing.assert_array_equal(confusion_difference(labels, first, second, 10), expected)
