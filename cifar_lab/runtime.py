"""What a run stands on: seed, device, precision, determinism, memory and the record of the machine."""

import contextlib
import importlib.metadata
import os
import platform
import random
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from cifar_lab.errors import ConfigError, DeviceError, DeviceFailedError, ResourceError

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
# Below this many channels the casts of mixed precision cost more than its faster products save.
MIN_CHANNELS_FOR_MIXED = 16
_GPU_IS_FULL = ("out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED")
_OF_CUDA = ("CUDA error", "CUDA driver error", "CUBLAS_STATUS_", "CUDNN_STATUS_", "cuDNN error")
_RECORDED_PACKAGES = (
    *("cifar-lab", "torch", "torchvision", "numpy", "scipy", "scikit-learn"),
    *("safetensors", "hydra-core", "omegaconf", "pillow", "matplotlib"),
)


# Seed, device, precision


def seed_everything(seed: int) -> None:
    """Seed every generator there is: Python's, numpy's and torch's on all devices."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def resolve_device(requested: str) -> torch.device:
    """Turn ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps`` into a device that is there.

    Raises:
        DeviceError: If it is not there.
    """
    if requested == "auto":
        requested = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    device = torch.device(requested)
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        index = device.index or 0
        if index >= count:
            raise DeviceError(f"device={requested}; {count} CUDA devices are here", hint="device=auto takes what there is")
        return torch.device("cuda", index)
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise DeviceError(f"device={requested}; no MPS device is here", hint="device=auto takes what there is")
    return device


def resolve_precision(requested: str, device: torch.device, model: nn.Module) -> str:
    """Choose ``fp32``, ``bf16`` or ``fp16`` by rule, before anything runs.

    ``auto``: fp32 for narrow nets (``widest_channels`` < 16) and on MPS; otherwise bf16 where the
    device has units for it (CUDA from compute capability 8.0, CPUs with AVX512-BF16, AMX or Arm's
    bf16 instructions), fp16 on older CUDA, fp32 on other CPUs. Another value is taken as it is, even
    where it is slow.

    Args:
        requested: ``auto``, ``fp32``, ``bf16`` or ``fp16``.
        device: Where the model runs.
        model: Only its layers' widths are looked at.

    Raises:
        ConfigError: If ``requested`` is mixed and the device is MPS, where it is not supported.
    """
    if requested != "auto":
        if device.type == "mps" and requested != "fp32":
            raise ConfigError(f"train.precision={requested}; device=mps supports fp32 only", hint="train.precision=auto")
        return requested
    if device.type == "mps" or widest_channels(model) < MIN_CHANNELS_FOR_MIXED:
        return "fp32"
    if device.type == "cuda":
        return "bf16" if torch.cuda.get_device_capability(device) >= (8, 0) else "fp16"
    return "bf16" if cpu_has_bf16() else "fp32"


def widest_channels(model: nn.Module) -> int:
    """Most output channels of any convolution; of a net without one, most output features of a linear layer but the last.

    The last linear layer's width is the number of classes and says nothing about the net. A net with
    nothing inside but one linear layer, or with none, counts as 0: narrow.
    """
    convolutions = [m.out_channels for m in model.modules() if isinstance(m, nn.modules.conv._ConvNd)]
    if convolutions:
        return max(convolutions)
    linear = [m.out_features for m in model.modules() if isinstance(m, nn.Linear)]
    return max(linear[:-1], default=0)


def cpu_has_bf16() -> bool:
    """Whether this CPU multiplies bf16 in hardware; emulation is slower than fp32."""
    if platform.machine() in ("aarch64", "arm64"):
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported()) if torch.backends.mkldnn.is_available() else False
    probes = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, name)() for name in probes if hasattr(torch.cpu, name))


def emulated_precisions(device: torch.device) -> dict[str, str]:
    """Precisions that this device has no units for -> why; they work there, many times slower than fp32."""
    if device.type == "cuda":
        return {} if torch.cuda.get_device_capability(device) >= (8, 0) else {"bf16": "this GPU has no bf16 units"}
    if device.type == "mps":
        return {"bf16": "not supported on MPS", "fp16": "not supported on MPS"}
    has_fp16 = torch.backends.mkldnn.is_available() and bool(torch.ops.mkldnn._is_mkldnn_fp16_supported())
    missing = {"bf16": cpu_has_bf16(), "fp16": has_fp16}
    return {name: f"this CPU has no {name} units and emulates them" for name, is_there in missing.items() if not is_there}


def set_threads(threads: int) -> None:
    """Use this many CPU threads; 0 leaves torch's choice."""
    if threads > 0:
        torch.set_num_threads(threads)


