"""What the peer scripts share: the command line, the clock, the machine, the file of times."""

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import torchvision
from rich.console import Console

from cifar_lab import runtime
from cifar_lab.config import DataConfig
from cifar_lab.data.cifar import load_cifar10
from cifar_lab.data.sets import Source


def parser_for(description: str | None, examples: str) -> argparse.ArgumentParser:
    """A parser with what every script takes: ``--data`` and ``--out``."""
    parser = argparse.ArgumentParser(
        description=(description or "").replace("``", ""), epilog=examples, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="folder that holds cifar-10-batches-py (default: $CIFAR10_ROOT)")
    parser.add_argument("--out", type=Path, help="write every time as JSON to this file")
    return parser


def parse_with_data(parser: argparse.ArgumentParser, arguments: Sequence[str] | None) -> argparse.Namespace:
    """Parse, and find CIFAR-10 or end with a line that says where it is not."""
    chosen = parser.parse_args(arguments)
    chosen.data = chosen.data or (Path(os.environ["CIFAR10_ROOT"]) if "CIFAR10_ROOT" in os.environ else None)
    if chosen.data is None or not (chosen.data / "cifar-10-batches-py").is_dir():
        parser.error(f"--data {chosen.data}: no cifar-10-batches-py there (see --help)")
    return chosen


def cifar10(folder: Path) -> Source:
    """The real images."""
    return load_cifar10(DataConfig(root=str(folder), download=False))


def seconds(work: Callable[[], object]) -> float:
    """Wall time of one call."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def environment() -> dict[str, Any]:
    """What the times were taken on."""
    record = runtime.environment_record()
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "cpu": record["cpu"],
        "cpu_count": os.cpu_count(),
        "cpu_bf16": record["cpu_bf16"],
        "threads": torch.get_num_threads(),
    }


def versions(machine: dict[str, Any]) -> str:
    """The line below a table."""
    return f"torch {machine['torch']}, torchvision {machine['torchvision']}, Python {machine['python']}; {machine['cpu']}"


def wide_console() -> Console:
    """As wide as the terminal; 140 characters in a file."""
    return Console(width=None if sys.stdout.isatty() else 140)


def write_times(path: Path | None, machine: dict[str, Any], results: dict[str, Any]) -> None:
    """Write everything as JSON, if a file was named."""
    if path:
        path.write_text(json.dumps({"environment": machine, "results": results}, indent=2) + "\n", encoding="utf-8")
