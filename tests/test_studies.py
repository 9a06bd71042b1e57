"""Every study that comes with the package: what it plans, from its file to its jobs."""

import shutil
from functools import cache
from pathlib import Path

import pytest
import yaml
from omegaconf import OmegaConf
from rig import ROOT, SMOKE, Lab

from cifar_lab import schema, storage, sweeping, sweeps
from cifar_lab.config import to_plain
from cifar_lab.errors import CodeError, ResumeError
from cifar_lab.overrides import parse_overrides
from cifar_lab.runs import code_digest, config_digest, differences
from cifar_lab.study.design import load_study
from cifar_lab.study.naming import choose_baseline, variant_of

STUDIES = sorted(path.stem for path in (ROOT / "conf/study").glob("*.yaml"))
ABLATIONS = sorted(path.stem for path in (ROOT / "conf/ablation").glob("*.yaml"))


@cache
def jobs_of(study: str, *given: str) -> list[sweeps.Job]:
    schema.register()
    parsed = parse_overrides([f"study={study}", *given])
    composed = schema.compose_raw(sweeps.first_job(parsed))
    params = composed.hydra.sweeper.params
    return sweeps.plan([*sweeps.own_params(params, parsed), f"study={study}", *given], own=tuple(params))


@pytest.fixture(autouse=True)
def _registered():
    schema.register()


@pytest.mark.parametrize("study", STUDIES)
def test_every_study_plans_its_jobs(study):
    jobs = jobs_of(study, "seed=0,1")
    variants = list(dict.fromkeys(job.variant for job in jobs))
    assert len(jobs) == 2 * len(variants)
    settings = jobs[0].config.study
    assert settings.question.endswith("?")
    assert choose_baseline(settings.baseline, variants) == variants[0]
    named = {name for claim in settings.claims for name in (claim.variant, claim.against)} - {""}
    assert named <= set(variants)
    assert {job.config.seed for job in jobs} == {0, 1}


def test_the_eight_modifications_are_fifteen_points():
    jobs = jobs_of("small_cnn_all", "seed=0,1")[::2]
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


def ablations_of(study: str) -> set[str]:
    """What its file varies, as every study's jobs were seen to follow from it."""
    params = yaml.safe_load((ROOT / f"conf/study/{study}.yaml").read_text())["hydra"]["sweeper"]["params"]
    return set(params["ablation"].split(","))


def test_each_modification_is_a_study_of_its_own():
    parts = [ablations_of(name) for name in STUDIES if name.startswith("small_cnn_") and name != "small_cnn_all"]
    assert len(parts) == 8
    assert set.union(*parts) - {"sgd_momentum"} == ablations_of("small_cnn_all")
    assert all("none" in part for part in parts)


def test_the_base_learning_rate_is_every_variants_own_unless_it_sets_one():
    jobs = jobs_of("small_cnn_all", "seed=0", "study.base_lr=0.002", "ablation=none,sgd,lr4e-4,lr3e-4,lr1e-4,batch4")
    rates = {job.variant.partition("=")[2]: job.config.optimizer.settings["lr"] for job in jobs}
    assert rates == {"none": 0.002, "sgd": 0.002, "lr4e-4": 4e-4, "lr3e-4": 3e-4, "lr1e-4": 1e-4, "batch4": 0.002}


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


@pytest.mark.parametrize("given", ["data.split_seed=${seed}", "model.widths=[2,${seed}]"])
def test_an_interpolated_seed_is_not_copied(given):
    jobs = sweeps.plan([*SMOKE, "seed=range(1,4)", given])
    assert [job.config for job in jobs] == [schema.compose(job.overrides) for job in jobs]
    settings = jobs[2].config
    assert 3 in (settings.data.split_seed, *settings.model.settings["widths"])


@pytest.mark.parametrize(
    ("value", "may"), [("${seed}", True), ("${..seed}", True), ("${data.${which}}", True), ("${lr}", False), ("seed", False)]
)
def test_a_value_may_refer_to_the_seed(value, may):
    assert schema.refers_to(OmegaConf.create({"a": {"b": [1, {"c": value}]}, "hydra": {"x": "${seed}"}}), "seed") is may


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
        (["study=small_cnn_lr", "study.baseline=nothing", "--dry-run"], "study.baseline: nothing is no variant"),
        (["experiment=quickstart", "hydra.mode=MULTIRUN"], "hydra.mode is not allowed"),
        (["study=small_cnn_lr", "study.margins=1"], "study.margin"),
        (["-m", "device=cpu,cuda"], "device has several values"),
    ],
)
def test_what_a_study_cannot_do_is_refused(lab: Lab, arguments, words):
    said = lab(*arguments)
    assert said.code == 2, said.out + said.err
    assert words in said.err


def planned(folder: Path, jobs: list[sweeps.Job]) -> list[dict]:
    """Plan them into a folder as a launch does, and let each have begun."""
    plan = sweeping.make_plan(folder, jobs, name="it", command="cifar-lab train")
    storage.write_json(folder / "plan.json", plan)
    for job in jobs:
        (folder / job.name).mkdir(exist_ok=True)
    return plan["jobs"]


def test_a_narrowed_study_finds_its_runs_and_keeps_its_baseline(tmp_path):
    whole = jobs_of("small_cnn_kernel", "seed=0,1")
    planned(tmp_path, whole)
    for given in (("ablation=kernel5", "seed=0,1,2"), ("seed=0,1,2", "ablation=kernel5,kernel7"), ("ablation=kernel7",)):
        narrowed = jobs_of("small_cnn_kernel", *given)
        assert {job.name for job in whole} & {job.name for job in narrowed}
        assert next(iter({job.variant: 0 for job in narrowed})).startswith("ablation=kernel")
        planned(tmp_path, narrowed)
        assert load_study(tmp_path).baseline == "ablation=none"
        assert set(load_study(tmp_path).variants) == {"ablation=none", "ablation=kernel5", "ablation=kernel7"}


