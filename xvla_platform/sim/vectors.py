"""State and action vectors in a robot's own units, from and to poses in its data frame."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

from xvla_platform.errors import XvlaError
from xvla_platform.sim.frames import Array
from xvla_platform.specs.embodiment import EmbodimentSpec
from xvla_platform.specs.fields import ActionFieldSpec, FieldSpec

METRES_PER_UNIT = {"m": 1.0, "cm": 0.01, "mm": 0.001}
ROTATION_NAMES: dict[str, tuple[str, ...]] = {
    "quaternion_xyzw": ("qx", "qy", "qz", "qw"),
    "quaternion_wxyz": ("qw", "qx", "qy", "qz"),
    "euler_xyz_extrinsic": ("roll", "pitch", "yaw"),
    "axis_angle": ("rx", "ry", "rz"),
    "rot6d_columns": ("r11", "r21", "r31", "r12", "r22", "r32"),
    "rot6d_interleaved": ("r11", "r12", "r21", "r22", "r31", "r32"),
    "matrix": ("r11", "r12", "r13", "r21", "r22", "r23", "r31", "r32", "r33"),
}


@dataclass(frozen=True)
class ArmRows:
    """Samples of one arm in its data frame: ``positions`` (N, 3) m, ``rotations`` (N, 3, 3), ``openings`` (N,) with 1
    open and 0 closed, ``joints`` (N, J) rad."""

    positions: Array
    rotations: Array
    openings: Array
    joints: Array


@dataclass(frozen=True)
class ArmCommand:
    """One arm's part of an action: joints (J,) rad, or a pose (3,) m, (3, 3) in its data frame; ``opening`` 0..1."""

    opening: float
    joints: Array | None = None
    position: Array | None = None
    rotation: Array | None = None


def check_supported(spec: EmbodimentSpec, arms: Sequence[str], file: str) -> None:
    """XvlaError unless both vectors hold a gripper and a pose or joints for each arm, commanded absolutely."""
    for column, vector in (("proprio", spec.proprio), ("action", spec.action)):
        for arm in arms:
            kinds = sorted(field.kind for field in vector.fields if field.arm == arm and field.kind != "ignored")
            if kinds not in (["gripper", "position", "rotation"], ["gripper", "joint"]):
                raise XvlaError(
                    "an arm of a simulated robot records a position, a rotation and a gripper, or joints and a gripper",
                    file=file,
                    field=f"{column}.fields",
                    found=f"{arm}: {', '.join(kinds) or 'nothing'}",
                )
        for index, field in enumerate(vector.fields):
            wrong = field.kind == "ignored" or field.arm not in arms
            if wrong or (field.kind == "joint" and field.unit not in ("rad", "deg")):
                raise XvlaError(
                    "a simulated robot records nothing else, and joints in rad or deg",
                    file=file,
                    field=f"{column}.fields[{index}]",
                    found=f"{field.name} ({field.kind}, {field.arm}, {field.unit})",
                )
    for index, field in enumerate(spec.action.fields):
        if isinstance(field, ActionFieldSpec) and field.reference != "absolute":
            raise XvlaError(
                "a simulated robot takes absolute commands",
                file=file,
                field=f"action.fields[{index}].reference",
                found=field.reference,
                allowed="absolute",
            )


def dimension_names(fields: Sequence[FieldSpec]) -> list[str]:
    """One name per dimension of a vector, in order; with two arms, the arm's name goes before."""
    names: list[str] = []
    both = len({field.arm for field in fields}) > 1
    for field in fields:
        if field.kind == "position":
            own = ["x", "y", "z"]
        elif field.kind == "rotation":
            own = list(ROTATION_NAMES[str(field.format)])
        elif field.kind == "joint":
            own = [f"joint_{i + 1}" for i in range(field.size)]
        else:
            own = ["gripper"] if both else [field.name]
        names += [f"{field.arm}_{name}" for name in own] if both else own
    return names


