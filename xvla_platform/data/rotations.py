"""Rotations between every recorded format and the canonical form, a 3x3 matrix (scipy's conventions).

Both published 6D layouts exist side by side and are never guessed: `rot6d_columns` is the first two columns
one after the other (identity 1 0 0 0 1 0), `rot6d_interleaved` the same two columns row by row (identity
1 0 0 1 0 0). Six numbers are read with the Gram-Schmidt process (Zhou et al., arXiv 1812.07035, section 4).
Euler angles stand in the order of the letters in the format's name, the first turn first.
"""

import warnings
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

from xvla_platform.data.reader import FloatArray
from xvla_platform.errors import XvlaError
from xvla_platform.specs.fields import ANGLE_FORMATS, EULER_FORMATS, ROTATION_SIZE

DEGENERATE = 1e-6  # below this length a quaternion or a 6D column gives no direction
NOT_ORTHONORMAL = 0.05  # largest entry of R^T R - I that is still rounding, and not another format


def to_matrix(values: FloatArray, format: str, unit: str | None = None, *, strict: bool = True) -> FloatArray:
    """Rotation matrices of recorded numbers.

    Args:
        values: [..., n] in `format`.
        unit: `rad` or `deg` for Euler angles and axis-angle vectors, None for the rest.
        strict: Refuse numbers that are no rotation; otherwise they become the identity, which suits only the
            measurement of a model's error.

    Returns:
        [..., 3, 3], acting on column vectors.
    """
    values = np.asarray(values, dtype=np.float64)
    size = _size(format)
    if values.shape[-1:] != (size,):
        raise XvlaError(f"rotation format {format} has {size} numbers", found=str(values.shape[-1:]))
    flat = values.reshape(-1, size)
    if not len(flat):
        return np.zeros((*values.shape[:-1], 3, 3))
    matrices, bad = _parse(flat, format, unit)
    if bad.any():
        if strict:
            row = int(np.flatnonzero(bad)[0])
            raise XvlaError(f"is not a rotation in format {format} (row {row})", found=np.round(flat[row], 6).tolist())
        matrices[bad] = np.eye(3)
    return matrices.reshape(*values.shape[:-1], 3, 3)


def from_matrix(matrix: FloatArray, format: str, unit: str | None = None) -> FloatArray:
    """Numbers [..., n] in `format` and `unit` of rotation matrices [..., 3, 3]; quaternions have w >= 0."""
    matrix = np.asarray(matrix, dtype=np.float64)
    size, shape = _size(format), matrix.shape[:-2]
    flat = matrix.reshape(-1, 3, 3)
    if not len(flat):
        return np.zeros((*shape, size))
    if format == "matrix":
        out = flat.reshape(-1, 9)
    elif format == "rot6d_columns":
        out = flat[:, :, :2].transpose(0, 2, 1).reshape(-1, 6)
    elif format == "rot6d_interleaved":
        out = flat[:, :, :2].reshape(-1, 6)
    else:
        rotation, degrees = Rotation.from_matrix(flat), _is_degrees(format, unit)
        if format == "axis_angle":
            out = rotation.as_rotvec(degrees=degrees)
        elif format in EULER_FORMATS:
            with warnings.catch_warnings():  # in gimbal lock one angle is set to zero, which is one right answer
                warnings.simplefilter("ignore", UserWarning)
                out = rotation.as_euler(_axes(format), degrees=degrees)
        else:
            out = rotation.as_quat(canonical=True)
            if format == "quaternion_wxyz":
                out = np.roll(out, 1, axis=-1)
    return np.array(out, dtype=np.float64).reshape(*shape, size)


def interpolate(matrices: FloatArray, left: np.ndarray, right: np.ndarray, share: FloatArray) -> FloatArray:
    """The rotation a `share` [M] of the way from `matrices[left]` to `matrices[right]`; [M, 3, 3]."""
    start = Rotation.from_matrix(matrices[left])
    arc = (start.inv() * Rotation.from_matrix(matrices[right])).as_rotvec()
    moved: FloatArray = (start * Rotation.from_rotvec(arc * share[:, None])).as_matrix()
    return moved


