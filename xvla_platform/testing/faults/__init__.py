"""Every kind of mistake that can be planted in a clean dataset and its declaration."""

from xvla_platform.testing.faults import actions, cameras, columns, episodes, grippers, rotations, timing, units
from xvla_platform.testing.faults.fault import CannotBePlantedError, Fault

FAULTS: tuple[Fault, ...] = (
    *units.FAULTS,
    *columns.FAULTS,
    *rotations.FAULTS,
    *actions.FAULTS,
    *grippers.FAULTS,
    *timing.FAULTS,
    *cameras.FAULTS,
    *episodes.FAULTS,
)

__all__ = ["FAULTS", "CannotBePlantedError", "Fault"]
