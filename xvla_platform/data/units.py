"""Recorded units and their factor to SI: value in SI = recorded value * factor."""

from xvla_platform.errors import XvlaError

FACTORS: dict[str, float] = {
    "m": 1.0,
    "cm": 0.01,
    "mm": 0.001,
    "rad": 1.0,
    "deg": 3.141592653589793 / 180.0,
    # A gripper's stroke is defined by its recorded `open` and `closed` values, so these two need no length.
    "percent": 0.01,
    "normalized": 1.0,
}


def factor(unit: str | None) -> float:
    """Factor from `unit` to metres, radians or a plain share; 1 where a format has no unit."""
    if unit is None:
        return 1.0
    if unit not in FACTORS:
        raise XvlaError("unknown unit", field="unit", found=unit, allowed=FACTORS)
    return FACTORS[unit]