def geodesic_deg(a: FloatArray, b: FloatArray) -> FloatArray:
    """Angle in degrees, 0 to 180, between rotations [..., 3, 3]; accurate at both ends."""
    between = np.swapaxes(a, -1, -2) @ b
    skew = np.stack(
        [
            between[..., 2, 1] - between[..., 1, 2],
            between[..., 0, 2] - between[..., 2, 0],
            between[..., 1, 0] - between[..., 0, 1],
        ],
        axis=-1,
    )
    cosine = np.trace(between, axis1=-2, axis2=-1) - 1.0
    angle: FloatArray = np.degrees(np.arctan2(np.linalg.norm(skew, axis=-1), cosine))
    return angle


def _parse(flat: FloatArray, format: str, unit: str | None) -> tuple[FloatArray, np.ndarray]:
    """Matrices [N, 3, 3] of rows [N, n], and which rows [N] are no rotation (with undefined matrices)."""
    bad: np.ndarray = np.asarray(~np.isfinite(flat).all(axis=-1))
    if format in ANGLE_FORMATS:
        angles, degrees = np.where(bad[:, None], 0.0, flat), _is_degrees(format, unit)
        if format == "axis_angle":
            return Rotation.from_rotvec(angles, degrees=degrees).as_matrix(), bad
        return Rotation.from_euler(_axes(format), angles, degrees=degrees).as_matrix(), bad
    if format in ("quaternion_xyzw", "quaternion_wxyz"):
        quaternions = np.roll(flat, -1, axis=-1) if format == "quaternion_wxyz" else flat
        bad = bad | ~(np.linalg.norm(flat, axis=-1) > DEGENERATE)
        return Rotation.from_quat(np.where(bad[:, None], [0.0, 0.0, 0.0, 1.0], quaternions)).as_matrix(), bad
    if format == "matrix":
        matrices = flat.reshape(-1, 3, 3)
        with np.errstate(invalid="ignore", over="ignore"):
            residual = np.abs(np.swapaxes(matrices, -1, -2) @ matrices - np.eye(3)).max(axis=(-1, -2))
            bad = bad | ~(residual < NOT_ORTHONORMAL)
            bad = bad | ~(np.linalg.det(np.where(bad[:, None, None], np.eye(3), matrices)) > 0)
        return Rotation.from_matrix(np.where(bad[:, None, None], np.eye(3), matrices)).as_matrix(), bad
    if format == "rot6d_columns":
        return _gram_schmidt(flat[:, :3], flat[:, 3:], bad)
    return _gram_schmidt(flat[:, 0::2], flat[:, 1::2], bad)


def _gram_schmidt(first: FloatArray, second: FloatArray, bad: np.ndarray) -> tuple[FloatArray, np.ndarray]:
    first, second = np.where(bad[:, None], 0.0, first), np.where(bad[:, None], 0.0, second)
    length = np.linalg.norm(first, axis=-1, keepdims=True)
    x = first / np.maximum(length, DEGENERATE)
    rest = second - (x * second).sum(axis=-1, keepdims=True) * x
    rest_length = np.linalg.norm(rest, axis=-1, keepdims=True)
    y = rest / np.maximum(rest_length, DEGENERATE)
    bad = bad | (length[:, 0] <= DEGENERATE) | (rest_length[:, 0] <= DEGENERATE)
    return np.stack([x, y, np.cross(x, y)], axis=-1), bad


def _size(format: str) -> int:
    if format not in ROTATION_SIZE:
        raise XvlaError("unknown rotation format", field="format", found=format, allowed=ROTATION_SIZE)
    return ROTATION_SIZE[format]


def _axes(format: str) -> Any:
    """scipy's name of an Euler format: small letters turn about fixed axes, capitals about the turned ones."""
    _, order, sense = format.split("_")
    return order if sense == "extrinsic" else order.upper()


def _is_degrees(format: str, unit: str | None) -> bool:
    if format in ANGLE_FORMATS and unit not in ("rad", "deg"):
        raise XvlaError(f"rotation format {format} needs a unit", field="unit", found=unit, allowed="rad, deg")
    return unit == "deg"
