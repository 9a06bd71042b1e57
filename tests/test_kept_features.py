"""Features on the disk: the same bytes as computed ones, only where nothing has changed, and never in the way of a run."""

import threading
from pathlib import Path

import pytest
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


@pytest.mark.parametrize("other", ["data.subset=50", "train.eval_batch_size=7", "model.activation=relu", "code", "machine"])
def test_what_has_changed_is_computed_anew(computed, monkeypatch, other):
    another_run()
    if other == "code":
        monkeypatch.setattr(frozen, "code_digest", lambda _: "another")
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


def test_a_cache_that_cannot_be_written_ends_no_run(tmp_path, computed, monkeypatch):
    (tmp_path / "cache").write_text("a file")
    assert "; not kept: " in another_run().summary()
    (tmp_path / "cache").unlink()

    def full(path, _):
        raise DiskError(f"no space left for {path}")

    with monkeypatch.context() as patch:
        patch.setattr(storage, "write_bytes", full)
        found = another_run()
    assert found.by_split
    assert "; not kept: no space left for " in found.summary()
    assert len(computed) == 4
    assert another_run().trouble == ""
    assert len(computed) == 6, "half of what was written is none"


def test_what_is_quick_to_compute_is_not_kept(cache, monkeypatch):
    monkeypatch.setattr(kept_features, "WORTH_S", 1000.0)
    assert another_run().trouble == ""
    assert list(cache.iterdir()) == []


def test_the_longest_unused_make_room(cache, monkeypatch):
    monkeypatch.setattr(kept_features, "LIMIT_BYTES", 3500)
    tensors = {"train.features": torch.zeros(250)}  # 1,000 bytes and a header

    def keep(key: str) -> None:
        with place_of(key, stop=lambda: None) as place:
            place.keep(tensors, 9.0)

    keep("a")
    keep("b")
    with place_of("a", stop=lambda: None) as place:
        assert place.read() is not None
    keep("c")
    assert {folder.name for folder in cache.iterdir()} == {"a", "c"}
    with place_of("a", stop=lambda: None):  # in use: may not go, so the next oldest does
        keep("d")
    assert {folder.name for folder in cache.iterdir()} == {"a", "d"}


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
