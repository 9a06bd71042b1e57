"""Every check and measurement that needs a GPU, within ten minutes, ending in one table.

    python tests/gpu/checks.py --out gpu.json            # on a machine with a GPU and CIFAR-10 in $CIFAR10_ROOT
    python tests/gpu/checks.py --recipes --out gpu.json  # the write-ups' recipes instead, to their published numbers
    python tests/gpu/checks.py --rehearse                # the same on a CPU with a few images: does the script itself work?

Runs the tests that are marked ``gpu``, measures training speed from the rows of real runs (last epoch, so that
warm-up and autotuning are over), repeats a deterministic run, and trains the ``fast_*`` recipes. Evidence of every
recipe is kept beside the table, as outputs/reference/ has it.
"""

import argparse
import json
import os
import platform
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

TESTS = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(TESTS.parent))  # where the package is not installed


STOPPED = (130, 143)
"""What a run ends with that SIGINT or SIGTERM stopped."""


@dataclass
class Line:
    """One line of the table."""

    what: str
    value: str
    goal: str
    good: bool


class Lab:
    """Runs of cifar-lab in a scratch folder.

    Args:
        work: The scratch folder.
        kept: Where evidence goes.
        rehearse: On a CPU, with a few images.
    """

    def __init__(self, work: Path, kept: Path, rehearse: bool):
        self.work, self.kept, self.rehearses = work, kept, rehearse
        self.extra = ["device=cpu", "data.subset=32"] if rehearse else ["device=cuda"]

    def train(self, name: str, *overrides: str) -> dict[str, Any]:
        """One run; returns its result.json with the rows of metrics.jsonl under ``rows``."""
        from cifar_lab.train import main

        folder = self.work / name
        code = main([*overrides, *self.extra, f"hydra.run.dir={folder}"])
        if code in STOPPED:
            raise KeyboardInterrupt
        if code:
            raise RuntimeError(f"{name}: exit code {code}")
        rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        return {**json.loads((folder / "result.json").read_text()), "rows": rows}


def fresh_process(lab: Lab) -> Line:
    """A run that nothing has begun CUDA for; in this process a check before it may have."""
    command = [sys.executable, "-m", "cifar_lab.cli", "train", "experiment=quickstart", "train=smoke", *lab.extra]
    environment = {**os.environ, "PYTHONPATH": f"{TESTS.parent}:{os.environ.get('PYTHONPATH', '')}"}
    done = subprocess.run(command, cwd=lab.work, env=environment, capture_output=True, text=True, timeout=240)
    said = (done.stderr.strip() or done.stdout.strip() or "no output").splitlines()
    return Line("a run in a process of its own", f"exit code {done.returncode}: {said[-1]}", "exit code 0", done.returncode == 0)


def marked_tests(lab: Lab) -> Line:
    """The tests that are marked ``gpu``."""
    command = [sys.executable, "-m", "pytest", "-q", "-o", "addopts=", "-p", "no:cacheprovider", "-m", "gpu", str(TESTS)]
    done = subprocess.run([*command, "--continue-on-collection-errors"], capture_output=True, text=True, timeout=240)
    print(done.stdout[-3000:], done.stderr[-3000:])
    closing = done.stdout.strip().splitlines()[-1] if done.stdout.strip() else "no output"
    ran = re.search(r"(\d+) passed", closing)
    return Line("tests marked gpu", closing, "all pass", done.returncode == 0 and ran is not None)


def speed(what: str, goal: float, *overrides: str) -> Callable[[Lab], Line]:
    """Training images per second in the last of a few epochs."""

    def check(lab: Lab) -> Line:
        result = lab.train(re.sub(r"\W+", "_", what), *overrides)
        images_per_s = result["rows"][-1]["images_per_s"]
        return Line(f"{what}, {result['precision']}", f"{images_per_s:,.0f} images/s", f"{goal:,.0f}", images_per_s >= goal)

    check.__name__ = what
    return check


def reaches(experiment: str, goal: float, seeds: int = 1, *overrides: str) -> Callable[[Lab], Line]:
    """Test accuracy of a recipe in percent, the mean over seeds, and seconds of training."""

    def check(lab: Lab) -> Line:
        from cifar_lab import reference

        short = ["train.epochs=1", "train.batch_size=16", "data.input_size=32"] if lab.rehearses else []
        results = []
        for seed in range(seeds):
            name = f"{experiment}_gpu_seed{seed}"
            results.append(lab.train(name, f"experiment={experiment}", *overrides, *short, f"seed={seed}"))
            reference.keep(lab.work / name, name, lab.kept)
        accuracies = [100 * result["metrics"]["test"]["accuracy"] for result in results]
        spread = f" ± {statistics.stdev(accuracies):.2f}" if seeds > 1 else ""
        seconds = statistics.mean(result["cost"]["train_s"] for result in results)
        value = f"{statistics.mean(accuracies):.2f} %{spread} (n = {seeds}) in {seconds:.1f} s"
        return Line(experiment, value, f"{goal:.1f} %", statistics.mean(accuracies) >= goal)

    check.__name__ = experiment
    return check


