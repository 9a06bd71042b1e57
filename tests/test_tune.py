"""A search with Optuna: what it reads, what it refuses, what it leaves, and that no trial is lost or run twice."""

import errno
import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from PIL import Image
from rig import ROOT, SMOKE

from cifar_lab.errors import CheckpointError, CodeError, ConfigError, DataError, DeviceFailedError, DiskError, ResumeError

optuna = pytest.importorskip("optuna", reason="the extra hpo is not installed")

from cifar_lab import pipeline, schema, storage  # noqa: E402
from cifar_lab.config import Config, to_plain  # noqa: E402
from cifar_lab.finding.records import Record  # noqa: E402
from cifar_lab.saved import load_run  # noqa: E402
from cifar_lab.tune import _checked  # noqa: E402
from cifar_lab.tuning.desk import MOST_DEATHS, Desk, Taken, trial_folder, what_failed  # noqa: E402
from cifar_lab.tuning.methods import PRUNERS, SAMPLERS, build_pruner, build_sampler, check_methods  # noqa: E402
from cifar_lab.tuning.report import best  # noqa: E402
from cifar_lab.tuning.saved_best import save_best  # noqa: E402
from cifar_lab.tuning.search import JOURNAL, RECORD, Search, claim, load_search  # noqa: E402
from cifar_lab.tuning.space import read_space  # noqa: E402
from cifar_lab.tuning.trials import run_trial  # noqa: E402

SPACE = ("optimizer.lr=tag(log,interval(1e-4,1e-1))", "optimizer=adam,sgd_nesterov", "train.batch_size=range(16,65,16)")


@pytest.fixture(autouse=True)
def _registered(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    schema.register()
    optuna.logging.set_verbosity(optuna.logging.ERROR)


def search_of(*space: str, fixed=SMOKE, name="mine", sampler="random", pruner="none", seed=0, config_dir=None) -> Search:
    return _checked([*fixed, *space], sampler, pruner, name, seed, config_dir)


def desk_of(where: Path, search: Search) -> Desk:
    claim(where, search)
    return Desk(where, search)


def states(desk: Desk) -> list[str]:
    return [trial.state.name for trial in desk.trials()]


# The space


def distribution(text: str):
    """What Optuna was asked for, read from its own record of a trial."""
    space, _ = read_space([text])
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    trial = study.ask()
    value = space.dimensions[0].suggest(trial)
    return trial.distributions[space.dimensions[0].key], value, space.dimensions[0]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("optimizer.lr=interval(0.1,0.9)", optuna.distributions.FloatDistribution(0.1, 0.9)),
        ("optimizer.lr=tag(log,interval(1e-4,1e-1))", optuna.distributions.FloatDistribution(1e-4, 1e-1, log=True)),
        ("model.width=int(interval(8,64))", optuna.distributions.IntDistribution(8, 64)),
        ("model.width=tag(log,int(interval(8,64)))", optuna.distributions.IntDistribution(8, 64, log=True)),
        ("train.batch_size=range(32,256,32)", optuna.distributions.IntDistribution(32, 224, step=32)),
        ("train.batch_size=range(256,0,-64)", optuna.distributions.IntDistribution(64, 256, step=64)),
        ("model.dropout=range(0,0.45,0.1)", optuna.distributions.FloatDistribution(0.0, 0.4, step=0.1)),
        ("optimizer=adam,sgd", optuna.distributions.CategoricalDistribution(("adam", "sgd"))),
        ("train.batch_size=choice(32,64,32)", optuna.distributions.CategoricalDistribution(("32", "64"))),
        ("data.normalize=cifar,null", optuna.distributions.CategoricalDistribution(("cifar", "null"))),
    ],
)
def test_hydras_sweeps_are_optunas_distributions(text, expected):
    assert distribution(text)[0] == expected


