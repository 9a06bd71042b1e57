"""The report of a study from a fabricated sweep: its numbers against an independent count, its page against a parser."""

import base64
import csv
import html.parser
import io
import json
import re
import statistics
import subprocess
import sys

import numpy as np
import pytest
from latex import latex_cells
from made_sweep import CLASSES, make_sweep
from PIL import Image
from scipy import stats

from cifar_lab.analysis.typeset import escape_latex
from cifar_lab.errors import ConfigError, DataError
from cifar_lab.study import wording
from cifar_lab.study.answer import answer, method
from cifar_lab.study.design import load_study
from cifar_lab.study.report import build_report
from cifar_lab.study.verdicts import judge

EVIL = 'model.activation=<b>&"x"'
ACCURACIES = {
    "": [0.700, 0.710, 0.705, 0.712, 0.698, 0.707, 0.703],
    "model.width=2": [0.742, 0.748, 0.751, 0.750, 0.739, 0.751, 0.745],
    EVIL: [0.701, 0.709, 0.706, 0.711, "E-OOM", 0.706, 0.704],
}
FACTS = {name: {"num_params": 1000 + 500 * k, "macs": 50_000, "steps_per_epoch": 10} for k, name in enumerate(ACCURACIES)}
STUDY = {"question": "Does width matter?", "margin": 0.005}
CLAIM = {"text": "wider is better <i>", "source": "R & D", "variant": "model.width=2", "relation": "higher"}


class Page(html.parser.HTMLParser):
    """Texts, references and tags of a page; a tag that is closed out of turn is an error."""

    VOID = frozenset(("meta", "img", "br", "link", "input", "hr"))

    def __init__(self, text: str):
        super().__init__()
        self.references, self.tags, self.cells, self.ids, self.open = [], [], [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.references += [value for name, value in attrs if name in ("src", "href", "xlink:href", "srcset", "data", "action")]
        self.ids += [value for name, value in attrs if name == "id"]
        if tag not in self.VOID:
            self.open.append(tag)
        if tag in ("td", "th"):
            self.cells.append("")

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] in ("td", "th"):
            self.cells[-1] += data


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sweeps") / "widths"
    return make_sweep(
        folder, ACCURACIES, study={**STUDY, "claims": [CLAIM]}, facts=FACTS, costs={"model.width=2": {"macs": 99_000}}
    )


@pytest.fixture(scope="module")
def made(sweep):
    return build_report(sweep, table_formats=("tex",))


def page_of(folder) -> Page:
    return Page((folder / "report.html").read_text(encoding="utf-8"))


def rows_of(folder) -> list[dict[str, str]]:
    with (folder / "report.csv").open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


# Numbers


def test_csv_has_every_planned_run_with_what_its_result_says(sweep, made):
    rows = rows_of(sweep)
    jobs = json.loads((sweep / "plan.json").read_text())["jobs"]
    assert sorted(row["folder"] for row in rows) == sorted(job["name"] for job in jobs)
    for row in rows:
        result = json.loads((sweep / row["folder"] / "result.json").read_text())
        assert (row["status"], row["config_digest"]) == (result["status"], result["digests"]["config"])
        if row["status"] != "done":
            assert (row["code"], row["test_accuracy"], row["recall_cat"]) == ("E-OOM", "", "")
            continue
        test = result["metrics"]["test"]
        assert float(row["test_accuracy"]) == test["accuracy"]
        assert [float(row[f"recall_{name}"]) for name in CLASSES] == [one["recall"] for one in test["per_class"]]
        assert float(row["train_s"]) == result["cost"]["train_s"]
        curve = [json.loads(line) for line in (sweep / row["folder"] / "metrics.jsonl").read_text().splitlines()]
        first = next((one["epoch"] for one in curve if one["val_accuracy"] >= 0.5), None)
        assert row["epochs_to_50"] == str(first)
        assert float(row["seconds_to_50"]) == 2.0 * first