def repeats(lab: Lab) -> Line:
    """Two deterministic runs, bit for bit."""
    arguments = ("experiment=fast_resnet18", "train.deterministic=true", "train.epochs=1", "data.subset=2000")
    losses = [lab.train(f"repeat_{n}", *arguments)["metrics"]["test"]["loss"] for n in (1, 2)]
    return Line("two deterministic runs", f"test loss {losses[0]!r} and {losses[1]!r}", "equal", losses[0] == losses[1])


CHECKS: tuple[Callable[[Lab], Line], ...] = (
    fresh_process,
    marked_tests,
    speed("resnet18, batch 128", 20_000, "experiment=fast_resnet18", "train.batch_size=128", "train.epochs=3"),
    speed("resnet18, batch 512", 60_000, "experiment=fast_resnet18", "train.batch_size=512", "train.epochs=4"),
    speed("small_cnn, batch 512", 1_000_000, "experiment=d3_small_cnn", "train.batch_size=512", "train.epochs=6"),
    repeats,
    reaches("fast_speednet", 94.0, 3),
    reaches("fast_resnet18", 93.4),
    reaches("fast_custom_cnn", 93.3),
)

RECIPES: tuple[Callable[[Lab], Line], ...] = (
    reaches("d4_dense_dnn", 46.7),
    reaches("d1_alexnet_like", 77.0),
    reaches("d1_mobilenet_like", 74.0, 3),
    reaches("d4_tf_cnn", 88.4),
    reaches("d4_custom_cnn", 93.3),
    reaches("d0_traditional_cnn", 83.7),
    reaches("d4_resnet18", 93.31),
    reaches("d0_separable_densenet", 79.6),
    reaches("d2_few_param_resnet", 89.28),
)


def machine() -> dict[str, Any]:
    """What the figures were taken on."""
    import torch

    try:
        gpu = torch.cuda.get_device_name(0) if torch.cuda.is_available() else "none"
    except RuntimeError as error:
        gpu = str(error).splitlines()[0]
    return {"gpu": gpu, "torch": torch.__version__, "cuda": torch.version.cuda, "python": platform.python_version()}


def show(lines: list[Line], found: dict[str, Any]) -> None:
    """The table, last."""
    table = Table(title=", ".join(f"{k} {v}" for k, v in found.items()))
    for name in ("check", "value", "goal", ""):
        table.add_column(name)
    for line in lines:
        table.add_row(escape(line.what), escape(line.value), line.goal, "ok" if line.good else "[red]missed[/]")
    Console(width=140).print(table)


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", default=str(Path(os.environ.get("OUT", ".")) / "gpu.json"))
    parser.add_argument("--recipes", action="store_true", help="train the write-ups' recipes, cheapest first")
    parser.add_argument("--rehearse", action="store_true", help="on a CPU, with a few images")
    given = parser.parse_args()
    out = Path(given.out).resolve()
    out.parent.mkdir(parents=True, exist_ok=True)
    lines: list[Line] = []
    found: dict[str, Any] = {}
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a time limit: the table comes all the same
    try:
        with tempfile.TemporaryDirectory() as work:
            lab = Lab(Path(work), out.parent / "reference", given.rehearse)
            for check in RECIPES if given.recipes else CHECKS:
                began = time.perf_counter()
                lines.append(run(check, lab))
                print(f"-- {lines[-1].what}: {lines[-1].value} ({time.perf_counter() - began:.0f} s)", flush=True)
                found = found or machine()
                out.write_text(json.dumps({**found, "checks": [asdict(line) for line in lines]}, indent=2))
    except KeyboardInterrupt:
        lines.append(Line("stopped", "what comes after this was not begun", "", False))
    show(lines, found)
    return 0 if all(line.good for line in lines) else 1


def run(check: Callable[[Lab], Line], lab: Lab) -> Line:
    """One check; what ends it is its line."""
    try:
        return check(lab)
    except Exception as error:
        return Line(check.__name__, f"{type(error).__name__}: {error}", "", False)


if __name__ == "__main__":
    sys.exit(main())