@pytest.mark.parametrize("seed", range(5))
def test_a_number_is_read_back_exactly(seed):
    space, _ = read_space(["optimizer.lr=tag(log,interval(1e-7,1e-1))", "train.label_smoothing=range(0,0.45,0.1)"])
    trial = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed)).ask()
    params = {d.key: d.suggest(trial) for d in space.dimensions}
    config = schema.compose(space.overrides(params))
    assert config.optimizer.settings["lr"] == params["optimizer.lr"]
    assert config.train.label_smoothing == pytest.approx(params["train.label_smoothing"], abs=1e-15)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["optimizer=adam"], "nothing to search"),
        (["seed=0,1"], "luckiest"),
        (["data=cifar10,digits"], "same images"),
        (["data.val_fraction=0.1,0.2"], "same images"),
        (["train.monitor=val_loss,val_accuracy"], "same measure"),
        (["device=cpu,cuda"], "where a run runs"),
        (["optimizer.lr=tag(lug,interval(1,2))"], "did you mean 'log'"),
        (["optimizer.lr=tag(log,interval(0,1))"], "above 0"),
        (["optimizer.lr=interval(2,1)"], "the lower one"),
        (["train.batch_size=tag(log,range(8,64,8))"], "step of 1"),
        (["train.batch_size=range(8,8)"], "no values"),
        (["optimizer=tag(log,choice(adam,sgd))"], "no scale"),
        (["optimizer.lr=0.1,0.2", "optimizer.lr=0.3,0.4"], "searched twice"),
    ],
)
def test_what_cannot_be_searched_is_refused(words, says):
    with pytest.raises(ConfigError, match=says):
        read_space(words)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("optimizer.ler=0.1,0.2",), "optimizer.lr"),
        (("optimizer=adam,sgdd",), "sgdd"),
        (("train.batch_size=range(0,64,16)",), "batch_size=0"),
        (("optimizer=adam,sgd_nesterov", "optimizer.momentum=0.8,0.9"), "with optimizer=adam"),
        (("optimizer.lr=0.1,0.2", "data.val_fraction=0"), "validation images"),
        (("optimizer.lr=0.1,0.2", "train.monitor=train_loss"), "validation images"),
        (("optimizer.lr=0.1,0.2", "sweep.workers=2"), "sweep.workers=2 is about sweeps"),
        (("experiment=d1_mobilenet_like,d4_custom_cnn",), "experiment=d4_custom_cnn brings another data.split"),
        (("train=d1,d3",), "train=d3 brings another train.monitor"),
    ],
)
def test_every_choice_and_both_ends_are_checked_before_anything_begins(words, says):
    with pytest.raises(ConfigError, match=says):
        search_of(*words)
    assert list(Path().iterdir()) == []


def test_names_are_checked_with_a_suggestion():
    space, _ = read_space(list(SPACE))
    with pytest.raises(ConfigError, match="did you mean 'tpe'"):
        check_methods("tpo", "none", space)
    with pytest.raises(ConfigError, match="did you mean 'median'"):
        check_methods("tpe", "medain", space)
    with pytest.raises(ConfigError, match="single values"):
        check_methods("grid", "none", space)
    for name in ("a,b", "1", "a.b", "quickstart", "../up"):
        with pytest.raises(ConfigError, match="--name"):
            search_of(*SPACE, name=name)


def test_an_interval_over_decades_without_log_is_pointed_out():
    assert "tag(log,interval(1e-4,1e-1))" in read_space(["optimizer.lr=interval(1e-4,1e-1)"])[0].notes()[0]
    assert read_space(list(SPACE))[0].notes() == []


# Samplers and pruners


@pytest.mark.parametrize("name", [name for name in SAMPLERS if name != "grid"])
def test_every_sampler_goes_on_as_if_it_had_not_stopped(name):
    if name == "cmaes":
        pytest.importorskip("cmaes", reason="the sampler cmaes needs it")
    space, _ = read_space(["optimizer.lr=tag(log,interval(1e-4,1e-1))", "model.dropout=interval(0,0.5)"])

    def ask(study, upto: int) -> list[dict]:
        while len(study.trials) < upto:
            study.sampler = build_sampler(name, space, 3, len(study.trials))
            trial = study.ask()
            params = {d.key: d.suggest(trial) for d in space.dimensions}
            study.tell(trial, math.log10(params["optimizer.lr"]) ** 2 + params["model.dropout"])
        return [trial.params for trial in study.trials]

    at_once = ask(optuna.create_study(study_name="one"), 12)
    study = optuna.create_study(study_name="one")
    ask(study, 5)
    assert ask(study, 12) == at_once
    assert len({json.dumps(params) for params in at_once}) == 12