def test_json_and_page_give_means_differences_and_intervals(sweep, made):
    found = json.loads((sweep / "report.json").read_text())
    cells = page_of(sweep).cells
    base = ACCURACIES[""]
    for one in found["comparisons"]:
        pairs = [(a, b) for a, b in zip(ACCURACIES[one["variant"]], base, strict=True) if isinstance(a, float)]
        differences = [a - b for a, b in pairs]
        half = stats.t.ppf(0.975, len(pairs) - 1) * statistics.stdev(differences) / len(pairs) ** 0.5
        mean = statistics.fmean(differences)
        assert one["n"] == len(pairs)
        assert one["difference"] == pytest.approx(mean)
        assert one["interval95"] == pytest.approx([mean - half, mean + half])
        shown = f"{100 * mean:+.2f}".replace("-", "−")
        ends = f"{100 * (mean - half):+.2f} to {100 * (mean + half):+.2f}".replace("-", "−")
        assert {shown, ends} <= set(cells)
    outcome = {one["variant"]: one for one in found["outcomes"]}
    assert outcome[EVIL]["failed"] == {"E-OOM": 1}
    mean, sd = 100 * statistics.fmean(base), 100 * statistics.stdev(base)
    assert f"{mean:.2f} ± {sd:.2f}" in cells
    assert "6 of 7" in cells
    assert "▲ better" in cells


def test_answer_names_what_was_found(made):
    found = json.loads((made.files[2]).read_text())
    assert found["answer"][0].startswith("1 variant is better than the baseline: width=2 (+")
    assert found["claims"][0]["verdict"] == "supported"
    assert found["cautions"][0] == "20 of 21 runs are done: 1 failed."


def test_method_says_what_is_not_corrected(sweep, tmp_path):
    def last_of(folder):
        return [
            line for line in method(judge(load_study(folder))) if "better or worse in this study" in line or "by itself" in line
        ]

    corrected, alone = last_of(sweep)
    assert corrected.endswith("so that the chance of any false better or worse in this study stays below 5 %.")
    assert (
        alone == "Each equivalent and each claim is judged at 95 % by itself, without a correction: of many, some may be false."
    )
    plain = make_sweep(tmp_path / "plain", {"a=1": [0.5, 0.6], "a=2": [0.7, 0.9]}, predictions=False)
    assert len(last_of(plain)) == 1
    claim = {"relation": "between", "low": 0.1, "high": 0.9}
    seeds = make_sweep(tmp_path / "seeds", {"": [0.5, 0.6]}, study={"claims": [claim]}, predictions=False)
    assert last_of(seeds) == [alone.replace("Each equivalent and each claim", "Each claim")]


def test_classes_confusions_and_images_are_those_of_the_saved_answers(sweep, made):
    found = json.loads((sweep / "report.json").read_text())

    def answers(variant):
        runs = [row["folder"] for row in rows_of(sweep) if row["variant"] == variant and row["status"] == "done"]
        loaded = [np.load(sweep / run / "predictions.npz") for run in runs]
        return np.stack([one["test_logits"].argmax(axis=1) for one in loaded]), loaded[0]["test_labels"]

    base, labels = answers("")
    wide, _ = answers("model.width=2")
    matrix = np.array([[[((p == j) & (labels == i)).sum() for j in range(5)] for i in range(5)] for p in base]).mean(axis=0)
    assert np.allclose(found["mean_confusion"][""], matrix)
    change = [(wide[:, labels == k] == k).mean() - (base[:, labels == k] == k).mean() for k in range(5)]
    assert [one["difference"] for one in found["recall_changes"]["model.width=2"]] == pytest.approx(change)
    gained = np.flatnonzero((wide == labels).all(axis=0) & (base != labels).all(axis=0))
    assert sorted(found["images"]["model.width=2"]["only_variant"]) == gained.tolist()


# The page


def test_page_needs_nothing_beside_itself(sweep, made):
    text = (sweep / "report.html").read_text(encoding="utf-8")
    page = Page(text)
    assert [one for one in page.references if not one.startswith(("#", "data:image/png;base64,"))] == []
    assert not {"script", "link", "iframe", "object", "base"} & set(page.tags)
    assert not re.search(r"@import|url\((?!#)", text)
    assert len(set(page.ids)) == len(page.ids)
    wanted = {one[1:] for one in page.references if one.startswith("#")}
    assert wanted <= set(page.ids)
    assert page.tags.count("svg") == 6


def test_names_are_text_and_never_markup(sweep, made):
    text = (sweep / "report.html").read_text(encoding="utf-8")
    assert "<b>" not in text
    assert "<i>" not in text
    assert "model.activation=&lt;b&gt;&amp;&#34;x&#34;" in text
    assert "R &amp; D" in text


