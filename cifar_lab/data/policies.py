"""AutoAugment, RandAugment and TrivialAugment: what they may do to an image, and how they decide.

A policy is a list of steps (an operation with its magnitude, row 0 doing nothing) and a table of
which step each outcome of the dice stands for. The tables are torchvision's, so decisions have its
probabilities, and a step does to an image what torchvision's function does.

Reference:
    E. Cubuk et al., AutoAugment, arXiv:1805.09501; RandAugment, arXiv:1909.13719.
    S. Müller, F. Hutter, TrivialAugment, arXiv:2103.10158.
"""

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from cifar_lab.config import AugmentConfig
from cifar_lab.data import rng
from cifar_lab.data.geometry import inverse_map
from cifar_lab.data.steps import Kind, apply_step

_BINS = 31  # magnitudes of RandAugment and TrivialAugment

# Sub-policies found for CIFAR-10: two steps each, (operation, probability, magnitude of 0 to 9).
AUTOAUGMENT = (
    (("Invert", 0.1, None), ("Contrast", 0.2, 6)),
    (("Rotate", 0.7, 2), ("TranslateX", 0.3, 9)),
    (("Sharpness", 0.8, 1), ("Sharpness", 0.9, 3)),
    (("ShearY", 0.5, 8), ("TranslateY", 0.7, 9)),
    (("AutoContrast", 0.5, None), ("Equalize", 0.9, None)),
    (("ShearY", 0.2, 7), ("Posterize", 0.3, 7)),
    (("Color", 0.4, 3), ("Brightness", 0.6, 7)),
    (("Sharpness", 0.3, 9), ("Brightness", 0.7, 9)),
    (("Equalize", 0.6, None), ("Equalize", 0.5, None)),
    (("Contrast", 0.6, 7), ("Sharpness", 0.6, 5)),
    (("Color", 0.7, 7), ("TranslateX", 0.5, 8)),
    (("Equalize", 0.3, None), ("AutoContrast", 0.4, None)),
    (("TranslateY", 0.4, 3), ("Sharpness", 0.2, 6)),
    (("Brightness", 0.9, 6), ("Color", 0.2, 8)),
    (("Solarize", 0.5, 2), ("Invert", 0.0, None)),
    (("Equalize", 0.2, None), ("AutoContrast", 0.6, None)),
    (("Equalize", 0.2, None), ("Equalize", 0.6, None)),
    (("Color", 0.9, 9), ("Equalize", 0.6, None)),
    (("AutoContrast", 0.8, None), ("Solarize", 0.2, 8)),
    (("Brightness", 0.1, 3), ("Color", 0.7, 0)),
    (("Solarize", 0.4, 5), ("AutoContrast", 0.9, None)),
    (("TranslateY", 0.9, 9), ("TranslateY", 0.7, 9)),
    (("AutoContrast", 0.9, None), ("Solarize", 0.8, 3)),
    (("Equalize", 0.8, None), ("Invert", 0.1, None)),
    (("TranslateY", 0.7, 9), ("AutoContrast", 0.9, None)),
)

# What RandAugment and TrivialAugment choose from, each as likely.
OPERATIONS = (
    *("Identity", "ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate", "Brightness", "Color", "Contrast", "Sharpness"),
    *("Posterize", "Solarize", "AutoContrast", "Equalize"),
)
SIGNED = frozenset(OPERATIONS[1:10])  # their magnitude is negated for every second image

_KINDS = {
    **dict.fromkeys(("ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate"), Kind.AFFINE),
    "Identity": Kind.IDENTITY,
    "Brightness": Kind.BRIGHTNESS,
    "Color": Kind.SATURATION,
    "Contrast": Kind.CONTRAST,
    "Sharpness": Kind.SHARPNESS,
    "Posterize": Kind.POSTERIZE,
    "Solarize": Kind.SOLARIZE,
    "AutoContrast": Kind.AUTOCONTRAST,
    "Equalize": Kind.EQUALIZE,
    "Invert": Kind.INVERT,
}