def test_every_pruner_is_built():
    assert {type(build_pruner(name, 9)).__name__ for name in PRUNERS} == {
        *("NopPruner", "MedianPruner", "PercentilePruner", "SuccessiveHalvingPruner", "HyperbandPruner")
    }


def test_a_grid_is_every_combination_once():
    search = search_of("optimizer.lr=0.1,0.01", "train.batch_size=range(16,49,16)", sampler="grid")
    desk = desk_of(Path("grid"), search)
    assert search.space.grid_size() == 6
    points = []
    while (taken := desk.take(6)) is not None:
        points.append(tuple(taken.own))
        desk.give_back(taken, value=0.5)
    assert sorted(points) == [(f"optimizer.lr={lr}", f"train.batch_size={n}") for lr in ("0.01", "0.1") for n in (16, 32, 48)]


# The folder and the desk


def test_the_same_search_goes_on_and_another_is_refused(monkeypatch):
    where = Path("one")
    assert claim(where, search_of(*SPACE)) is False
    assert claim(where, search_of(*reversed(SPACE))) is True
    again = load_search(where)
    assert again.record() == search_of(*SPACE).record()
    for other, says in (
        (search_of(*SPACE, sampler="tpe"), "--sampler tpe, was random"),
        (search_of(*SPACE, seed=1), "--seed 1, was 0"),
        (search_of(*SPACE[:2]), "train.batch_size is searched as nothing"),
        (search_of(SPACE[0], "optimizer=adam,sgd", SPACE[2]), "optimizer is searched as adam,sgd, was adam,sgd_nesterov"),
        (search_of(*SPACE, "train.label_smoothing=0.1"), "train.label_smoothing=0.1, was 0.0"),
    ):
        with pytest.raises(ResumeError, match=says):
            claim(where, other)
    monkeypatch.setattr("cifar_lab.runs.code_digest", lambda plugins=(): "0" * 64)
    with pytest.raises(CodeError, match="other code"):
        claim(where, search_of(*SPACE))


def test_a_trial_that_nobody_holds_is_taken_over_with_its_values():
    search = search_of(*SPACE)
    desk, other = desk_of(Path("one"), search), Desk(Path("one"), search)
    first = desk.take(2)
    second = other.take(2)
    assert (first.number, second.number, desk.take(2), other.take(2)) == (0, 1, None, None), "both are held"
    first.lock.__exit__()  # as the kernel does when a worker dies
    again = other.take(2)
    assert (again.number, again.own, again.again) == (0, first.own, True)
    other.give_back(again, value=0.5)
    other.give_back(second, pruned=True)
    assert desk.take(2) is None
    assert states(desk) == ["COMPLETE", "PRUNED"]
    assert desk.take(3, new=False) is None, "no new one after the time-out"


def test_a_trial_that_kills_its_workers_is_given_up_and_one_that_was_interrupted_is_not():
    search = search_of(*SPACE)
    desk = desk_of(Path("one"), search)
    for _ in range(MOST_DEATHS + 2):
        taken = desk.take(1)
        assert taken.number == 0
        desk.put_down(taken)
    for _ in range(MOST_DEATHS):
        desk.take(1).lock.__exit__()
    assert desk.take(1) is None
    assert states(desk) == ["FAIL"]
    assert what_failed(desk.trials()[0]).startswith("E-KILLED")


def test_a_record_that_a_crash_cut_off_is_mended():
    search = search_of(*SPACE)
    desk = desk_of(Path("one"), search)
    desk.give_back(desk.take(2), value=0.25)
    path = Path("one") / JOURNAL
    path.write_bytes(path.read_bytes() + b'{"op_code":4,"wor')
    desk = Desk(Path("one"), search)
    assert [trial.value for trial in desk.trials()] == [0.25]
    desk.give_back(desk.take(2), value=0.5)
    assert [trial.value for trial in Desk(Path("one"), search).trials()] == [0.25, 0.5]