def test_same_folders_give_the_same_bytes(sweep, made):
    before = {file: file.read_bytes() for file in made.files}
    assert {file: file.read_bytes() for file in build_report(sweep, table_formats=("tex",)).files} == before


def test_pictures_of_test_images_are_inside_where_they_are_found(tmp_path):
    folder = make_sweep(tmp_path / "far", {"a=1": [0.40, 0.41, 0.42], "a=2": [0.90, 0.91, 0.92]})
    images = np.random.default_rng(0).integers(0, 255, (1000, 3, 8, 8), dtype=np.uint8)
    asked = []
    text = (
        build_report(folder, test_images=lambda run: (asked.append(run.variant), images)[1]).files[0].read_text(encoding="utf-8")
    )
    gained = json.loads((folder / "report.json").read_text())["images"]["a=2"]["only_variant"]
    assert asked == ["a=1"]
    shown = [base64.b64decode(found) for found in re.findall(r'<img src="data:image/png;base64,([^"]+)"', text)]
    first = np.asarray(Image.open(io.BytesIO(shown[0]))).transpose(2, 0, 1)
    assert (first == images[gained[0]]).all()
    assert f"{CLASSES[gained[0] % 5]}, taken for " in text
    assert f"(image {gained[0]})" in text
    without = build_report(folder, test_images=lambda run: None).files[0].read_text(encoding="utf-8")
    assert "<img" not in without
    assert f"Images {gained[0]}, {gained[1]}, " in without
    assert "places in the test set, counted from 0" in without


# Sweeps in any state


def test_half_finished_sweep(tmp_path):
    folder = make_sweep(tmp_path / "half", {"a=1": [0.5, "unfinished", "waiting"], "a=2": ["waiting", "diverged", "waiting"]})
    found = json.loads(build_report(folder).files[2].read_text())
    assert found["cautions"][0] == "1 of 6 runs is done: 1 diverged, 1 running or killed, 3 waiting."
    assert [row["status"] for row in rows_of(folder)] == ["done", "unfinished", "waiting", "waiting", "diverged", "waiting"]
    assert "E-DIVERGED" in (folder / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("accuracies", "words"),
    [
        ({"a=1": ["waiting"], "a=2": ["waiting"]}, "No run is finished yet"),
        ({"a=1": [0.5], "a=2": [0.6]}, "No verdict is possible: there is one seed of each"),
        ({"": [0.5, 0.6, 0.7]}, "Test accuracy: 60.00 ± 10.00 % over 3 seeds (95 % t interval of the mean 35.16 to 84.84)."),
        ({"": [0.5]}, "Test accuracy: 50.00 % (1 seed; a spread takes two or more)."),
        ({"": [0.5] * 3}, "Test accuracy: 50.00 % in each of 3 seeds, which show no spread."),
    ],
)
def test_small_sweeps(tmp_path, accuracies, words):
    report = build_report(make_sweep(tmp_path / "small", accuracies))
    assert any(words in sentence for sentence in json.loads(report.files[2].read_text())["answer"])
    page_of(tmp_path / "small")


def answer_of(folder, metric, accuracies, **options):
    return answer(judge(load_study(make_sweep(folder, accuracies, study={"metric": metric}, predictions=False, **options))))


def test_answer_says_why_finished_runs_give_no_verdict(tmp_path):
    three = {name: [0.5, 0.6, 0.55] for name in ("a=1", "a=2")}
    never = (
        "Epochs to 90 % validation accuracy: not always reached (2 in {} of 3 runs, 1 in 0 of 3 runs): the rest have no value,"
    )
    [found] = answer_of(tmp_path / "none", "epochs_to_90", three)
    assert found.startswith(never.format(0))
    [found] = answer_of(tmp_path / "some", "epochs_to_90", three, curves={("a=2", seed): [0.95] for seed in range(2)})
    assert found.startswith(never.format(2))
    [found] = answer_of(tmp_path / "alone", "epochs_to_90", {"": [0.5, 0.6]}, curves={("", 0): [0.95]})
    assert found == "Epochs to 90 % validation accuracy: reached in 1 of 2 runs, so that there is no mean."
    shared = {("a=2", 0): {"cost": {"train_s": 30.0, "shared": True}}}
    [found] = answer_of(tmp_path / "shared", "train_s", three, results=shared)
    assert found == "Seconds of training: 1 of 6 runs shared a device: their seconds allow no verdict."
    calls = {name: {"latency": {"p50_ms": 2.0}} for name in three}
    [found] = answer_of(tmp_path / "latency", "latency_ms", three, facts=calls)
    assert found.startswith("Milliseconds for one image: measured once a variant, on one machine")
    [found] = answer_of(tmp_path / "once", "latency_ms", {"": [0.5, 0.6]}, facts={"": calls["a=1"]})
    assert found == "Milliseconds for one image: 2, measured once."