def set_deterministic(deterministic: bool) -> None:
    """Bit-equal repeats on a GPU, or its fastest kernels; call before the first CUDA operation."""
    # In any case: it is read once a process, and a worker's next run may be a deterministic one.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    if torch.are_deterministic_algorithms_enabled() != deterministic:  # the call imports torch's compiler, for seconds
        torch.use_deterministic_algorithms(deterministic)
    torch.backends.cudnn.deterministic = deterministic
    torch.backends.cudnn.benchmark = not deterministic


def use_device(device: torch.device) -> None:
    """Make it the current one before anything is done on it.

    Pinned memory, events and autocast's questions are about CUDA's current device, and its statistics can only be reset
    once CUDA has begun.
    """
    if device.type == "cuda":
        torch.cuda.init()
        torch.cuda.set_device(device)


# Failures


@contextlib.contextmanager
def device_failures_named(
    batch_size: int, kept: Callable[[], str] = lambda: "", *, key: str = "train.batch_size"
) -> Iterator[None]:
    """Turn running out of memory, and a GPU that fails, into one line.

    May stand within another: the inner one names the batch size, and where it does not say what is kept, the outer one does.

    Args:
        batch_size: Of what is done within this.
        kept: What is still there and good, asked when it is told.
        key: The setting that says ``batch_size``.

    Raises:
        ResourceError: ``out of GPU memory at train.batch_size=4096``, with half of it as the hint.
        DeviceFailedError: The GPU failed; this process cannot use it any more.
    """
    try:
        yield
    except ResourceError as error:
        error.kept = error.kept or kept()
        raise
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        text = str(error)
        on_cpu = isinstance(error, MemoryError) or "DefaultCPUAllocator" in text or "can't allocate memory" in text
        on_gpu = isinstance(error, torch.OutOfMemoryError) or any(sign in text for sign in _GPU_IS_FULL)
        if not on_cpu and not on_gpu:
            if not is_of_device(error):
                raise
            hint = "the same command in a new process goes on; CUDA_LAUNCH_BLOCKING=1 before it shows which operation it was"
            raise DeviceFailedError(f"the GPU failed: {text.strip().splitlines()[0]}", hint=hint, kept=kept()) from error
        hint = f"try {key}={batch_size // 2}" if batch_size > 1 else "try a smaller model or smaller pictures"
        kind = "" if on_cpu else "GPU "
        raise ResourceError(f"out of {kind}memory at {key}={batch_size}", hint=hint, kept=kept()) from error


def is_of_device(error: BaseException) -> bool:
    """Whether CUDA or one of its libraries said it; a model's own mistakes are refused by torch before they get there."""
    return isinstance(error, torch.AcceleratorError) or any(sign in str(error) for sign in _OF_CUDA)


# The record


def environment_record(device: torch.device | None = None) -> dict[str, Any]:
    """What a result depends on beside configuration and data: versions, commit, machine, numeric switches."""
    record: dict[str, Any] = {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: _version(name) for name in _RECORDED_PACKAGES},
        "git": _git_state(Path(__file__).resolve().parent),
        "cpu": _cpu_name(),
        "cpu_count": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "cpu_bf16": cpu_has_bf16(),
        "device": str(device) if device is not None else None,
        # Without the line of compiler flags, which is longer than everything else together.
        "torch_build": [line.strip(" -") for line in torch.__config__.show().splitlines() if "Build settings" not in line],
        "numerics": {
            "deterministic": torch.are_deterministic_algorithms_enabled(),
            "cudnn_benchmark": torch.backends.cudnn.benchmark,
            "tf32_convolutions": torch.backends.cudnn.allow_tf32,
            "tf32_products": torch.backends.cuda.matmul.allow_tf32,
        },
    }
    if device is not None and device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        record["gpu"] = {
            "name": properties.name,
            "memory_mib": properties.total_memory // 2**20,
            "capability": f"{properties.major}.{properties.minor}",
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),
        }
    return record


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _git_state(folder: Path) -> dict[str, Any] | None:
    """Commit and whether files differ from it (None: git did not say); None where the package is not in a checkout of ours."""
    git = shutil.which("git")
    if git is None or not (folder.parent / ".git").exists():
        return None

    def ask(*words: str) -> str | None:
        try:
            done = subprocess.run([git, "-C", str(folder), *words], capture_output=True, text=True, timeout=20, check=False)
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    commit, changes = ask("rev-parse", "HEAD"), ask("status", "--porcelain", "--untracked-files=no")
    return {"commit": commit, "changed": None if changes is None else bool(changes)} if commit is not None else None


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
