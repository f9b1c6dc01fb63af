"""What the names of a column's numbers say about single numbers: `qw`, `roll`, `x`, `gripper`.

Only names that mean one thing are read; a name that could mean two says nothing here.
"""

import re
from collections.abc import Sequence
from typing import Any

_PART = r"(?:^|[._\-/ ])"
QUATERNION = re.compile(_PART + r"(?:q_?|quat(?:ernion)?_)([xyzw])$")
ROLL_PITCH_YAW = re.compile(_PART + r"(?:d_?|delta_)?(roll|pitch|yaw)(?:_rad|_deg)?$")
ROTATION_VECTOR = re.compile(_PART + r"(?:rot_?vec|axis_?angle|aa)_?([xyz])$")
POSITION = re.compile(_PART + r"(?:d_?|delta_)?([xyz])(?:_m|_mm|_cm)?$")
GRIPPER = re.compile(_PART + r"(?:gripper|jaw|claw)(?:$|[._])")
AXES = {"roll": "x", "pitch": "y", "yaw": "z"}
MOTOR = re.compile(r"wrist|shoulder|elbow|forearm|waist|joint|motor")


def number_names(names: Any, size: int) -> tuple[str, ...] | None:
    """The names of a column's `size` numbers as a flat tuple; None where the dataset gives none, or not one each."""
    if isinstance(names, dict) and len(names) == 1:
        names = next(iter(names.values()))
    if isinstance(names, (list, tuple)) and len(names) == 1 and isinstance(names[0], (list, tuple)):
        names = names[0]
    if not isinstance(names, (list, tuple)) or len(names) != size:
        return None
    return tuple(str(name).lower() for name in names)


def quaternion_format(names: Sequence[str]) -> str | None:
    """`quaternion_xyzw` or `quaternion_wxyz` of four names that spell it out."""
    found = [QUATERNION.search(name) for name in names]
    order = "".join(match.group(1) for match in found if match)
    return f"quaternion_{order}" if order in ("xyzw", "wxyz") and len(names) == 4 else None


def euler_axes(names: Sequence[str]) -> str | None:
    """`xyz` for roll, pitch, yaw in this order: the axis that each of three angles turns about."""
    found = [ROLL_PITCH_YAW.search(name) for name in names]
    if len(names) != 3 or not all(found) or any(MOTOR.search(name) for name in names):
        return None
    axes = "".join(AXES[match.group(1)] for match in found if match)
    return axes if sorted(axes) == ["x", "y", "z"] else None


def is_rotation_vector(names: Sequence[str]) -> bool:
    """Whether three names spell out a rotation vector."""
    return len(names) == 3 and all(ROTATION_VECTOR.search(name) for name in names)


def kind_of(name: str) -> str | None:
    """`position`, `rotation` or `gripper` where the name of one number leaves no doubt."""
    if MOTOR.search(name):
        return None
    if QUATERNION.search(name) or ROLL_PITCH_YAW.search(name) or ROTATION_VECTOR.search(name):
        return "rotation"
    if GRIPPER.search(name):
        return "gripper"
    return "position" if POSITION.search(name) else None