def test_answer_names_one_comparison_for_several_that_have_no_verdict(tmp_path):
    [found] = answer_of(tmp_path, "epochs_to_90", {f"a={k}": [0.5, 0.6] for k in (1, 2, 3)})
    assert found.startswith("Epochs to 90 % validation accuracy (2): not always reached (")
    assert found.endswith("no verdict. 1 other comparison has no verdict either.")


def test_a_failed_run_is_no_reason_of_its_own(tmp_path):
    [found] = answer_of(tmp_path, "test_accuracy", {"a=1": [0.5, 0.6], "a=2": ["E-OOM", 0.5]})
    assert found.startswith("No verdict is possible: there is one seed of each")


def test_sweep_without_validation_answers_or_facts(tmp_path):
    none = {(variant, seed): [None, None] for variant in ("a=1", "a=2") for seed in (0, 1)}
    folder = make_sweep(tmp_path / "bare", {"a=1": [0.5, 0.6], "a=2": [0.55, 0.65]}, curves=none, predictions=False)
    text = build_report(folder).files[0].read_text(encoding="utf-8")
    assert "Convergence" not in text
    assert "Confusion matrix" not in text
    assert "Change in recall" in text


def test_another_metric_is_judged_and_named(tmp_path):
    folder = make_sweep(tmp_path / "loss", {"a=1": [0.5, 0.6, 0.55], "a=2": [0.55, 0.66, 0.60]}, study={"metric": "test_loss"})
    page_text = build_report(folder).files[0].read_text(encoding="utf-8")
    assert "test loss" in page_text
    assert "1.35 ± 0.150" in Page(page_text).cells


# Files


def test_figures_and_tables_on_their_own(tmp_path):
    folder = make_sweep(tmp_path / "out", {"a=1": [0.5, 0.6], "a=2": [0.55, 0.65]}, costs={"a=2": {"macs": 99_000}})
    files = build_report(folder, figure_formats=("svg", "png"), table_formats=("tex", "csv")).files
    names = {file.relative_to(folder).as_posix() for file in files}
    assert {"figures/differences.svg", "figures/seeds.png", "figures/curves.svg", "figures/cost.png"} <= names
    assert {"tables/results.tex", "tables/results.csv", "tables/cost.csv", "tables/recalls.csv", "tables/runs.tex"} <= names
    assert all(file.stat().st_size for file in files)


def test_latex_tables_can_be_read_without_a_package(sweep, made):
    found = {file.stem: latex_cells(file.read_text(encoding="utf-8")) for file in (sweep / "tables").glob("*.tex")}
    assert {"results", "facts", "confused", "classes", "recalls", "images", "settings", "runs"} <= set(found)
    assert found["results"][2][-2] == r"$\bigtriangleup$ better"
    assert found["facts"][2][-1].endswith(r" $\ne$")
    assert any(r" $\to$ " in head for head in found["confused"][0])
    marks = {word: escape_latex(wording.verdict(word)) for word in wording.MARKS}
    assert all(mark.isascii() for mark in marks.values()), marks
    assert len({mark.split()[0] for mark in marks.values()}) == len(marks), "each verdict has a shape of its own"


def test_refusals_leave_nothing_behind(tmp_path):
    with pytest.raises(DataError, match=re.escape("plan.json")):
        build_report(tmp_path)
    folder = make_sweep(tmp_path / "one", {"": [0.5]})
    with pytest.raises(ConfigError, match="gif"):
        build_report(folder, figure_formats=("gif",))
    with pytest.raises(ConfigError, match="docx"):
        build_report(folder, table_formats=("docx",))
    assert not (folder / "report.html").exists()


def test_report_imports_neither_torch_nor_hydra():
    code = "import sys, cifar_lab.study.report, cifar_lab.study.screen; print({'torch', 'hydra', 'omegaconf'} & set(sys.modules))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "set()"
