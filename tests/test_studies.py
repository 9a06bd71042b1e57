"""Every study that comes with the package: what it plans, from its file to its jobs."""

from functools import cache

import pytest
import yaml
from rig import ROOT, SMOKE, Lab

from cifar_lab import schema, sweeps
from cifar_lab.config import to_plain
from cifar_lab.overrides import parse_overrides
from cifar_lab.runs import differences
from cifar_lab.study.design import choose_baseline, variant_of

STUDIES = sorted(path.stem for path in (ROOT / "conf/study").glob("*.yaml"))
ABLATIONS = sorted(path.stem for path in (ROOT / "conf/ablation").glob("*.yaml"))


@cache
def jobs_of(study: str, *given: str) -> list[sweeps.Job]:
    schema.register()
    parsed = parse_overrides([f"study={study}", *given])
    composed = schema.compose_raw(sweeps.first_job(parsed))
    return sweeps.plan([*sweeps.own_params(composed.hydra.sweeper.params, parsed), f"study={study}", *given])


@pytest.fixture(autouse=True)
def _registered():
    schema.register()


@pytest.mark.parametrize("study", STUDIES)
def test_every_study_plans_its_jobs(study):
    jobs = jobs_of(study, "seed=0")
    variants = list(dict.fromkeys(job.variant for job in jobs))
    assert len(jobs) == len(variants)
    settings = jobs[0].config.study
    assert settings.question.endswith("?")
    assert choose_baseline(settings.baseline, variants) == variants[0]
    named = {name for claim in settings.claims for name in (claim.variant, claim.against)} - {""}
    assert named <= set(variants)


def test_the_eight_modifications_are_fifteen_points():
    jobs = jobs_of("small_cnn_all", "seed=0")
    assert len(jobs) == 15
    base = to_plain(jobs[0].config)
    assert (base["optimizer"]["lr"], base["train"]["batch_size"], base["model"]["widths"]) == (0.01, 32, [7, 9])
    changed = {job.variant.partition("=")[2]: {d[0]: d[2] for d in differences(base, to_plain(job.config))} for job in jobs[1:]}
    assert changed.pop("sgd")["optimizer.name"] == "sgd"
    assert changed == {
        "convs3": {"model.num_convs": 3},
        "convs4": {"model.num_convs": 4},
        "kernel5": {"model.kernel_size": 5},
        "kernel7": {"model.kernel_size": 7},
        "single5x5": {"model.widths": [9], "model.kernel_size": 5},
        "lr4e-4": {"optimizer.lr": 4e-4},
        "lr3e-4": {"optimizer.lr": 3e-4},
        "lr1e-4": {"optimizer.lr": 1e-4},
        "leaky_relu": {"model.activation": "leaky_relu"},
        "tanh": {"model.activation": "tanh"},
        "batch_norm_first": {"model.batch_norm_first": True},
        "batch4": {"train.batch_size": 4},
        "batch128": {"train.batch_size": 128},
    }


def test_each_modification_is_a_study_of_its_own():
    whole = {job.variant for job in jobs_of("small_cnn_all", "seed=0")}
    parts = [
        {job.variant for job in jobs_of(name, "seed=0")}
        for name in STUDIES
        if name.startswith("small_cnn_") and name != "small_cnn_all"
    ]
    assert len(parts) == 8
    assert set.union(*parts) - {"ablation=sgd_momentum"} == whole
    assert all("ablation=none" in part for part in parts)


@pytest.mark.parametrize("lr", [0.001])
def test_the_base_learning_rate_is_every_variants_own_unless_it_sets_one(lr):
    jobs = jobs_of("small_cnn_all", "seed=0", f"study.base_lr={lr}")
    rates = {job.variant.partition("=")[2]: job.config.optimizer.settings["lr"] for job in jobs}
    assert rates.pop("lr4e-4") == 4e-4
    assert rates.pop("lr3e-4") == 3e-4
    assert rates.pop("lr1e-4") == 1e-4
    assert set(rates.values()) == {lr}


@pytest.mark.parametrize("ablation", ABLATIONS)
def test_every_ablation_says_what_it_changes(ablation):
    text = (ROOT / f"conf/ablation/{ablation}.yaml").read_text()
    assert text.startswith("# @package _global_\n# ")
    assert set(yaml.safe_load(text) or {}) <= {"defaults", "model", "optimizer", "train"}


def test_more_seeds_are_the_same_folder_and_a_base_rate_is_another():
    name = lambda *given: sweeps.sweep_name(parse_overrides(["study=small_cnn_all", *given]), study="small_cnn_all")  # noqa: E731
    assert name() == name("seed=range(0,10)") == "small_cnn_all"
    assert name("study.base_lr=0.001") == "small_cnn_all,study.base_lr=0.001"
    assert name("train.epochs=1,2") == "small_cnn_all,train.epochs"


def test_jobs_that_differ_in_the_seed_alone_are_composed_right():
    """The quick way of composing against the plain one."""
    given = [*SMOKE, "seed=range(0,4)", "optimizer.lr=0.1,0.01"]
    for job in sweeps.plan(given):
        assert job.config == schema.compose(job.overrides)


def test_an_interpolated_seed_is_not_copied():
    jobs = sweeps.plan([*SMOKE, "seed=range(0,4)", "data.split_seed=${seed}"])
    assert [job.config.data.split_seed for job in jobs] == [0, 1, 2, 3]


def test_seeds_out_of_range_are_refused():
    with pytest.raises(Exception, match=r"seed=-1; must be 0"):
        sweeps.plan([*SMOKE, "seed=0,1,-1"])


def test_a_variant_is_named_by_what_is_swept():
    overrides = ["experiment=a", "optimizer.lr=0.1", "+seed=3", "model=b"]
    assert variant_of(overrides, ["optimizer.lr", "seed", "model"]) == "optimizer.lr=0.1,model=b"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["study=small_cnn_al"], "small_cnn_all"),
        (["--dry-run", "model=small_cnn"], "--dry-run needs -m or study=NAME"),
        (["study=small_cnn_lr", "study.margin=0.1,0.2"], "study.margin has several values"),
        (["study=small_cnn_lr", "study.baseline=nothing", "--dry-run"], "study.baseline=nothing: is no variant"),
        (["experiment=quickstart", "hydra.mode=MULTIRUN"], "hydra.mode is not allowed"),
        (["study=small_cnn_lr", "study.margins=1"], "study.margin"),
    ],
)
def test_what_a_study_cannot_do_is_refused(lab: Lab, arguments, words):
    said = lab(*arguments)
    assert said.code == 2, said.out + said.err
    assert words in said.err