def test_a_line_that_a_full_disk_cut_off_is_mended_before_the_next(monkeypatch):
    search = search_of(*SPACE)
    desk = desk_of(Path("one"), search)
    path = Path("one") / JOURNAL
    path.write_bytes(path.read_bytes() + b'{"op_code":8,"worker')  # what an append leaves that finds no room
    taken = desk.take(1)

    def no_room(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as full:
        full.setattr(os, "fsync", no_room)
        with pytest.raises(DiskError, match=r"no space for one/.*MB free"):
            desk.put_down(taken)
    again = Desk(Path("one"), search).take(1)
    assert (again.number, again.again) == (0, True)
    desk.give_back(again, value=0.5)
    assert [json.loads(line)["op_code"] for line in path.read_text().splitlines()]


def test_a_disk_that_is_full_is_no_fault_of_a_trial(monkeypatch):
    search = search_of(*SPACE)
    desk = desk_of(Path("one"), search)
    report = Taken.report

    def no_room(*args):
        monkeypatch.setattr(Taken, "report", report)
        raise DiskError("disk full for journal")

    monkeypatch.setattr(Taken, "report", no_room)
    with pytest.raises(DiskError):
        run_trial(desk, search, desk.take(1))
    assert states(desk) == ["RUNNING"]
    run_trial(desk, search, desk.take(1))
    assert states(desk) == ["COMPLETE"]


def test_only_deaths_without_an_epoch_between_them_give_a_trial_up():
    search = search_of(*SPACE)
    desk = desk_of(Path("one"), search)
    for epoch in range(1, MOST_DEATHS + 3):
        taken = desk.take(1)
        taken.report(epoch, 0.5)
        taken.lock.__exit__()  # preempted
    assert states(desk) == ["RUNNING"]
    for _ in range(MOST_DEATHS - 1):
        desk.take(1).lock.__exit__()
    assert desk.take(1) is None
    assert what_failed(desk.trials()[0]).startswith("E-KILLED")


def test_a_trial_that_breaks_the_gpu_does_not_end_every_search_that_goes_on(monkeypatch):
    def breaks(*_, **__):
        raise DeviceFailedError("the GPU failed: CUDA error: device-side assert triggered")

    monkeypatch.setattr(pipeline, "run", breaks)
    search = search_of(*SPACE)
    desk = desk_of(Path("one"), search)
    for _ in range(MOST_DEATHS):
        with pytest.raises(DeviceFailedError):
            run_trial(desk, search, desk.take(1))
    assert desk.take(1) is None
    assert states(desk) == ["FAIL"]


def test_a_search_over_a_folder_without_validation_images_says_so(tmp_path):
    for part, count in (("train", 12), ("test", 4)):
        for number in range(count):
            path = tmp_path / "pictures" / part / ("cat", "dog")[number % 2] / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (8, 8), (number * 20, number, 10 * number + (part == "test"))).save(path)
    fixed = ("train=smoke", "data=folder", f"data.root={tmp_path / 'pictures'}", "data.val_fraction=0", "train.batch_size=4")
    search = search_of("optimizer.lr=0.01,0.1", fixed=fixed)
    desk = desk_of(Path("one"), search)
    with pytest.raises(DataError, match="data=folder brings no validation images, on which trials are judged"):
        run_trial(desk, search, desk.take(1))
    assert states(desk) == ["RUNNING"]


# Trials


def test_trials_are_ordinary_runs_with_the_test_set_shut_and_the_best_is_saved():
    search = search_of(*SPACE)
    where = Path("one")
    desk = desk_of(where, search)
    while (taken := desk.take(4)) is not None:
        run_trial(desk, search, taken)
    results = [storage.read_json(trial_folder(where, number) / "result.json") for number in range(4)]
    assert [r["metrics"]["val"]["accuracy"] for r in results] == [t.value for t in desk.trials()]
    assert [(r["status"], r["metrics"]["test"], r["test_openings"]) for r in results] == [("done", None, 0)] * 4
    assert not list(where.glob("trials/*/test_openings.json"))
    found = best(search, desk.trials())
    assert found.value == max(r["metrics"]["val"]["accuracy"] for r in results)

    overrides = [*search.fixed, *search.space.overrides(found.params)]
    path = save_best(where, "mine", overrides, None, ["about", ""])
    assert yaml.safe_load(path.read_text())["optimizer"]["lr"] == found.params["optimizer.lr"]
    again = schema.compose(["experiment=mine"], where / "conf")
    assert to_plain(again) == to_plain(schema.compose(overrides))
    folder = trial_folder(where, found.number)
    config: Config = schema.from_plain(yaml.safe_load((folder / "config.yaml").read_text()))
    assert to_plain(again)["train"] | {"precision": "fp32"} == to_plain(config)["train"]

    assert (Record(folder).status, Record(folder).value("val.accuracy")) == ("done", found.value)
    with pytest.raises(CheckpointError, match="never tested"):
        load_run(folder)
    assert "never tested" in repr(load_run(folder, tested=False))
    rows = (folder / "metrics.jsonl").read_bytes()
    tested = pipeline.run(again, folder)
    assert (folder / "metrics.jsonl").read_bytes() == rows, "tested without training again"
    assert (tested["test_openings"], tested["metrics"]["val"]) == (1, results[found.number]["metrics"]["val"])
    assert load_run(folder).metrics["test"]["accuracy"] == tested["metrics"]["test"]["accuracy"]