def encode(fields: Sequence[FieldSpec], arms: Mapping[str, ArmRows]) -> Array:
    """Write samples in a robot's own units, (N, D).

    Quaternions start with w >= 0 and keep their sign continuous along N.
    """
    columns = []
    for field in fields:
        arm = arms[field.arm]
        if field.kind == "position":
            columns.append(arm.positions / METRES_PER_UNIT[str(field.unit)])
        elif field.kind == "rotation":
            columns.append(_encode_rotation(field, arm.rotations))
        elif field.kind == "joint":
            columns.append(np.rad2deg(arm.joints) if field.unit == "deg" else arm.joints)
        else:
            closed, opened = gripper_range(field)
            columns.append((closed + arm.openings * (opened - closed))[:, None])
    return np.concatenate(columns, axis=1)


def decode(fields: Sequence[FieldSpec], vector: Array) -> dict[str, ArmCommand]:
    """Inverse of :func:`encode` for one vector (D,), by arm."""
    size = sum(field.size for field in fields)
    if np.shape(vector) != (size,) or not np.isfinite(vector).all():
        raise XvlaError("an action is one finite row", field="action", found=list(np.shape(vector)), allowed=[size])
    parts: dict[str, dict[str, Any]] = {}
    start = 0
    for field in fields:
        part = np.asarray(vector[start : start + field.size], dtype=np.float64)
        start += field.size
        own = parts.setdefault(field.arm, {})
        if field.kind == "position":
            own["position"] = part * METRES_PER_UNIT[str(field.unit)]
        elif field.kind == "rotation":
            own["rotation"] = _decode_rotation(field, part)
        elif field.kind == "joint":
            own["joints"] = np.deg2rad(part) if field.unit == "deg" else part
        else:
            closed, opened = gripper_range(field)
            own["opening"] = float((part[0] - closed) / (opened - closed))
    return {arm: ArmCommand(**own) for arm, own in parts.items()}


def gripper_range(field: FieldSpec) -> tuple[float, float]:
    """Recorded values (closed, open) of a gripper field."""
    if field.closed is None or field.open is None:
        raise XvlaError("a gripper needs the recorded values `open` and `closed`", field=field.name)
    return field.closed, field.open


def _encode_rotation(field: FieldSpec, rotations: Array) -> Array:
    if field.format == "matrix":
        return rotations.reshape(-1, 9)
    if field.format == "rot6d_columns":
        return np.concatenate([rotations[:, :, 0], rotations[:, :, 1]], axis=1)
    if field.format == "rot6d_interleaved":
        return rotations[:, :, :2].reshape(-1, 6)
    turns = Rotation.from_matrix(rotations)
    if field.format == "euler_xyz_extrinsic":
        return np.asarray(turns.as_euler("xyz", degrees=field.unit == "deg"))
    if field.format == "axis_angle":
        return np.asarray(turns.as_rotvec(degrees=field.unit == "deg"))
    xyzw = np.asarray(turns.as_quat())
    # q and -q are one rotation: without this a recorded quaternion could jump within an episode.
    flips = np.where(np.sum(xyzw[1:] * xyzw[:-1], axis=1) < 0, -1.0, 1.0)
    first = -1.0 if xyzw[0, 3] < 0 else 1.0
    xyzw = xyzw * np.cumprod(np.concatenate([[first], flips]))[:, None]
    return xyzw if field.format == "quaternion_xyzw" else xyzw[:, [3, 0, 1, 2]]


def _decode_rotation(field: FieldSpec, part: Array) -> Array:
    degrees = field.unit == "deg"
    if field.format == "euler_xyz_extrinsic":
        return np.asarray(Rotation.from_euler("xyz", part, degrees=degrees).as_matrix())
    if field.format == "axis_angle":
        return np.asarray(Rotation.from_rotvec(part, degrees=degrees).as_matrix())
    if field.format in ("quaternion_xyzw", "quaternion_wxyz"):
        xyzw = part if field.format == "quaternion_xyzw" else part[[1, 2, 3, 0]]
        if np.linalg.norm(xyzw) < 1e-6:
            raise XvlaError("a quaternion of length 0 is no rotation", field=field.name)
        return np.asarray(Rotation.from_quat(xyzw).as_matrix())
    if field.format == "matrix":
        pair = part.reshape(3, 3)[:, :2]
    elif field.format == "rot6d_columns":
        pair = part.reshape(2, 3).T
    else:
        pair = part.reshape(3, 2)
    x = pair[:, 0] / np.linalg.norm(pair[:, 0])
    y = pair[:, 1] - (x @ pair[:, 1]) * x
    y = y / np.linalg.norm(y)
    return np.stack([x, y, np.cross(x, y)], axis=1)
