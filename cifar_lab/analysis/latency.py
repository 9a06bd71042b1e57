"""How long a model takes to answer: single calls with their quantiles, and images per second without a wait between calls.

Rules. Warm-up: calls until the median of the last ``WINDOW`` is within ``STABLE`` of the median of the ``WINDOW`` before, at
most ``MAX_WARMUP`` calls and, once there are two windows, ``MAX_WARMUP_S`` seconds. Then ``CALLS`` calls, each waited for. A
limit in seconds may end both earlier, which the answer says (``stable``, ``capped``); where the warm-up has used it up, its last
call is the measurement. Two clocks: ``call_ms`` is what whoever calls waits for, by the host's clock; ``device_ms`` is what the
device is busy, by CUDA's events, and null elsewhere. The batch is on the device already.
"""

import math
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from cifar_lab.analysis.cost import undisturbed
from cifar_lab.engine.predict import mixed_precision

CALLS = 100
WINDOW, STABLE, MAX_WARMUP, MAX_WARMUP_S = 5, 0.05, 100, 10.0
QUANTILES = {"p50": 50, "p90": 90, "p99": 99}
_WINDOW_S = 0.5
"""Seconds that a window of back-to-back calls should fill at least."""
_SHARES = {"single": 0.3, "batch": 0.5, "throughput": 0.2}
"""Of the seconds that the short measurement may take."""

Call = Callable[[], object]


def measure_latency(call: Call, device: torch.device, *, calls: int = CALLS, max_s: float = 0.0) -> dict[str, Any]:
    """Time single calls by the rules above.

    Args:
        call: Called without arguments, again and again.
        device: What the call uses; it is waited for at the end of each.
        calls: How many are measured after the warm-up.
        max_s: Seconds after which no new call begins, warm-up included; 0: no limit.

    Returns:
        ``calls``, ``capped`` (fewer than asked for), ``warmup_calls``, ``stable``, ``call_ms`` and ``device_ms``:
        ``p50``, ``p90``, ``p99`` (interpolated linearly) and ``mean`` in milliseconds. With fewer than 100 calls ``p99`` says
        little more than which was the slowest.
    """
    timer = _Timer(call, device)
    began = time.perf_counter()

    def is_over(share: float = 1.0) -> bool:
        return max_s > 0 and time.perf_counter() - began >= share * max_s

    warmup = [timer.time()]
    while not _is_warm([call_ms for call_ms, _ in warmup], time.perf_counter() - began) and not is_over(0.5):
        warmup.append(timer.time())
    measured = []
    while len(measured) < calls and not (measured and is_over()):
        if not measured and is_over():
            measured.append(warmup.pop())
            break
        measured.append(timer.time())
    on_device = [device_ms for _, device_ms in measured if device_ms is not None]
    return {
        "calls": len(measured),
        "capped": len(measured) < calls,
        "warmup_calls": len(warmup),
        "stable": is_stable([call_ms for call_ms, _ in warmup]),
        "call_ms": quantiles([call_ms for call_ms, _ in measured]),
        "device_ms": quantiles(on_device) if on_device else None,
    }


def is_stable(times: Sequence[float]) -> bool:
    """Whether a series of times has come to rest: the medians of its last two windows are close to each other."""
    if len(times) < 2 * WINDOW:
        return False
    before, last = (float(np.median(part)) for part in (times[-2 * WINDOW : -WINDOW], times[-WINDOW:]))
    return abs(last - before) <= STABLE * before


def _is_warm(times: Sequence[float], seconds: float) -> bool:
    """Whether the warm-up is over: the calls have come to rest, or have had their chance to."""
    return is_stable(times) or len(times) >= MAX_WARMUP or (len(times) >= 2 * WINDOW and seconds >= MAX_WARMUP_S)


def quantiles(times: Sequence[float]) -> dict[str, float]:
    """Median, 90 % and 99 % quantile and mean of some times, in their unit."""
    return {**{name: float(np.percentile(times, q)) for name, q in QUANTILES.items()}, "mean": float(np.mean(times))}


def measure_throughput(call: Call, device: torch.device, images: int, *, max_s: float = 0.0) -> dict[str, Any]:
    """Images per second of calls back to back, waiting for the device at the ends of a window only.

    Args:
        call: Answers ``images`` images; warmed up here by two calls.
        device: What it uses.
        images: Per call.
        max_s: Seconds that it may take in all; 0: three windows of half a second, or of one call where that takes longer.

    Returns:
        ``images_per_s``, the median of up to three windows, with ``low``, ``high`` and the ``calls`` in each window.
    """
    timer = _Timer(call, device)
    timer.time()  # a first call chooses kernels and loads them, which would make the windows far too short
    once = max(timer.time()[0] / 1e3, 1e-9)
    per_window = math.ceil(_WINDOW_S / once) if max_s == 0 else max(1, int(min(_WINDOW_S, max_s / 3) / once))
    began, rates = time.perf_counter(), []
    while len(rates) < 3 and not (rates and max_s > 0 and time.perf_counter() - began >= max_s):
        rates.append(images * per_window / timer.window(per_window))
    return {"images_per_s": float(np.median(rates)), "low": min(rates), "high": max(rates), "calls": per_window}


