"""Mistakes in rotations: another format than declared, or numbers that are no rotation."""

from typing import Literal

import numpy as np

from xvla_platform.data.reader import DatasetReader, FloatArray
from xvla_platform.specs.embodiment import EmbodimentSpec
from xvla_platform.testing.faults import codes
from xvla_platform.testing.faults.declare import Part, field_of, parts, redeclared
from xvla_platform.testing.faults.fault import Fault, Planted, chosen, generator
from xvla_platform.testing.faults.recode import decode, encode, with_rotations, with_tool_down
from xvla_platform.testing.faults.views import NumbersView, Vectors


def declared_as(
    reader: DatasetReader,
    spec: EmbodimentSpec,
    seed: int,
    recorded: str,
    declared: str,
    tool_down: bool = False,
    part: Part = "both",
) -> Planted:
    """Rotations recorded in one format and declared in another of the same size."""
    if tool_down:
        reader, spec = with_tool_down(reader, spec)
    unit = "rad" if recorded.startswith(("euler", "axis")) else None
    reader, spec = with_rotations(reader, spec, recorded, unit)
    return reader, redeclared(spec, "rotation", lambda _: {"format": declared}, part)


def transposed(
    reader: DatasetReader, spec: EmbodimentSpec, seed: int, part: Part, share: float = 1.0, format: str = "matrix"
) -> Planted:
    """Matrices written column by column, that is transposed, in a share of the episodes."""
    reader, spec = with_rotations(reader, spec, format)
    hit = chosen(reader, share, seed)

    def change(episode: int, vectors: Vectors) -> Vectors:
        for name in parts(part) if episode in hit else ():
            field, columns = field_of(spec, name, "rotation")
            turned = decode(vectors[name][:, columns], str(field.format), field.unit).inv()
            vectors[name][:, columns] = encode(turned, str(field.format), field.unit)
        return vectors

    return NumbersView(reader, spec, change), spec


def broken(
    reader: DatasetReader,
    spec: EmbodimentSpec,
    seed: int,
    format: str,
    how: Literal["scaled", "noisy", "mirrored", "zero"],
    size: float,
    share: float = 1.0,
) -> Planted:
    """Numbers that are no rotation: another length than one, columns that are not orthogonal, a mirror, zeros."""
    reader, spec = with_rotations(reader, spec, format)

    def change(episode: int, vectors: Vectors) -> Vectors:
        random = generator(seed, episode)
        for name in ("proprio", "action"):
            _, columns = field_of(spec, name, "rotation")
            values = vectors[name]
            rows = np.flatnonzero(random.random(len(values)) < share)
            values[rows, columns] = _break(values[rows, columns], how, size, random)
        return vectors

    return NumbersView(reader, spec, change), spec


def _break(values: FloatArray, how: str, size: float, random: np.random.Generator) -> FloatArray:
    if how == "noisy":
        return values + size * random.normal(size=values.shape)
    if how == "mirrored":
        return values * np.where(np.arange(values.shape[1]) % 3 == 2, -1.0, 1.0)
    return values * {"scaled": size, "zero": 0.0}[how]


FAULTS = (
    Fault(
        name="quaternion_order",
        about="the scalar of quaternions is declared first and recorded last, or the other way round",
        codes=codes.QUATERNION_ORDER,
        make=declared_as,
        strengths={
            "xyzw as wxyz": {"recorded": "quaternion_xyzw", "declared": "quaternion_wxyz"},
            "wxyz as xyzw": {"recorded": "quaternion_wxyz", "declared": "quaternion_xyzw"},
            "xyzw as wxyz, action": {"recorded": "quaternion_xyzw", "declared": "quaternion_wxyz", "part": "action"},
            "xyzw as wxyz, tool down": {
                "recorded": "quaternion_xyzw",
                "declared": "quaternion_wxyz",
                "tool_down": True,
            },
        },
    ),
    Fault(
        name="euler_order",
        about="Euler angles are declared in another order, or other kind of axes, than recorded",
        codes=codes.EULER_ORDER,
        make=declared_as,
        strengths={
            "middle angle beyond 90 degrees": {
                "recorded": "euler_xyz_extrinsic",
                "declared": "euler_yxz_extrinsic",
                "tool_down": True,
            },
            "action only": {"recorded": "euler_xyz_extrinsic", "declared": "euler_zyx_extrinsic", "part": "action"},
            "extrinsic as intrinsic, action": {
                "recorded": "euler_xyz_extrinsic",
                "declared": "euler_xyz_intrinsic",
                "part": "action",
                "tool_down": True,
            },
        },
    ),
    Fault(
        name="rotation_vector_as_euler",
        about="rotation vectors are declared as Euler angles",
        codes=codes.ROTATION_FORMAT,
        make=declared_as,
        strengths={
            "action": {
                "recorded": "axis_angle",
                "declared": "euler_xyz_extrinsic",
                "part": "action",
                "tool_down": True,
            },
        },
    ),
    Fault(
        name="rot6d_layout",
        about="the six numbers of a rotation are columns and declared interleaved, or the other way round",
        codes=codes.ROT6D_LAYOUT,
        make=declared_as,
        strengths={
            "columns as interleaved": {"recorded": "rot6d_columns", "declared": "rot6d_interleaved"},
            "interleaved as columns": {"recorded": "rot6d_interleaved", "declared": "rot6d_columns"},
            "tool down": {"recorded": "rot6d_columns", "declared": "rot6d_interleaved", "tool_down": True},
            "action": {"recorded": "rot6d_columns", "declared": "rot6d_interleaved", "part": "action"},
        },
    ),
    Fault(
        name="matrix_transposed",
        about="matrices are written transposed in the action, in the state or in some episodes",
        codes=codes.TRANSPOSED,
        make=transposed,
        strengths={
            "action": {"part": "action"},
            "state": {"part": "proprio"},
            "half of the episodes, action": {"part": "action", "share": 0.5},
            "quaternions inverted, action": {"part": "action", "format": "quaternion_xyzw"},
        },
    ),
    Fault(
        name="rotation_not_normalised",
        about="quaternions do not have length one, or matrices are scaled",
        codes=codes.NOT_A_ROTATION,
        make=broken,
        strengths={
            "quaternions twice as long": {"format": "quaternion_xyzw", "how": "scaled", "size": 2.0},
            "quaternions 5 % short": {"format": "quaternion_wxyz", "how": "scaled", "size": 0.95},
            "matrices 10 % large": {"format": "matrix", "how": "scaled", "size": 1.1},
        },
    ),
    Fault(
        name="rotation_not_orthonormal",
        about="columns of matrices or of six numbers are not orthogonal, or make a mirror",
        codes=codes.NOT_A_ROTATION,
        make=broken,
        strengths={
            "matrices, noise 0.05": {"format": "matrix", "how": "noisy", "size": 0.05},
            "six numbers, noise 0.2": {"format": "rot6d_columns", "how": "noisy", "size": 0.2},
            "mirrored matrices": {"format": "matrix", "how": "mirrored", "size": 1.0},
        },
    ),
    Fault(
        name="rotation_zero",
        about="some rows hold zeros where a rotation should be",
        codes=codes.NOT_A_ROTATION,
        make=broken,
        strengths={
            "1 % of quaternions": {"format": "quaternion_xyzw", "how": "zero", "size": 0.0, "share": 0.01},
            "5 % of matrices": {"format": "matrix", "how": "zero", "size": 0.0, "share": 0.05},
            "1 % of six numbers": {"format": "rot6d_interleaved", "how": "zero", "size": 0.0, "share": 0.01},
        },
    ),
)
