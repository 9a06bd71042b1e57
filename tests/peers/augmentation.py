"""How fast is batched AutoAugment of cifar-lab beside torchvision's, image by image? All in one process, taking turns.

Torchvision's transform is what its reference recipes use, one call per image, once on PIL images and once on
uint8 tensors (called on a batch it would give all images the same draw). Ours draws for every image and works on
all of a chunk, with the chunk that a training run has on this device.

A timed repetition takes the same images of CIFAR-10 from bytes to bytes, decisions included. Not included, on either
side: reading the data set, conversion to PIL or to tensors before, normalisation after. Before anything is timed,
both sides make the same decisions for some images and must make the same pictures.
"""

import argparse
import statistics
import sys
from collections.abc import Callable, Sequence
from typing import Any

import torch
from peer_rig import cifar10, environment, parse_with_data, parser_for, seconds, versions, wide_console, write_times
from rich.table import Table
from torch import Tensor
from torchvision.transforms import v2

from cifar_lab import runtime
from cifar_lab.config import AugmentConfig
from cifar_lab.data.batches import Batches
from cifar_lab.data.policies import Policy, build_policy
from cifar_lab.data.sets import ImageSet

EXAMPLES = """examples:
  python tests/peers/augmentation.py --data ~/cifar10
  python tests/peers/augmentation.py --data ~/cifar10 --policies autoaugment --repeats 9 --out result.json
"""
PEERS: dict[str, Callable[[], Any]] = {
    "autoaugment": lambda: v2.AutoAugment(v2.AutoAugmentPolicy.CIFAR10),
    "randaugment": v2.RandAugment,
    "trivialaugment": v2.TrivialAugmentWide,
}
CHECKED = 200  # images on which both sides must agree
TOLERATED = 0.001  # share of bytes that may differ: points between two pixels


class Ours:
    """One side: a policy on chunks, as ``Batches`` calls it."""

    def __init__(self, name: str, images: ImageSet):
        config = AugmentConfig(policy=name)
        policy = build_policy(config, *images.images.shape[2:], torch.device("cpu"))
        assert policy is not None
        self.policy: Policy = policy
        self.ids = images.ids
        self.images = images.images.permute(0, 2, 3, 1).contiguous().unsqueeze(1)
        self.chunk = Batches(images, batch_size=128, mean=(0.5,) * 3, std=(0.5,) * 3, augment=config)._chunk
        self.epoch = 0

    def run(self) -> None:
        self.epoch += 1
        steps = self.policy.draw(seed=0, epoch=self.epoch, ids=self.ids)
        for images, chosen in zip(self.images.split(self.chunk), steps.split(self.chunk), strict=True):
            self.policy.apply(images, chosen)


def check_same_pictures(ours: Ours, peer: Any, tensors: Sequence[Tensor]) -> float:
    """Share of bytes that differ when both sides are handed the same decisions.

    Raises:
        RuntimeError: If it is more than rounding: then the comparison would mean nothing.
    """
    steps = ours.policy.draw(seed=0, epoch=0, ids=ours.ids)[:CHECKED]
    made = ours.policy.apply(ours.images[:CHECKED], steps).squeeze(1).permute(0, 3, 1, 2)
    expected = []
    for image, chosen in zip(tensors[:CHECKED], steps.tolist(), strict=True):
        for step in chosen:
            operation, magnitude = ours.policy.steps[step]
            image = peer._apply_image_or_video_transform(
                image, operation, magnitude, interpolation=peer.interpolation, fill=peer._fill
            )
        expected.append(image)
    differ = (made != torch.stack(expected)).float().mean().item()
    if differ > TOLERATED:
        raise RuntimeError(f"the two sides do not do the same: {100 * differ:.2f} % of the bytes differ")
    return differ


def compare(name: str, images: ImageSet, repeats: int) -> dict[str, Any]:
    """Time the three sides in turns."""
    torch.manual_seed(0)
    ours, peer, tensors = Ours(name, images), PEERS[name](), list(images.images)
    pil = [v2.functional.to_pil_image(image) for image in tensors]
    differ = check_same_pictures(ours, peer, tensors)
    sides: dict[str, Callable[[], object]] = {
        "cifar-lab": ours.run,
        "torchvision, PIL": lambda: [peer(image) for image in pil],
        "torchvision, tensors": lambda: [peer(image) for image in tensors],
    }
    for work in sides.values():
        work()
    times: dict[str, list[float]] = {side: [] for side in sides}
    for _ in range(repeats):
        for side, work in sides.items():
            times[side].append(seconds(work))
    medians = {side: statistics.median(values) for side, values in times.items()}
    others = [side for side in sides if side != "cifar-lab"]
    pairs = {side: [b / a for a, b in zip(times["cifar-lab"], times[side], strict=True)] for side in others}
    return {
        "images": len(images),
        "chunk": ours.chunk,
        "share_of_bytes_that_differ": differ,
        "seconds": times,
        "images_per_s": {side: len(images) / value for side, value in medians.items()},
        "ratio_of_medians": {side: medians[side] / medians["cifar-lab"] for side in others},
        "ratio_of_pairs": {side: {"min": min(values), "max": max(values)} for side, values in pairs.items()},
    }


def show(results: dict[str, dict[str, Any]], machine: dict[str, Any]) -> None:
    """Print one row per policy and side."""
    table = Table(title="images/s, median (least to most)")
    for column in ("policy", "side", "images/s", "times faster (of pairs)"):
        table.add_column(column, no_wrap=True)
    for name, result in results.items():
        for side, median in result["images_per_s"].items():
            rates = sorted(result["images"] / value for value in result["seconds"][side])
            ratio = ""
            if side in result["ratio_of_medians"]:
                pair = result["ratio_of_pairs"][side]
                ratio = f"{result['ratio_of_medians'][side]:.1f} ({pair['min']:.1f} to {pair['max']:.1f})"
            table.add_row(name, side, f"{median:,.0f} ({rates[0]:,.0f} to {rates[-1]:,.0f})", ratio)
    console = wide_console()
    console.print(table)
    for name, result in results.items():
        differ = 100 * result["share_of_bytes_that_differ"]
        console.print(
            f"{name}: {result['images']} images, chunks of {result['chunk']}; same decisions: {differ:.3f} % bytes differ"
        )
    console.print(f"{versions(machine)}, {machine['threads']} threads")


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = parser_for(__doc__, EXAMPLES)
    parser.add_argument("--policies", nargs="+", choices=PEERS, default=list(PEERS), help="default: all")
    parser.add_argument("--repeats", type=int, default=5, help="timed repetitions of each side (default 5)")
    parser.add_argument("--images", type=int, default=2048, help="images per repetition (default 2048)")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of all sides (default 1; 0: torch's choice)")
    chosen = parse_with_data(parser, arguments)
    if chosen.repeats < 1 or not 1 <= chosen.images <= 50_000:
        parser.error("--repeats must be 1 or more, --images 1 to 50000")
    return chosen


def main(arguments: Sequence[str] | None = None) -> int:
    chosen = parse(arguments)
    runtime.set_threads(chosen.threads)
    source = cifar10(chosen.data)
    images = source.train.take(torch.arange(chosen.images))
    results: dict[str, dict[str, Any]] = {}
    for name in chosen.policies:
        print(f"{name} ...", file=sys.stderr, flush=True)
        results[name] = compare(name, images, chosen.repeats)
    machine = environment()
    show(results, machine)
    write_times(chosen.out, machine, results)
    return 0


if __name__ == "__main__":
    sys.exit(main())
