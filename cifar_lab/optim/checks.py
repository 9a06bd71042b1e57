"""The one wording for a keyword out of range."""

import math


def require(ok: bool, key: str, value: object, allowed: str) -> None:
    """Refuse a builder's keyword.

    Raises:
        ValueError: ``key=value; must be allowed``, unless ``ok``.
    """
    if not ok:
        raise ValueError(f"{key}={value}; must be {allowed}")


def require_not_negative(**values: float) -> None:
    """Refuse numbers that are negative, infinite or not a number."""
    for key, value in values.items():
        require(math.isfinite(value) and value >= 0, key, value, "a finite number, 0 or more")


def require_share(**values: float) -> None:
    """Refuse numbers outside 0 to 1 (both ends allowed)."""
    for key, value in values.items():
        require(0.0 <= value <= 1.0, key, value, "0 to 1")
