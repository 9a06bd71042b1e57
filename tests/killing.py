"""Kill a small run with SIGKILL at a random moment, continue it, and compare its end with an undisturbed one.

    python tests/killing.py --kills 20

Every trial is a run of its own in a process of its own, forked from a server that imported torch once. The killed run is
continued by the same call until it is done; then weights, optimiser state, metrics rows (time fields aside),
predictions and metrics must be bit for bit those of the undisturbed run.
"""

import argparse
import json
import random
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import rig

from cifar_lab.processes import warm_up

ARGUMENTS = (
    "experiment=quickstart",
    "train.epochs=2",
    "train.batch_size=16",
    "train.checkpoint_every_s=0.02",
    "augment=crop_flip",
    "optimizer=sgd_nesterov",
    "optimizer.lr=0.01",
    "schedule=plateau",
    "data.subset=160",
    "threads=1",
)
"""Dropout, averaged weights, momentum, a schedule with a memory, augmentation, checkpoints within epochs."""


def start(folder: Path, pictures: bool, arguments: tuple[str, ...] = ARGUMENTS) -> Any:
    """Begin or continue the run in a process of its own, and return that."""
    return rig.start([*arguments, f"hydra.run.dir={folder}"], folder.parent, pictures=pictures)


def outcome(folder: Path) -> dict[str, Any]:
    """Everything that must not depend on whether a run was killed."""
    files = {}
    for path in sorted((folder / "checkpoints").rglob("*.safetensors")):
        files[str(path.relative_to(folder))] = path.read_bytes()
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    clocks = {"seconds", "train_seconds", "images_per_s"}
    result = json.loads((folder / "result.json").read_text())
    return {
        # Names of checkpoints within an epoch depend on the clock; those of the last epoch's end and the best do not.
        "weights": {name: data for name, data in files.items() if "best" in name or name.startswith(_last(folder))},
        "rows": [{k: v for k, v in row.items() if k not in clocks} for row in rows],
        "predictions": (folder / "predictions.npz").read_bytes(),
        "metrics": result["metrics"],
        "best_epoch": result["best_epoch"],
    }


def _last(folder: Path) -> str:
    return f"checkpoints/{max(p.name for p in (folder / 'checkpoints').glob('step-*'))}"


def trial(folder: Path, seconds: float, pictures: bool) -> tuple[bool, int]:
    """Kill the run after so many seconds, then continue it to its end.

    Returns:
        Whether the kill struck while it ran, and the exit code of the continued run.
    """
    run = start(folder, pictures)
    run.join(seconds)
    run.kill()
    run.join()
    again = start(folder, pictures)
    again.join()
    return run.exitcode == -signal.SIGKILL, again.exitcode


def run_trials(work: Path, kills: int, seed: int, pictures: bool = True) -> list[str]:
    """Run undisturbed once, then once per kill. Without its pictures a run takes half the time.

    Returns:
        What differed, one line per trial that did.
    """
    chance = random.Random(seed)
    warm_up()
    start(work / "nothing", pictures, ("no=thing",)).join()  # until the server has imported everything
    began = time.perf_counter()
    whole = start(work / "whole", pictures)
    whole.join()
    whole_s = time.perf_counter() - began
    if whole.exitcode:
        return [f"the undisturbed run failed: {(work / 'err.txt').read_text()[-500:]}"]
    expected = outcome(work / "whole")
    wrong, number, done = [], 0, 0
    while done < kills:
        number += 1
        folder, moment = work / f"trial-{number}", chance.uniform(0.0, whole_s)
        struck, code = trial(folder, moment, pictures)
        if not struck:  # it was over before the kill came
            continue
        done += 1
        found = outcome(folder) if code == 0 else {}
        different = [key for key in expected if found.get(key) != expected[key]]
        print(f"kill {done} after {moment:.2f} of {whole_s:.2f} s: {different or 'same'}", flush=True)
        if different:
            wrong.append(f"kill {done} after {moment:.2f} s, exit code {code}: {', '.join(different)} differ")
    return wrong


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        wrong = run_trials(Path(work), given.kills, given.seed)
    print(f"{given.kills - len(wrong)} of {given.kills} killed runs ended bit for bit as the undisturbed one")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
