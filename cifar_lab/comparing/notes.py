"""What a reader must know before believing a comparison."""

from collections.abc import Sequence

from cifar_lab.comparing.entries import Entry
from cifar_lab.comparing.pairs import Pair
from cifar_lab.comparing.tables import machine


def notes_on(entries: Sequence[Entry], pairs: Sequence[Pair]) -> list[str]:
    """In what the runs differ beside their settings, and what tests of one run's answers cannot say.

    Args:
        entries: What is compared.
        pairs: Two at a time; none where the answers are not compared.
    """
    runs = [run for entry in entries for run in entry.runs]
    notes = []
    if not pairs:
        notes.append("answers were not compared image by image (--unpaired): differences of accuracy are without a test")
    machines = set().union(*(machine(entry) for entry in entries))
    if len(machines) > 1:
        parts = "; ".join(f"{name}, {threads} threads, {precision}" for _, name, threads, precision in sorted(machines, key=str))
        notes.append(f"times and memory are of different machines or settings ({parts}): no word on the fastest")
    if shared := [entry.label for entry in entries if entry.is_shared]:
        names = ", ".join(shared)
        notes.append(
            f"times and memory (*) of {names} were measured beside other runs on the same device: no word on the fastest"
        )
    versions = {run.result["environment"].get("packages", {}).get("torch") for run in runs}
    if len(versions) > 1:
        notes.append(f"different versions of torch: {', '.join(sorted(map(str, versions)))}")
    if len({run.result["digests"]["code"] for run in runs}) > 1:
        notes.append("the code changed between the runs (code digests differ)")
    if len({run.result["digests"]["data"] for run in runs}) > 1:
        notes.append(
            "trained and validated on different images (data digests differ): validation curves are not of the same ones"
        )
    for text in dict.fromkeys(note for run in runs for note in run.result["data"].get("notes") or ()):
        notes.append(f"data: {text}")
    for entry in entries:
        if len(set(entry.seeds)) < len(entry.seeds):
            notes.append(f"{entry.label} has repeats of one seed (seeds {', '.join(map(str, entry.seeds))}): n counts runs")
    if pairs:
        over = " (the mean over shared seeds)" if any(pair.mean_interval for pair in pairs) else ""
        notes.append(
            f"the tests speak of these trained models; whether one recipe beats another takes several seeds of each{over}"
        )
    return notes