def test_a_persons_own_groups_are_not_needed_by_the_saved_experiment():
    own = Path("own/augment")
    own.mkdir(parents=True)
    (own / "mine.yaml").write_text("name: mine\nflip_probability: 0.25\n")
    words = [*SMOKE, "augment=mine", "optimizer.lr=0.02"]
    save_best(Path("one"), "alone", words, "own", [])
    assert to_plain(schema.compose(["experiment=alone"], "one/conf")) == to_plain(schema.compose(words, "own"))


LONG = ("train.epochs=4", "train.batch_size=16")


def test_a_bad_trial_is_pruned_and_a_diverged_one_fails():
    search = search_of("optimizer.lr=1e-9,0.01,1e30", sampler="grid", pruner="median", fixed=(*SMOKE, *LONG, "optimizer=sgd"))
    desk = desk_of(Path("one"), search)
    # After the second epoch everything that is not nearly perfect goes; the huge rate ends in the third step already.
    desk.study.pruner = optuna.pruners.ThresholdPruner(lower=0.999, n_warmup_steps=1)
    while (taken := desk.take(3)) is not None:
        run_trial(desk, search, taken)
    by_lr = {trial.params["optimizer.lr"]: trial for trial in desk.trials()}
    assert {lr: trial.state.name for lr, trial in by_lr.items()} == {"1e-09": "PRUNED", "0.01": "PRUNED", "1e+30": "FAIL"}
    assert what_failed(by_lr["1e+30"]).startswith("E-DIVERGED")
    folder = trial_folder(Path("one"), by_lr["0.01"].number)
    result = storage.read_json(folder / "result.json")
    rows = storage.read_lines(folder / "metrics.jsonl")
    assert (result["status"], result["epochs_done"]) == ("pruned", len(rows))
    assert (Record(folder).status, Record(folder).value("epochs")) == ("pruned", len(rows))
    assert by_lr["0.01"].intermediate_values == {row["epoch"]: row["val_accuracy"] for row in rows}
    assert best(search, desk.trials()) is None


def test_what_no_trial_would_escape_ends_the_search_and_keeps_the_trial(monkeypatch):
    search = search_of(*SPACE)
    desk = desk_of(Path("one"), search)

    def broken(*args, **kwargs):
        raise DataError("the disk is gone")

    monkeypatch.setattr(pipeline, "run", broken)
    with pytest.raises(DataError):
        run_trial(desk, search, desk.take(4))
    assert states(desk) == ["RUNNING"]
    assert desk.take(4).number == 0


# The command


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "cifar_lab.cli", "tune", *words]


ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "COLUMNS": "160"}


def tune(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(*words), cwd=folder, capture_output=True, text=True, timeout=240, env=ENVIRONMENT)


@pytest.fixture
def begin(tmp_path):
    """Begins a search; what still runs at the end of the test is killed, its workers follow by themselves."""
    begun_here = []

    def start(*words: str) -> subprocess.Popen[str]:
        pipe = subprocess.PIPE
        process = subprocess.Popen(command(*words), cwd=tmp_path, env=ENVIRONMENT, stdout=pipe, stderr=pipe, text=True)
        begun_here.append(process)
        return process

    yield start
    for process in begun_here:
        process.kill()


def recorded(folder: Path) -> list:
    """All trials, read by Optuna alone."""
    backend = optuna.storages.journal.JournalFileBackend(str(folder / JOURNAL))
    return optuna.load_study(study_name=None, storage=optuna.storages.journal.JournalStorage(backend)).trials