class Answering:
    """A model's answer to a batch as a call without arguments.

    The pictures are random bytes, normalised: zeros would flatter a device that saves power on them.

    Args:
        model: In evaluation mode, on ``device``.
        input_shape: (C, H, W) of one picture.
        batch_size: B.
        device: Where the model is.
        precision: ``fp32``, ``bf16`` or ``fp16``.
        channels_last: Memory layout of the batch.
    """

    def __init__(
        self,
        model: nn.Module,
        input_shape: Sequence[int],
        batch_size: int,
        device: torch.device,
        *,
        precision: str,
        channels_last: bool,
    ):
        self._model, self._amp = model, mixed_precision(precision, device)
        self.images = random_images(batch_size, input_shape).to(device)
        if channels_last:
            self.images = self.images.contiguous(memory_format=torch.channels_last)

    def __call__(self) -> Tensor:
        """Logits [B, K]."""
        with self._amp:
            return self._model(self.images)


def random_images(count: int, shape: Sequence[int]) -> Tensor:
    """Random bytes as pictures, normalised: float32 [count, C, H, W] with mean 0 and standard deviation 1."""
    chance = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (count, *shape), dtype=torch.uint8, generator=chance)
    return pixels.float().sub_(127.5).div_(math.sqrt((256**2 - 1) / 12))


def short_latency(
    model: nn.Module,
    input_shape: Sequence[int],
    batch_size: int,
    device: torch.device,
    *,
    precision: str,
    channels_last: bool,
    max_s: float,
) -> dict[str, Any]:
    """What every run measures at its end: single pictures and its evaluation batch, in about ``max_s`` seconds.

    The model, its buffers and everybody's random numbers stay as they were. The longest that it can take is ``max_s`` and
    a call of each size.

    Returns:
        ``latency``: by batch size what ``measure_latency`` says of it, with ``device``, ``precision`` and ``channels_last``;
        ``inference``: ``batch_size``, ``images_per_s`` and ``calls``, back to back on CUDA, elsewhere those of the latency.
    """
    answering = partial(Answering, model, input_shape, device=device, precision=precision, channels_last=channels_last)
    found: dict[str, Any] = {"device": str(device), "precision": precision, "channels_last": channels_last}
    with undisturbed(model, device):
        if batch_size > 1:
            found["batch_1"] = measure_latency(answering(1), device, max_s=_SHARES["single"] * max_s)
        call = answering(batch_size)
        found[f"batch_{batch_size}"] = last = measure_latency(call, device, max_s=_SHARES["batch"] * max_s)
        throughput = {"images_per_s": 1e3 * batch_size / last["call_ms"]["mean"], "calls": last["calls"]}
        if device.type == "cuda":
            windows = measure_throughput(call, device, batch_size, max_s=_SHARES["throughput"] * max_s)
            throughput = {key: windows[key] for key in throughput}
    return {"latency": found, "inference": {"batch_size": batch_size, **throughput}}


class _Timer:
    """Milliseconds of one call, or seconds of several in a row."""

    def __init__(self, call: Call, device: torch.device):
        self._call, self._device = call, device
        self._events = [torch.cuda.Event(enable_timing=True) for _ in range(2)] if device.type == "cuda" else []

    def time(self) -> tuple[float, float | None]:
        """By the host's clock, and by the device's events where it has them."""
        wait(self._device)
        began = time.perf_counter()
        if self._events:
            self._events[0].record(torch.cuda.current_stream(self._device))
        self._call()
        if self._events:
            self._events[1].record(torch.cuda.current_stream(self._device))
        wait(self._device)
        on_host = 1e3 * (time.perf_counter() - began)
        return on_host, self._events[0].elapsed_time(self._events[1]) if self._events else None

    def window(self, calls: int) -> float:
        """Seconds of so many calls."""
        wait(self._device)
        began = time.perf_counter()
        for _ in range(calls):
            self._call()
        wait(self._device)
        return time.perf_counter() - began


def wait(device: torch.device) -> None:
    """Until the device has done what it was given; a CPU has."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