@dataclass(frozen=True)
class Policy:
    """Steps, and how one is drawn for each image and slot; a slot is one operation after the other.

    Args:
        steps: (operation, magnitude); the first is ("Identity", 0.0).
        kinds: int64 [S] of the steps, values of ``Kind``.
        parameters: float32 [S, 6] of the steps, see ``steps.OPERATIONS``.
        outcomes: One int64 [A, L, 2] for each slot: the step for each choice, level and sign (1: negative).
        chances: float32 [A] for each slot, the probability that it happens at all; empty: always.
        is_shared: One choice stands for all slots, as with sub-policies.
    """

    steps: tuple[tuple[str, float], ...]
    kinds: Tensor
    parameters: Tensor
    outcomes: tuple[Tensor, ...]
    chances: tuple[Tensor, ...]
    is_shared: bool

    @cached_property
    def possible(self) -> tuple[Kind, ...]:
        """Every kind among the steps."""
        return tuple(sorted({_KINDS[name] for name, _ in self.steps}))

    def draw(self, *, seed: int, epoch: int, ids: Tensor) -> Tensor:
        """The step of each image in each slot: int64 [N, slots], a function of (seed, epoch, id) alone."""
        return torch.stack([self._draw_slot(slot, seed, epoch, ids) for slot in range(len(self.outcomes))], dim=1)

    def apply(self, images: Tensor, steps: Tensor) -> Tensor:
        """Do the drawn steps, slot after slot.

        Args:
            images: uint8 [B, P, H, W, c]; not written to.
            steps: int64 [B, slots], of ``draw``.
        """
        for step in steps.unbind(1):
            kinds, parameters = self.kinds.index_select(0, step), self.parameters.index_select(0, step)
            images = apply_step(images, kinds, parameters, self.possible)
        return images

    def _draw_slot(self, slot: int, seed: int, epoch: int, ids: Tensor) -> Tensor:
        outcomes = self.outcomes[slot]
        choices, levels, _ = outcomes.shape
        choice = rng.randint(seed, epoch, ids, rng.Draw.POLICY_CHOICE + (0 if self.is_shared else slot), choices)
        place = choice * levels
        if levels > 1:
            place += rng.randint(seed, epoch, ids, rng.Draw.POLICY_LEVEL + slot, levels)
        is_negative = rng.uniform(seed, epoch, ids, rng.Draw.POLICY_SIGN + slot) < 0.5
        step = outcomes.view(-1).index_select(0, place * 2 + is_negative)
        if self.chances:
            happens = rng.uniform(seed, epoch, ids, rng.Draw.POLICY_CHANCE + slot) < self.chances[slot].index_select(0, choice)
            step *= happens  # row 0 does nothing
        return step


def build_policy(config: AugmentConfig, height: int, width: int, device: torch.device) -> Policy | None:
    """The policy that ``augment.policy`` names, for images of this size; None for none."""
    if config.policy == "none":
        return None
    numbers: dict[tuple[str, float], int] = {("Identity", 0.0): 0}

    def both_signs(name: str, magnitude: float) -> list[int]:
        negative = -magnitude if name in SIGNED else magnitude
        return [numbers.setdefault((name, value), len(numbers)) for value in (magnitude, negative)]

    chances: list[list[float]] = []
    if config.policy == "autoaugment":
        slots = [
            [[both_signs(n, _magnitudes(n, 10, height, width)[m or 0])] for n, _, m in slot]
            for slot in zip(*AUTOAUGMENT, strict=True)
        ]
        chances = [[chance for _, chance, _ in slot] for slot in zip(*AUTOAUGMENT, strict=True)]
    elif config.policy == "randaugment":
        level = config.randaugment_magnitude
        slots = [[[both_signs(n, _magnitudes(n, _BINS, height, width)[level])] for n in OPERATIONS]] * config.randaugment_ops
    else:
        slots = [[[both_signs(n, m) for m in _magnitudes(n, _BINS, height, width, wide=True)] for n in OPERATIONS]]
    steps = tuple(numbers)
    return Policy(
        steps,
        torch.tensor([_KINDS[name] for name, _ in steps], device=device),
        torch.tensor([_parameters(*step, height, width) for step in steps], device=device),
        tuple(torch.tensor(slot, device=device) for slot in slots),
        tuple(torch.tensor(chance, device=device) for chance in chances),
        is_shared=config.policy == "autoaugment",
    )


def _magnitudes(name: str, bins: int, height: int, width: int, *, wide: bool = False) -> list[float]:
    """What the levels 0 to ``bins`` - 1 mean; ``wide`` is TrivialAugment's space."""
    if name == "Posterize":
        dropped = 6 if wide else 4
        return (8 - torch.arange(bins) / ((bins - 1) / dropped)).round().tolist()
    if name == "Solarize":
        return torch.linspace(1.0, 0.0, bins).tolist()
    if name not in SIGNED:
        return [0.0] * bins
    share = 150.0 / 331.0
    largest = {
        **dict.fromkeys(("ShearX", "ShearY"), 0.99 if wide else 0.3),
        "TranslateX": 32.0 if wide else share * width,
        "TranslateY": 32.0 if wide else share * height,
        "Rotate": 135.0 if wide else 30.0,
    }
    return torch.linspace(0.0, largest.get(name, 0.99 if wide else 0.9), bins).tolist()


def _parameters(name: str, magnitude: float, height: int, width: int) -> tuple[float, ...]:
    """Six numbers, see ``steps.OPERATIONS``."""
    slant = math.degrees(math.atan(magnitude))
    corner = (-0.5 * width, -0.5 * height)  # a shear leaves the top left corner in place
    if name == "ShearX":
        return inverse_map(height, width, shear=(slant, 0.0), center=corner)
    if name == "ShearY":
        return inverse_map(height, width, shear=(0.0, slant), center=corner)
    if name == "TranslateX":
        return inverse_map(height, width, translate=(int(magnitude), 0.0))
    if name == "TranslateY":
        return inverse_map(height, width, translate=(0.0, int(magnitude)))
    if name == "Rotate":
        return inverse_map(height, width, angle=-(magnitude % 360))
    strength = {"Posterize": 2.0 ** (8 - magnitude), "Solarize": 255.0 * magnitude}.get(name, magnitude)
    return (strength, *(0.0,) * 5)
