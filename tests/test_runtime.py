"""What a run stands on: seeds, device, precision by rule, memory, signals, the record."""

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import torch
from torch import nn

from cifar_lab import memory, runtime, signals
from cifar_lab.errors import ConfigError, DeviceError, Interrupted, ResourceError
from cifar_lab.signals import StopFlag

CPU, MPS = torch.device("cpu"), torch.device("mps")
CUDA = torch.device("cuda", 0)


# Seed, device, precision


def test_seeds_reach_every_generator():
    def draws():
        return [random.random(), np.random.rand(), torch.rand(1).item()]

    runtime.seed_everything(3)
    first = draws()
    runtime.seed_everything(4)
    second = draws()
    runtime.seed_everything(3)
    assert draws() == first
    assert all(a != b for a, b in zip(first, second, strict=True))
    runtime.seed_everything(2**31 - 1)


@pytest.fixture
def machine(monkeypatch):
    """Pretend to be a machine with so many GPUs of a kind, or a Mac."""

    def pretend(*, gpus=0, mps=False, capability=(8, 0), cpu_bf16=False):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: capability)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
        monkeypatch.setattr(runtime, "cpu_has_bf16", lambda: cpu_bf16)

    return pretend


@pytest.mark.parametrize(
    ("here", "requested", "found"),
    [
        ({}, "auto", "cpu"),
        ({"mps": True}, "auto", "mps"),
        ({"gpus": 2}, "auto", "cuda:0"),
        ({"gpus": 2, "mps": True}, "auto", "cuda:0"),
        ({"gpus": 2}, "cpu", "cpu"),
        ({"gpus": 2}, "cuda", "cuda:0"),
        ({"gpus": 2}, "cuda:1", "cuda:1"),
        ({"mps": True}, "mps", "mps"),
    ],
)
def test_devices(machine, here, requested, found):
    machine(**here)
    assert str(runtime.resolve_device(requested)) == found


@pytest.mark.parametrize(
    ("here", "requested", "text"),
    [
        ({}, "cuda", "device=cuda; 0 CUDA devices are here"),
        ({"gpus": 2}, "cuda:2", "device=cuda:2; 2 CUDA devices are here"),
        ({}, "mps", "device=mps; no MPS device is here"),
    ],
)
def test_a_device_that_is_not_there_is_named(machine, here, requested, text):
    machine(**here)
    with pytest.raises(DeviceError) as caught:
        runtime.resolve_device(requested)
    assert caught.value.what == text
    assert caught.value.exit_code == 7


NARROW, WIDE = nn.Conv2d(3, 15, 3), nn.Conv2d(3, 16, 3)


@pytest.mark.parametrize(
    ("device", "here", "narrow", "wide"),
    [
        (CPU, {}, "fp32", "fp32"),
        (CPU, {"cpu_bf16": True}, "fp32", "bf16"),
        (CUDA, {"capability": (9, 0)}, "fp32", "bf16"),
        (CUDA, {"capability": (8, 0)}, "fp32", "bf16"),
        (CUDA, {"capability": (7, 5)}, "fp32", "fp16"),
        (MPS, {"cpu_bf16": True}, "fp32", "fp32"),
    ],
)
def test_auto_precision_is_a_table(machine, device, here, narrow, wide):
    machine(gpus=1, **here)
    assert runtime.resolve_precision("auto", device, NARROW) == narrow
    assert runtime.resolve_precision("auto", device, WIDE) == wide


@pytest.mark.parametrize("requested", ["fp32", "bf16", "fp16"])
def test_a_precision_that_was_asked_for_is_taken(machine, requested):
    machine()
    assert runtime.resolve_precision(requested, CPU, NARROW) == requested
    assert runtime.resolve_precision(requested, CUDA, NARROW) == requested


def test_mixed_precision_on_mps_is_refused():
    assert runtime.resolve_precision("fp32", MPS, WIDE) == "fp32"
    with pytest.raises(ConfigError, match=r"train\.precision=bf16; device=mps supports fp32 only"):
        runtime.resolve_precision("bf16", MPS, WIDE)


def test_widest_channels():
    assert runtime.widest_channels(nn.Sequential(nn.Conv2d(3, 7, 3), nn.Conv2d(7, 9, 3), nn.Linear(500, 512))) == 9
    assert runtime.widest_channels(nn.Sequential(nn.Linear(8, 64), nn.Linear(64, 100))) == 64
    assert runtime.widest_channels(nn.Linear(8, 1000)) == 0
    assert runtime.widest_channels(nn.Flatten()) == 0


def test_cpu_probes(monkeypatch):
    monkeypatch.setattr(runtime.platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False, raising=False)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False, raising=False)
    assert runtime.cpu_has_bf16() is False
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: True)
    assert runtime.cpu_has_bf16() is True


