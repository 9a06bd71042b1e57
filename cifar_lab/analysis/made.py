"""What an analysis is handed, and what it hands back.

An analysis is a function ``(run, **options) -> Made`` and a row of ``ANALYSES``. Options are keywords with the program's names
(``layer``, ``image``, ``channel``); an analysis names those that it uses. It reads what the run saved, through ``Run``; what a
run lacks makes ``Run`` raise, and that analysis is left out with the reason.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from cifar_lab.analysis.figures import Layout
from cifar_lab.errors import LabError

if TYPE_CHECKING:
    from torch import Tensor, nn


class LeftOut(LabError):
    """An analysis does not apply to this run."""

    code, exit_code = "E-NOTHING", 4


class Run(Protocol):
    """A finished run, as analyses see it; ``cifar_lab.saved.SavedRun`` says what its members hold."""

    @property
    def name(self) -> str:
        """Model and data, for titles."""
        ...

    @property
    def result(self) -> dict[str, Any]:
        """Content of result.json."""
        ...

    @property
    def config(self) -> dict[str, Any]:
        """The resolved configuration."""
        ...

    @property
    def rows(self) -> list[dict[str, Any]]:
        """Rows of metrics.jsonl."""
        ...

    @property
    def class_names(self) -> tuple[str, ...]:
        """K names."""
        ...

    @property
    def has_logits(self) -> bool:
        """Whether logits were kept, not only predicted classes and confidences."""
        ...

    def logits(self, split: str) -> np.ndarray:
        """float32 [N, K] of ``val`` or ``test``."""
        ...

    def labels(self, split: str) -> np.ndarray:
        """int64 [N]."""
        ...

    def predicted(self, split: str) -> np.ndarray:
        """int64 [N]."""
        ...

    def confidence(self, split: str) -> np.ndarray:
        """float64 [N]."""
        ...

    def model(self) -> "nn.Module":
        """The tested network on the CPU, in evaluation mode."""
        ...

    def input_shape(self) -> tuple[int, int, int, int]:
        """What the model takes one of: [1, 3, H, W]."""
        ...

    def images(self) -> np.ndarray:
        """The test images, uint8 [N, 3, H, W]."""
        ...

    def image_ids(self) -> np.ndarray:
        """Their places in their source, int64 [N]."""
        ...

    def seen(self, position: int) -> "Tensor":
        """A test image as the model sees it: float32 [1, 3, H, W], resized and normalised as the run did."""
        ...


@dataclass(frozen=True)
class Made:
    """What came of an analysis.

    Attributes:
        numbers: Of plain types, as JSON holds them.
        pictures: File name without suffix -> layout.
        texts: File name -> content.
        lines: What is printed.
        left_out: Parts that could not be made, each with its reason.
    """

    numbers: dict[str, Any]
    pictures: Mapping[str, Layout] = field(default_factory=dict)
    texts: Mapping[str, str] = field(default_factory=dict)
    lines: tuple[str, ...] = ()
    left_out: Mapping[str, str] = field(default_factory=dict)
