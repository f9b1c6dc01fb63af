"""Mistakes in the size of numbers: units of positions, angles and joints, and a frame that lies elsewhere."""

import numpy as np

from xvla_platform.data.reader import DatasetReader
from xvla_platform.specs.embodiment import EmbodimentSpec
from xvla_platform.specs.fields import EULER_FORMATS
from xvla_platform.testing.faults import codes
from xvla_platform.testing.faults.declare import METRES, Part, dims, field_of, parts, redeclared
from xvla_platform.testing.faults.fault import CannotBePlantedError, Fault, Planted, chosen
from xvla_platform.testing.faults.recode import with_joints, with_rotations
from xvla_platform.testing.faults.views import NumbersView, Vectors


def position_unit_declared(
    reader: DatasetReader, spec: EmbodimentSpec, seed: int, factor: float, part: Part
) -> Planted:
    """Positions are declared in a unit `factor` times (or a `factor`-th of) their own."""

    def other(unit: str) -> str:
        for name, metres in METRES.items():
            ratio = metres / METRES[unit]
            if np.isclose(ratio, factor) or np.isclose(1 / ratio, factor):
                return name
        raise CannotBePlantedError(f"no unit of length is {factor:g} times a {unit}")

    return reader, redeclared(spec, "position", lambda field: {"unit": other(str(field.unit))}, part)


def position_unit_recorded(
    reader: DatasetReader, spec: EmbodimentSpec, seed: int, part: Part, share: float = 1.0, only: int | None = None
) -> Planted:
    """Positions (or their dim `only`) of a share of the episodes are recorded a thousand times too large or small."""
    hit = chosen(reader, share, seed)

    def change(episode: int, vectors: Vectors) -> Vectors:
        for name in parts(part) if episode in hit else ():
            field, _ = field_of(spec, name, "position")
            columns = dims(spec, name, "position")
            columns = columns if only is None else [columns[only]]
            vectors[name][:, columns] *= 1000.0 if field.unit == "m" else 0.001
        return vectors

    return NumbersView(reader, spec, change), spec


def angle_unit_declared(reader: DatasetReader, spec: EmbodimentSpec, seed: int, part: Part) -> Planted:
    """Angles are declared in radians instead of degrees, or the other way round."""
    reader, spec = _in_angles(reader, spec)
    swap = {"rad": "deg", "deg": "rad"}
    return reader, redeclared(spec, "rotation", lambda field: {"unit": swap[str(field.unit)]}, part)


def angle_unit_recorded(
    reader: DatasetReader, spec: EmbodimentSpec, seed: int, part: Part, share: float = 1.0
) -> Planted:
    """Angles of a share of the episodes are recorded in the other unit."""
    reader, spec = _in_angles(reader, spec)
    hit = chosen(reader, share, seed)

    def change(episode: int, vectors: Vectors) -> Vectors:
        for name in parts(part) if episode in hit else ():
            field, columns = field_of(spec, name, "rotation")
            vectors[name][:, columns] *= 180 / np.pi if field.unit == "rad" else np.pi / 180
        return vectors

    return NumbersView(reader, spec, change), spec


def joint_unit_declared(reader: DatasetReader, spec: EmbodimentSpec, seed: int, unit: str, part: Part) -> Planted:
    """A joint robot recorded in `unit` is declared in the other."""
    reader, spec = with_joints(reader, spec, unit)
    wrong = {"rad": "deg", "deg": "rad"}[unit]
    return reader, redeclared(spec, "joint", lambda _: {"unit": wrong}, part)


def shifted_workspace(reader: DatasetReader, spec: EmbodimentSpec, seed: int, metres: float) -> Planted:
    """Positions are recorded in a frame that lies metres away, while the declaration says the robot's base."""
    direction = np.random.default_rng(seed).normal(size=3)
    offset = metres * direction / np.linalg.norm(direction)

    def change(_: int, vectors: Vectors) -> Vectors:
        for name in vectors:
            field, columns = field_of(spec, name, "position")
            vectors[name][:, columns] += offset / METRES[str(field.unit)]
        return vectors

    return NumbersView(reader, spec, change), spec


def _in_angles(reader: DatasetReader, spec: EmbodimentSpec) -> Planted:
    """The robot with rotations as angles; one that records quaternions is recorded in Euler angles first."""
    field, _ = field_of(spec, "action", "rotation")
    if field.unit is not None:
        return reader, spec
    return with_rotations(reader, spec, EULER_FORMATS[0], "rad")


FAULTS = (
    Fault(
        name="position_unit_declared",
        about="millimetres are declared as metres, or the other way round",
        codes=codes.POSITION_UNIT,
        make=position_unit_declared,
        strengths={
            "a thousand": {"factor": 1000.0, "part": "both"},
            "a thousand, action only": {"factor": 1000.0, "part": "action"},
            "a thousand, state only": {"factor": 1000.0, "part": "proprio"},
            "ten": {"factor": 10.0, "part": "both"},
            "a hundred": {"factor": 100.0, "part": "both"},
        },
    ),
    Fault(
        name="position_unit_recorded",
        about="positions are recorded in another unit than the rest of the set",
        codes=codes.POSITION_UNIT_IN_PART,
        make=position_unit_recorded,
        strengths={
            "all": {"part": "both"},
            "half of the episodes": {"part": "both", "share": 0.5},
            "a tenth of the episodes": {"part": "both", "share": 0.1},
            "action only": {"part": "action"},
        },
    ),
    Fault(
        name="position_unit_one_dim",
        about="one axis of a position is recorded in another unit than the others",
        codes=codes.POSITION_UNIT_ONE_DIM,
        make=position_unit_recorded,
        strengths={
            "height": {"part": "both", "only": 2},
            "height, action only": {"part": "action", "only": 2},
            "sideways": {"part": "both", "only": 1},
        },
    ),
    Fault(
        name="angle_unit_declared",
        about="degrees are declared as radians, or the other way round",
        codes=codes.ANGLE_UNIT,
        make=angle_unit_declared,
        strengths={"both": {"part": "both"}, "action": {"part": "action"}, "state": {"part": "proprio"}},
    ),
    Fault(
        name="angle_unit_recorded",
        about="angles are recorded in another unit than the rest of the set",
        codes=codes.ANGLE_UNIT_IN_PART,
        make=angle_unit_recorded,
        strengths={
            "all": {"part": "both"},
            "half of the episodes": {"part": "both", "share": 0.5},
            "a tenth of the episodes": {"part": "both", "share": 0.1},
            "action only": {"part": "action"},
        },
    ),
    Fault(
        name="joint_unit_declared",
        about="joints in degrees are declared as radians, or the other way round",
        codes=codes.JOINT_UNIT,
        make=joint_unit_declared,
        strengths={
            "degrees as radians": {"unit": "deg", "part": "both"},
            "radians as degrees": {"unit": "rad", "part": "both"},
            "degrees as radians, action": {"unit": "deg", "part": "action"},
        },
        also=codes.JOINT_SPACE,
    ),
    Fault(
        name="workspace_shifted",
        about="positions are given in a frame that lies metres away from the robot's base",
        codes=codes.WORKSPACE,
        make=shifted_workspace,
        strengths={"3 m": {"metres": 3.0}, "8 m": {"metres": 8.0}, "50 m": {"metres": 50.0}},
    ),
)
