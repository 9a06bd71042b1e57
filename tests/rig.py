"""What test files share and name: the smallest run, and what a command ended with."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

SMOKE = ("experiment=quickstart", "train=smoke", "data.subset=60", "threads=1")
"""Two epochs on 60 digits: the smallest run that does everything."""


@dataclass
class Said:
    """What a command ended with and printed."""

    code: int
    out: str
    err: str


Lab = Callable[..., Said]
