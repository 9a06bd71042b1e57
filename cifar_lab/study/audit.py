"""Whether each variant of a study changes one thing: in its settings, and in what follows from them.

A variant that changes two things answers no question about either. A first kernel of 7x7 without padding also
shrinks the map that the head sees; a batch of 4 also makes eight times the steps.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cifar_lab.differing import differing, words

CONFOUNDING = {
    "head_inputs": "inputs of the head",
    "steps_per_epoch": "steps per epoch",
    "train_images": "training images",
}
"""Facts that change what a comparison means, and what they are called."""
EXPECTED = {"num_params": "parameters", "macs": "multiply-adds"}
"""Facts that change with most variants of a model."""


@dataclass(frozen=True)
class Change:
    """What a variant changes against the baseline.

    Args:
        variant: Its name.
        settings: Settings in which it differs, with both values.
        confounding: Facts that changed with them and that make a second explanation.
        expected: Other facts that changed.
    """

    variant: str
    settings: dict[str, tuple[Any, Any]]
    confounding: dict[str, tuple[Any, Any]]
    expected: dict[str, tuple[Any, Any]]

    @property
    def is_one_factor(self) -> bool:
        """Whether a difference in the result has one explanation."""
        return len(self.settings) <= 1 and not self.confounding

    def text(self) -> str:
        """``num_convs null -> 3; parameters 18,422 -> 20,274``, and what makes it more than one change."""
        settings = [f"{words({key: old})} -> {words({key: new}).partition('=')[2]}" for key, (old, new) in self.settings.items()]
        facts = [_fact(key, old, new) for key, (old, new) in {**self.confounding, **self.expected}.items()]
        return "; ".join([", ".join(settings) or "no setting", *facts])

    def warning(self) -> str:
        """Why this variant changes more than one thing; empty when it does not."""
        if self.is_one_factor:
            return ""
        also = [_fact(key, old, new) for key, (old, new) in self.confounding.items()]
        many = [f"{len(self.settings)} settings ({', '.join(self.settings)})"] if len(self.settings) > 1 else []
        return f"{self.variant} changes more than one thing: {'; '.join([*many, *also])}"


def audit(
    baseline: str,
    settings: Mapping[str, Mapping[str, Any]],
    facts: Mapping[str, Mapping[str, Any]],
) -> list[Change]:
    """Compare every variant with the baseline.

    Args:
        baseline: Its name.
        settings: Of every variant: what decides what is computed, as dotted keys, without the seed.
        facts: Of every variant, as far as known: those of ``CONFOUNDING`` and ``EXPECTED``.
    """
    changes = []
    for variant, own in settings.items():
        if variant == baseline:
            continue
        old, new = differing([settings[baseline], own])
        known, ours = facts.get(baseline, {}), facts.get(variant, {})
        changes.append(
            Change(
                variant,
                {key: (old[key], new[key]) for key in old},
                _changed(known, ours, CONFOUNDING),
                _changed(known, ours, EXPECTED),
            )
        )
    return changes


def _changed(old: Mapping[str, Any], new: Mapping[str, Any], keys: Mapping[str, str]) -> dict[str, tuple[Any, Any]]:
    both = [key for key in keys if old.get(key) is not None and new.get(key) is not None]
    return {key: (old[key], new[key]) for key in both if old[key] != new[key]}


def _fact(key: str, old: float, new: float) -> str:
    title = {**CONFOUNDING, **EXPECTED}[key]
    if key == "macs":
        return f"{title} {old / 1e6:,.2f} M -> {new / 1e6:,.2f} M"
    return f"{title} {old:,} -> {new:,}"