def test_determinism_and_threads():
    before = torch.get_num_threads()
    try:
        runtime.set_deterministic(True)
        assert torch.are_deterministic_algorithms_enabled()
        assert torch.backends.cudnn.deterministic
        assert not torch.backends.cudnn.benchmark
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"]
        runtime.set_deterministic(False)
        assert not torch.are_deterministic_algorithms_enabled()
        assert torch.backends.cudnn.benchmark
        runtime.set_threads(1)
        assert torch.get_num_threads() == 1
        runtime.set_threads(0)
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)
        torch.use_deterministic_algorithms(False)
        torch.backends.cudnn.deterministic = torch.backends.cudnn.benchmark = False


# Memory


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), "out of GPU memory at train.batch_size=4096"),
        (RuntimeError("CUDA error: out of memory"), "out of GPU memory at train.batch_size=4096"),
        (RuntimeError("MPS backend out of memory"), "out of GPU memory at train.batch_size=4096"),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"), "out of GPU memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9"), "out of memory at"),
        (MemoryError(), "out of memory at train.batch_size=4096"),
    ],
)
def test_out_of_memory_is_one_line(error, text):
    with pytest.raises(ResourceError) as caught, runtime.device_failures_named(4096, lambda: "last good: step-8"):
        raise error
    assert caught.value.what.startswith(text)
    assert caught.value.hint == "try train.batch_size=2048"
    assert caught.value.kept == "last good: step-8"
    assert (caught.value.code, caught.value.exit_code) == ("E-OOM", 7)


def test_who_is_nearer_names_the_batch_and_who_knows_says_what_is_kept():
    with (
        pytest.raises(ResourceError) as caught,
        runtime.device_failures_named(64, lambda: "last good: step-8"),
        runtime.device_failures_named(500, key="train.eval_batch_size"),
    ):
        raise MemoryError
    assert caught.value.what == "out of memory at train.eval_batch_size=500"
    assert caught.value.kept == "last good: step-8"


def test_a_really_too_large_tensor_is_named():
    with pytest.raises(ResourceError, match=r"out of memory at train\.batch_size=1") as caught, runtime.device_failures_named(1):
        torch.empty(2**55, dtype=torch.uint8)
    assert "smaller model" in caught.value.hint


@pytest.mark.parametrize(
    "error",
    [
        torch.AcceleratorError("CUDA error: an illegal memory access was encountered\nIt may be reported later"),
        RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"),
        RuntimeError("CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`"),
    ],
)
def test_a_gpu_that_fails_is_named(error):
    with pytest.raises(DeviceError) as caught, runtime.device_failures_named(8, lambda: "last good: step-8"):
        raise error
    assert caught.value.what == f"the GPU failed: {str(error).splitlines()[0]}"
    assert (caught.value.code, caught.value.exit_code, caught.value.kept) == ("E-DEVICE", 7, "last good: step-8")


def test_a_gpu_without_room_for_a_library_is_out_of_memory():
    for text in ("CUDNN_STATUS_ALLOC_FAILED", "CUBLAS_STATUS_ALLOC_FAILED", "CUDA error: out of memory"):
        with pytest.raises(ResourceError, match="out of GPU memory"), runtime.device_failures_named(8):
            raise RuntimeError(text)


def test_a_device_is_begun_and_current_before_anything_is_asked_of_it(monkeypatch):
    """``torch.cuda.reset_peak_memory_stats`` raises where nothing has begun CUDA."""
    calls = []
    for name in ("init", "set_device", "reset_peak_memory_stats"):
        monkeypatch.setattr(torch.cuda, name, lambda *given, name=name: calls.append((name, *given)))
    second = torch.device("cuda", 1)
    runtime.use_device(second)
    memory.reset_peak(second)
    assert calls == [("init",), ("set_device", second), ("reset_peak_memory_stats", second)]
    runtime.use_device(CPU)
    assert len(calls) == 3


def test_other_errors_stay_what_they_are():
    for error in (RuntimeError("shapes do not match"), ValueError("out of memory of mine")):
        with pytest.raises(type(error), match=str(error)), runtime.device_failures_named(8):
            raise error


# Signals


def test_no_signal_no_stop():
    with StopFlag() as stop:
        assert stop.signum == 0
        stop.check("anywhere")


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_sets_the_flag_and_check_stops(signum, code):
    before = signal.getsignal(signum)
    with StopFlag() as stop:
        signal.raise_signal(signum)
        assert stop.signum == signum
        with pytest.raises(Interrupted) as caught:
            stop.check("epoch 3 step 812", kept="last good: step-812")
    assert (caught.value.signum, caught.value.exit_code) == (signum, code)
    assert caught.value.what == f"{signal.Signals(signum).name}: stopped at epoch 3 step 812"
    assert caught.value.kept == "last good: step-812"
    assert signal.getsignal(signum) is before


