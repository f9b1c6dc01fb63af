"""Mistakes about the gripper: which number is open, and how far the numbers go."""

from xvla_platform.data.reader import DatasetReader
from xvla_platform.specs.embodiment import EmbodimentSpec
from xvla_platform.specs.fields import FieldSpec
from xvla_platform.testing.faults import codes
from xvla_platform.testing.faults.declare import Part, dims, field_of, parts, redeclared
from xvla_platform.testing.faults.fault import Fault, Planted, chosen
from xvla_platform.testing.faults.views import NumbersView, Vectors


def polarity_declared(reader: DatasetReader, spec: EmbodimentSpec, seed: int, part: Part) -> Planted:
    """`open` and `closed` are declared the wrong way round."""
    dims(spec, "action", "gripper")
    return reader, redeclared(spec, "gripper", lambda field: {"open": field.closed, "closed": field.open}, part)


def polarity_recorded(
    reader: DatasetReader, spec: EmbodimentSpec, seed: int, part: Part, share: float = 1.0
) -> Planted:
    """A share of the episodes was recorded with a gripper that counts the other way."""
    hit = chosen(reader, share, seed)
    dims(spec, "action", "gripper")

    def change(episode: int, vectors: Vectors) -> Vectors:
        for name in parts(part) if episode in hit else ():
            field, columns = field_of(spec, name, "gripper")
            assert field.open is not None
            assert field.closed is not None
            vectors[name][:, columns] = field.open + field.closed - vectors[name][:, columns]
        return vectors

    return NumbersView(reader, spec, change), spec


def range_declared(reader: DatasetReader, spec: EmbodimentSpec, seed: int, factor: float, part: Part) -> Planted:
    """Open and closed are declared `factor` times their recorded values."""

    def edit(field: FieldSpec) -> dict[str, float]:
        return {"open": float(field.open or 0.0) * factor, "closed": float(field.closed or 0.0) * factor}

    dims(spec, "action", "gripper")
    return reader, redeclared(spec, "gripper", edit, part)


def range_recorded(
    reader: DatasetReader, spec: EmbodimentSpec, seed: int, factor: float, share: float, part: Part = "both"
) -> Planted:
    """A share of the episodes holds gripper values of another range."""
    hit = chosen(reader, share, seed)
    dims(spec, "action", "gripper")

    def change(episode: int, vectors: Vectors) -> Vectors:
        for name in parts(part) if episode in hit else ():
            vectors[name][:, dims(spec, name, "gripper")] *= factor
        return vectors

    return NumbersView(reader, spec, change), spec


FAULTS = (
    Fault(
        name="gripper_polarity_declared",
        about="a closed gripper is declared as open",
        codes=codes.POLARITY,
        make=polarity_declared,
        strengths={"both": {"part": "both"}, "action": {"part": "action"}, "state": {"part": "proprio"}},
    ),
    Fault(
        name="gripper_polarity_recorded",
        about="the gripper counts the other way in the action, or in some episodes",
        codes=codes.POLARITY,
        make=polarity_recorded,
        strengths={
            "both": {"part": "both"},
            "action": {"part": "action"},
            "a third of the episodes": {"part": "both", "share": 0.33},
            "action of a third of the episodes": {"part": "action", "share": 0.33},
        },
    ),
    Fault(
        name="gripper_range_declared",
        about="open and closed are declared in another range than recorded",
        codes=codes.GRIPPER_RANGE,
        make=range_declared,
        strengths={
            "a hundred times": {"factor": 100.0, "part": "both"},
            "ten times": {"factor": 10.0, "part": "both"},
            "a half": {"factor": 0.5, "part": "both"},
            "a hundredth, action": {"factor": 0.01, "part": "action"},
        },
    ),
    Fault(
        name="gripper_range_recorded",
        about="the gripper's numbers leave the declared range",
        codes=codes.GRIPPER_RANGE,
        make=range_recorded,
        strengths={
            "a hundred times": {"factor": 100.0, "share": 1.0},
            "255 times, a third of the episodes": {"factor": 255.0, "share": 0.33},
            "minus one, action": {"factor": -1.0, "share": 1.0, "part": "action"},
        },
    ),
)
