"""Features on the disk: the same bytes as computed ones, only where nothing has changed, and never in the way of a run."""

import shutil
import threading
from pathlib import Path

import pytest
import safetensors.torch
import torch
from rig import SMOKE

from cifar_lab import frozen, kept_features, runtime, schema, storage
from cifar_lab.data.splits import load_splits
from cifar_lab.errors import DiskError, Interrupted
from cifar_lab.frozen import Features
from cifar_lab.kept_features import place_of
from cifar_lab.parts import build_parts
from cifar_lab.signals import StopFlag

RUN = (*SMOKE, "model=mobilenet_v2", "model.freeze=features", "data.input_size=32", "train.precision=fp32", "augment=none")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(kept_features, "WORTH_S", 0.0)
    schema.register()
    return tmp_path / "cache" / "cifar-lab" / "features"


@pytest.fixture(autouse=True)
def computed(monkeypatch) -> list[int]:
    """An entry for each set whose features were computed, by a model of one layer."""
    calls: list[int] = []
    real = frozen.compute_features
    monkeypatch.setattr(frozen, "compute_features", lambda *args, **named: calls.append(1) or real(*args, **named))
    return calls


def another_run(*overrides: str) -> Features:
    """What a run in another process finds."""
    runtime.seed_everything(0)
    config = schema.compose([*RUN, *overrides])
    parts = build_parts(config, load_splits(config.data), torch.device("cpu"))
    frozen._LAST.clear()
    return frozen.compute_once(config, parts, stop=StopFlag(), progress=lambda *_: None)


def same(one: Features, other: Features) -> bool:
    assert list(one.by_split) == list(other.by_split) == ["train", "val"]
    return all(
        a.dtype == b.dtype and torch.equal(a, b)
        for split, pair in one.by_split.items()
        for a, b in zip(pair, other.by_split[split], strict=True)
    )


def test_the_next_command_reads_what_the_first_computed(cache, computed):
    first = another_run()
    assert len(computed) == 2, "training and validation images"
    [folder] = cache.iterdir()
    assert first.source == ""
    second = another_run()
    assert len(computed) == 2
    assert same(first, second)
    assert second.seconds == first.seconds
    assert second.summary() == f"{first.summary()}, read from {folder}"
    assert len(frozen._LAST) == 1
    another_run("optimizer.lr=0.5", "train.epochs=9", "train.keep=none")
    assert len(computed) == 2, "features do not depend on these"
    again = another_run("train.keep_features=false")
    assert len(computed) == 4
    assert same(first, again)
    assert again.source == ""


@pytest.mark.parametrize(
    "other",
    [
        "data.subset=50",
        "train.eval_batch_size=7",
        "model.activation=relu",
        "data.normalize=unit",
        "data.label_noise=0.5",
        "train.precision=bf16",
        "code",
        "plugin",
        "machine",
    ],
)
def test_what_has_changed_is_computed_anew(tmp_path, computed, monkeypatch, other):
    another_run()
    if other == "code":
        monkeypatch.setattr(frozen, "_CODE", "another")
    if other == "plugin":
        (tmp_path / "mine.py").write_text("")
        monkeypatch.setattr(frozen, "plugin_files", lambda: [tmp_path / "mine.py"])
    if other == "machine":
        monkeypatch.setattr(runtime, "_cpu_name", lambda: "another")
    another_run(*([other] if "=" in other else []))
    assert len(computed) == 4