def test_a_handler_that_was_there_is_called_at_the_safe_point_and_comes_back():
    """As submitit's, which requeues the job."""
    calls = []

    def requeue(signum, frame):
        calls.append(signum)

    before = [signal.signal(s, requeue) for s in (signal.SIGTERM, signal.SIGUSR2)]
    try:
        for signum in (signal.SIGTERM, signal.SIGUSR2):
            calls.clear()
            with StopFlag() as stop:
                signal.raise_signal(signum)
                assert calls == [], "not inside the handler"
                with pytest.raises(Interrupted) as caught:
                    stop.check()
                assert calls == [signum]
                assert caught.value.signum == signum
            assert signal.getsignal(signum) is requeue
    finally:
        for signum, handler in zip((signal.SIGTERM, signal.SIGUSR2), before, strict=True):
            signal.signal(signum, handler)


def test_usr2_is_left_alone_where_nobody_handles_it():
    with StopFlag():
        assert signal.getsignal(signal.SIGUSR2) == signal.SIG_DFL


def test_a_signal_that_is_ignored_on_purpose_stays_ignored():
    """A shell starts its background jobs so: Ctrl-C is meant for the one in front."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with StopFlag() as stop:
            signal.raise_signal(signal.SIGINT)
            assert stop.signum == 0
        assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_an_echo_of_a_signal_is_no_second_one(monkeypatch):
    monkeypatch.setattr(signals, "ECHO_S", 600.0)
    with StopFlag() as stop:
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
        assert stop.signum == signal.SIGTERM


SLEEPER = """
import sys, time
from cifar_lab.signals import StopFlag
with StopFlag() as stop:
    print("ready", flush=True)
    while True:
        time.sleep(0.01)
        if stop.signum:
            print("flag", stop.signum, flush=True)
            time.sleep(600)
"""


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_at_once(second):
    process = subprocess.Popen([sys.executable, "-c", SLEEPER], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGTERM)
        assert process.stdout.readline() == "flag 15\n"
        time.sleep(signals.ECHO_S + 0.1)
        process.send_signal(second)
        assert process.wait(timeout=60) == -second, "it sleeps for ten minutes"
    finally:
        process.kill()
        process.communicate()


def test_outside_the_main_thread_the_flag_is_set_by_hand():
    before, seen = signal.getsignal(signal.SIGTERM), []

    def work():
        with StopFlag() as stop:
            seen.append(signal.getsignal(signal.SIGTERM))
            stop.signum = 15
            try:
                stop.check("a thread")
            except Interrupted as error:
                seen.append(error.what)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [before, "SIGTERM: stopped at a thread"]


# The record


def test_the_record_is_plain_and_true():
    record = runtime.environment_record(CPU)
    assert json.loads(json.dumps(record, allow_nan=False)) == record
    assert torch.__version__.startswith(record["packages"]["torch"])
    assert record["python"] == sys.version.split()[0]
    assert record["threads"] == torch.get_num_threads()
    assert record["device"] == "cpu"
    assert "gpu" not in record
    assert set(record["numerics"]) == {"deterministic", "cudnn_benchmark", "tf32_convolutions", "tf32_products"}


def git(folder, *words):
    identity = ["-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false"]
    return subprocess.run(["git", "-C", folder, *identity, *words], check=True, capture_output=True, text=True).stdout.strip()


def test_the_commit_of_our_own_checkout_only(tmp_path, monkeypatch):
    package = tmp_path / "package"
    package.mkdir()
    (package / "a.py").write_text("1\n")
    assert runtime._git_state(package) is None  # no checkout
    git(tmp_path, "init", "-q")
    assert runtime._git_state(package) is None  # no commit
    git(tmp_path, "add", "-A")
    git(tmp_path, "commit", "-qm", "one")
    assert runtime._git_state(package) == {"commit": git(tmp_path, "rev-parse", "HEAD"), "changed": False}
    (package / "new.py").write_text("not tracked\n")
    (package / "a.py").write_text("2\n")
    assert runtime._git_state(package)["changed"] is True
    inner = tmp_path / "site-packages" / "package"  # installed inside somebody else's checkout
    inner.mkdir(parents=True)
    assert runtime._git_state(inner) is None

    def hang(*args, **kwargs):
        raise subprocess.TimeoutExpired("git", 20)

    monkeypatch.setattr(subprocess, "run", hang)
    assert runtime._git_state(package) is None


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_the_record_of_a_gpu():
    record = runtime.environment_record(runtime.resolve_device("cuda"))
    assert record["gpu"]["name"] == torch.cuda.get_device_name(0)
    assert record["gpu"]["memory_mib"] > 1000
    assert json.loads(json.dumps(record)) == record


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_a_really_full_gpu_is_named():
    with pytest.raises(ResourceError, match=r"out of GPU memory at train\.batch_size=64"), runtime.device_failures_named(64):
        torch.empty(2**45, dtype=torch.uint8, device="cuda")