@pytest.mark.slow
def test_two_workers_share_one_search_and_the_same_command_shows_it_again(tmp_path):
    words = (*SMOKE, *SPACE, "--trials", "4", "--workers", "2", "--name", "two", "--seed", "1")
    said = tune(tmp_path, *words)
    assert said.returncode == 0, said.stderr
    where = tmp_path / "outputs/tunes/two"
    trials = recorded(where)
    assert [trial.state.name for trial in trials] == ["COMPLETE"] * 4
    assert len({json.dumps(trial.params) for trial in trials}) == 4
    assert sorted(path.name for path in (where / "trials").iterdir()) == ["0000", "0001", "0002", "0003"]
    assert said.stdout.count("trial 000") == 5, "a line for each and one for the best"
    assert "cifar-lab train --config-dir outputs/tunes/two/conf experiment=two" in said.stdout
    before = (where / JOURNAL).read_bytes()
    again = tune(tmp_path, *words)
    assert again.returncode == 0, again.stderr
    assert "4 of them done already" in again.stdout
    assert (where / JOURNAL).read_bytes() == before
    assert json.loads((where / RECORD).read_text())["sampler"] == "tpe"
    refused = tune(tmp_path, *words, "--sampler", "random")
    assert (refused.returncode, "--sampler random, was tpe" in refused.stderr) == (4, True)


SLOW = (*SMOKE, "train.epochs=60", "train.batch_size=8", "optimizer.lr=tag(log,interval(1e-4,1e-2))")


def begun(where: Path, count: int) -> None:
    """Wait until so many trials are several epochs, and so checkpoints, on their way."""
    until = time.monotonic() + 120
    while sum(len(storage.read_lines(path)) >= 5 for path in where.glob("trials/*/metrics.jsonl")) < count:
        assert time.monotonic() < until
        time.sleep(0.05)


@pytest.mark.slow
def test_a_killed_worker_loses_nothing_and_nothing_is_run_twice(tmp_path, begin):
    words = (*SLOW, "--trials", "4", "--workers", "2", "--name", "kill", "--pruner", "none")
    where = tmp_path / "outputs/tunes/kill"
    running = begin(*words)
    begun(where, 2)
    victim = json.loads((where / "trials/0000/.lock").read_text())["pid"]
    os.kill(victim, signal.SIGKILL)
    time.sleep(3.0)
    os.kill(running.pid, signal.SIGKILL)  # and then the whole command
    running.communicate(timeout=60)
    time.sleep(1.0)
    said = tune(tmp_path, *words)
    assert said.returncode == 0, said.stderr
    trials = recorded(where)
    assert [trial.state.name for trial in trials] == ["COMPLETE"] * 4
    for number in range(4):
        epochs = [row["epoch"] for row in storage.read_lines(where / f"trials/{number:04d}/metrics.jsonl")]
        assert epochs == list(range(1, 61)), "every epoch once"
    assert "continuing from" in (where / "trials/0000/run.log").read_text()


@pytest.mark.slow
def test_a_signal_stops_all_workers_and_the_same_command_goes_on(tmp_path, begin):
    words = (*SLOW, "--trials", "3", "--workers", "2", "--name", "stop", "--pruner", "none")
    where = tmp_path / "outputs/tunes/stop"
    running = begin(*words)
    begun(where, 2)
    running.terminate()
    _, err = running.communicate(timeout=90)
    assert running.returncode == 143, err
    assert "the same command goes on" in err
    statuses = [json.loads(path.read_text())["status"] for path in where.glob("trials/*/result.json")]
    assert "interrupted" in statuses
    said = tune(tmp_path, *words)
    assert said.returncode == 0, said.stderr
    assert [trial.state.name for trial in recorded(where)] == ["COMPLETE"] * 3


@pytest.mark.slow
def test_two_commands_share_one_search(tmp_path, begin):
    words = (*SMOKE, *SPACE, "--trials", "6", "--workers", "1", "--name", "both")
    both = [begin(*words) for _ in range(2)]
    ends = [(one.communicate(timeout=240), one.returncode) for one in both]
    assert [code for _, code in ends] == [0, 0], ends
    assert [trial.state.name for trial in recorded(tmp_path / "outputs/tunes/both")] == ["COMPLETE"] * 6