@pytest.mark.parametrize("damage", ["features.safetensors", "features.json", "half", "missing"])
def test_damaged_features_are_computed_anew_and_kept_again(cache, computed, damage):
    first = another_run()
    [folder] = cache.iterdir()
    path = folder / (damage if "." in damage else "features.safetensors")
    content = path.read_bytes()
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(content[: len(content) // 2] if damage == "half" else content[:-9] + b"!" + content[-8:])
    second = another_run()
    assert len(computed) == 4
    assert same(first, second)
    assert second.summary().endswith(f"s; those in {folder} were damaged")
    assert same(first, another_run())
    assert len(computed) == 4


def test_a_cache_that_cannot_be_written_ends_no_run(tmp_path, computed):
    (tmp_path / "cache").write_text("a file")
    found = another_run()
    assert found.by_split
    assert "; not kept: a file stands where a folder is needed for " in found.summary()
    assert len(computed) == 2


@pytest.mark.parametrize("where", ["write_pieces", "write_json"])
def test_a_full_disk_ends_no_run(cache, computed, monkeypatch, where):
    def full(path, _):
        raise DiskError(f"no space for {path}")

    with monkeypatch.context() as patch:
        patch.setattr(storage, where, full)
        found = another_run()
    assert found.by_split
    assert "; not kept: no space for " in found.summary()
    assert another_run().source == "", "what was not written to its end is not read"
    assert len(computed) == 4
    assert another_run().source != ""


def test_a_disk_keeps_room_for_checkpoints(computed, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(storage, "free_bytes", lambda _: kept_features.RESERVE_BYTES)
        assert another_run().summary().endswith("is on a disk that is nearly full")
    monkeypatch.setattr(kept_features, "LIMIT_BYTES", 1000)
    assert another_run().summary().endswith("GB are more than all may take together")
    assert len(computed) == 4


def test_a_cache_that_may_only_be_read_is_read(cache, computed, monkeypatch):
    first = another_run()

    def read_only(*_):
        raise DiskError("read-only file system")

    monkeypatch.setattr(storage.FolderLock, "__enter__", read_only)
    second = another_run()
    assert same(first, second)
    assert (second.trouble, len(computed)) == ("", 2)
    other = another_run("data.subset=50")
    assert other.trouble == "not kept: read-only file system"
    assert len(list(cache.iterdir())) == 1


def test_all_of_it_may_be_deleted_at_any_time(cache, computed, monkeypatch):
    another_run()
    real = frozen.compute_features

    def while_computing(*args, **named):
        shutil.rmtree(cache)
        monkeypatch.setattr(frozen, "compute_features", real)
        return real(*args, **named)

    monkeypatch.setattr(frozen, "compute_features", while_computing)
    found = another_run("data.subset=50")
    assert found.by_split
    assert another_run("data.subset=50").by_split
    assert another_run("data.subset=50").source != ""


def test_the_file_is_one_that_others_read(cache):
    first = another_run()
    [path] = cache.glob("*/features.safetensors")
    tensors = safetensors.torch.load_file(path)
    assert same(first, Features(frozen._by_split(tensors)))
    odd = {"a": torch.arange(3.0).bfloat16(), "b": torch.arange(5), "c": torch.ones(2, 3).T, "d": torch.arange(7.0).half()}
    loaded = safetensors.torch.load(b"".join(kept_features._as_safetensors(odd)))
    assert loaded.keys() == odd.keys()
    assert all(loaded[name].dtype == value.dtype and torch.equal(loaded[name], value) for name, value in odd.items())


def test_parts_from_elsewhere_are_not_kept(cache, computed, monkeypatch):
    """Nobody knows which files they are made of, and thus when they change."""
    monkeypatch.setitem(frozen.ACTIVATIONS, "relu6", "theirs:ReLU6")
    another_run()
    another_run()
    assert len(computed) == 4
    assert not cache.exists()


def test_what_is_quick_to_compute_is_not_kept(cache, monkeypatch):
    monkeypatch.setattr(kept_features, "WORTH_S", 1000.0)
    assert another_run().trouble == ""
    assert list(cache.iterdir()) == []


def test_the_longest_unused_make_room(cache, monkeypatch):
    monkeypatch.setattr(kept_features, "LIMIT_BYTES", 3700)
    now = iter(range(100))
    monkeypatch.setattr(kept_features.time, "time", lambda: float(next(now)))
    tensors = {"train.features": torch.zeros(250)}  # 1,000 bytes, and some 200 beside them

    def keep(key: str) -> None:
        with place_of(key, stop=lambda: None) as place:
            place.keep(tensors, 9.0)
            assert place.trouble == ""

    def names() -> set[str]:
        return {path.name for path in cache.iterdir() if path.is_dir()}

    keep("a")
    (cache / ".DS_Store").write_text("no folder")
    (cache / ".tmp-of-one-that-was-killed").mkdir()
    keep("b")
    keep("c")
    assert names() == {"a", "b", "c"}
    with place_of("a", stop=lambda: None) as place:
        assert place.read() is not None
    keep("d")
    assert names() == {"a", "c", "d"}
    with place_of("c", stop=lambda: None):  # in use: may not go, so the next oldest does
        keep("e")
    assert names() == {"c", "d", "e"}


def test_of_two_that_want_the_same_one_computes(cache):
    tensors = {"train.features": torch.arange(5.0), "train.labels": torch.arange(5)}
    waits, got = threading.Event(), []

    def second() -> None:
        with place_of("key", stop=waits.set) as place:
            got.append(place.read())

    thread = threading.Thread(target=second)
    with place_of("key", stop=lambda: None) as place:
        assert place.read() is None
        thread.start()
        assert waits.wait(60)
        place.keep(tensors, 9.0)
    thread.join(60)
    [(found, seconds)] = got
    assert seconds == 9.0
    assert found.keys() == tensors.keys()
    assert all(torch.equal(value, tensors[name]) for name, value in found.items())


def test_a_signal_is_answered_while_another_run_computes(cache, monkeypatch):
    held = {}
    monkeypatch.setattr(frozen, "place_of", lambda key, **named: held.update(key=key) or place_of(key, **named))
    another_run()
    stop, seen = StopFlag(), []

    def progress(*call):
        seen.append(call)
        stop.signum = 15

    config = schema.compose(list(RUN))
    runtime.seed_everything(0)
    parts = build_parts(config, load_splits(config.data), torch.device("cpu"))
    frozen._LAST.clear()
    with place_of(held["key"], stop=lambda: None), pytest.raises(Interrupted, match="SIGTERM: stopped at features"):
        frozen.compute_once(config, parts, stop=stop, progress=progress)
    assert seen == [("features that another run computes", 0, len(parts.splits.train))]