def test_runs_of_other_settings_do_not_join_a_variant(tmp_path):
    planned(tmp_path, sweeps.plan([*SMOKE, "optimizer.lr=0.1,0.01", "seed=0,1"]))
    with pytest.raises(ResumeError, match=r"holds another sweep: train.batch_size is 64 in .*seed=0, not 32 as in .*seed=2"):
        planned(tmp_path, sweeps.plan([*SMOKE, "optimizer.lr=0.1,0.01", "seed=2,3", "train.batch_size=32"]))


def test_jobs_in_a_queue_stay_in_the_plan_and_keep_their_settings(tmp_path):
    def make(*words: str, redo: bool = False) -> dict:
        plan = sweeping.make_plan(tmp_path, sweeps.plan([*SMOKE, *words]), name="it", command="cifar-lab train", redo=redo)
        storage.write_json(tmp_path / "plan.json", plan)
        return {job["name"]: (job["config"]["train"]["epochs"], job.get("queued", False)) for job in plan["jobs"]}

    assert make("seed=0,1,2", "train.epochs=5") == dict.fromkeys(("seed=0", "seed=1", "seed=2"), (5, False))
    assert make("seed=0,1", "train.epochs=3") == dict.fromkeys(("seed=0", "seed=1"), (3, False)), "nothing has begun"
    plan = sweeping.mark_queued(storage.read_json(tmp_path / "plan.json"), {"seed=0", "seed=1"}, queued=True)
    storage.write_json(tmp_path / "plan.json", plan)
    added = make("seed=7,8", "train.epochs=3")
    assert added == {"seed=0": (3, True), "seed=1": (3, True), "seed=7": (3, False), "seed=8": (3, False)}
    with pytest.raises(ResumeError, match=r"seed=0 was given to the cluster with train\.epochs=3, not 1"):
        make("seed=0,1,2", "train.epochs=1")
    plan = sweeping.mark_queued(storage.read_json(tmp_path / "plan.json"), {"seed=0"}, queued=False)
    storage.write_json(tmp_path / "plan.json", plan)
    assert make("seed=7,8", "train.epochs=3") == {"seed=1": (3, True), "seed=7": (3, False), "seed=8": (3, False)}
    (tmp_path / "seed=1").mkdir()
    storage.write_json(tmp_path / "seed=1" / "result.json", {"schema": 1, "status": "done"})
    assert make("seed=7,8", "train.epochs=3")["seed=1"] == (3, False), "it has ended, though nobody waited for it"
    shutil.rmtree(tmp_path / "seed=1")
    plan = sweeping.mark_queued(storage.read_json(tmp_path / "plan.json"), {"seed=7"}, queued=True)
    storage.write_json(tmp_path / "plan.json", plan)
    with pytest.raises(ResumeError):
        make("seed=7,8", "train.epochs=1")
    assert make("seed=7,8", "train.epochs=1", redo=True) == {"seed=7": (1, False), "seed=8": (1, False)}, "after scancel"


def test_seeds_that_come_after_the_report_are_a_later_round(tmp_path):
    assert {job["round"] for job in planned(tmp_path, sweeps.plan([*SMOKE, "seed=0,1"]))} == {0}
    assert {job["round"] for job in planned(tmp_path, sweeps.plan([*SMOKE, "seed=0,1,2"]))} == {0}, "nobody has looked yet"
    storage.write_json(tmp_path / "report.json", {})
    rounds = {job["name"]: job["round"] for job in planned(tmp_path, sweeps.plan([*SMOKE, "seed=0,1,2,3"]))}
    assert rounds == {"seed=0": 0, "seed=1": 0, "seed=2": 0, "seed=3": 1}


def test_a_result_of_fewer_epochs_is_no_result_of_more(tmp_path):
    def made(epochs: int) -> list[sweeps.Job]:
        return sweeps.plan([*SMOKE, "train.precision=fp32", "seed=0,1", f"train.epochs={epochs}"])

    [first, _] = made(2)
    digests = {"config": config_digest(first.config), "code": code_digest()}
    planned(tmp_path, made(2))
    storage.write_json(tmp_path / first.name / "result.json", {"schema": 1, "status": "done", "digests": digests})
    assert [run.status for run in load_study(tmp_path).runs] == ["done", "waiting"]
    assert [job.name for job in sweeping.left_to_do(tmp_path, made(2), code_digest())] == ["seed=1"]
    assert len(sweeping.left_to_do(tmp_path, made(3), code_digest())) == 2
    planned(tmp_path, made(3))
    assert load_study(tmp_path).runs[0].status == "unfinished"
    assert sweeping.outcome_of(tmp_path, made(3)[0], code_digest())["status"] == "failed"


def test_other_code_is_refused_and_set_aside_only_when_asked(tmp_path):
    jobs = sweeps.plan([*SMOKE, "seed=0,1"])
    planned(tmp_path, jobs)
    storage.write_json(tmp_path / "seed=0" / "digests.json", {"code": "another"})
    with pytest.raises(CodeError, match=r"1 of 2 jobs in .* were run by other code: seed=0"):
        sweeping.of_other_code(tmp_path, jobs, code_digest(), redo=False)
    folders = sweeping.of_other_code(tmp_path, jobs, code_digest(), redo=True)
    assert (tmp_path / "seed=0").is_dir(), "asking moves nothing"
    sweeping.set_aside(folders)
    assert not (tmp_path / "seed=0").exists()
    assert list(tmp_path.glob("seed=0*"))
