"""Mistakes in what an action means: deltas and absolutes, axes, lag, copies of the state."""

import numpy as np

from xvla_platform.data.reader import DatasetReader
from xvla_platform.specs.embodiment import EmbodimentSpec
from xvla_platform.testing.faults import codes
from xvla_platform.testing.faults.declare import dims, field_of, redeclared, restated
from xvla_platform.testing.faults.fault import CannotBePlantedError, Fault, Planted, chosen, generator
from xvla_platform.testing.faults.recode import with_deltas, with_tool_down
from xvla_platform.testing.faults.views import NumbersView, Vectors

MOVING = ("position", "rotation")


def deltas_declared_absolute(
    reader: DatasetReader, spec: EmbodimentSpec, seed: int, kinds: tuple[str, ...], axes: str = "frame"
) -> Planted:
    """Recorded changes are declared as targets."""
    reader, after = with_deltas(reader, spec, axes)
    for kind in kinds:
        after = redeclared(after, kind, lambda _: {"reference": "absolute", "axes": None}, "action")
    return reader, after


def absolutes_declared_deltas(
    reader: DatasetReader, spec: EmbodimentSpec, seed: int, kinds: tuple[str, ...], reference: str = "relative"
) -> Planted:
    """Recorded targets are declared as changes."""
    for kind in kinds:
        spec = redeclared(spec, kind, lambda _: {"reference": reference, "axes": "frame"}, "action")
    return reader, spec


def other_reference(reader: DatasetReader, spec: EmbodimentSpec, seed: int, recorded: str, declared: str) -> Planted:
    """Changes since the first frame are declared as changes since the same frame, or the other way round."""
    reader, after = with_deltas(reader, spec, "frame", recorded)
    for kind in MOVING:
        after = redeclared(after, kind, lambda _: {"reference": declared}, "action")
    return reader, after


def other_axes(
    reader: DatasetReader, spec: EmbodimentSpec, seed: int, recorded: str, declared: str, kinds: tuple[str, ...]
) -> Planted:
    """Changes along one frame's axes are declared as along the other's; the tool points down, as tools do."""
    reader, spec = with_tool_down(reader, spec)
    reader, after = with_deltas(reader, spec, recorded)
    for kind in kinds:
        after = redeclared(after, kind, lambda _: {"axes": declared}, "action")
    return reader, after


def lag(reader: DatasetReader, spec: EmbodimentSpec, seed: int, ticks: int, share: float = 1.0) -> Planted:
    """Actions lie `ticks` rows too late (or, negative, too early) beside the states they belong to."""
    hit = chosen(reader, share, seed)

    def change(episode: int, vectors: Vectors) -> Vectors:
        if episode in hit:
            rows = np.clip(np.arange(len(vectors["action"])) - ticks, 0, len(vectors["action"]) - 1)
            vectors["action"] = vectors["action"][rows]
        return vectors

    return NumbersView(reader, spec, change), spec


def action_is_state(
    reader: DatasetReader, spec: EmbodimentSpec, seed: int, noise: float = 0.0, declared: bool = False
) -> Planted:
    """The action column holds the state of the same frame, or the declaration names the state's column for both."""
    fields = zip(spec.proprio.fields, spec.action.fields, strict=False)
    if spec.proprio.size != spec.action.size or any(s.kind != a.kind for s, a in fields):
        raise CannotBePlantedError(f"state and action of {spec.name} have other fields")
    if declared:
        return reader, restated(spec, action={**spec.action.model_dump(mode="json"), "key": spec.proprio.key})

    def change(episode: int, vectors: Vectors) -> Vectors:
        state = vectors["proprio"]
        steps = np.abs(np.diff(state, axis=0)).mean(axis=0)
        wobble = generator(seed, episode).normal(size=state.shape) * steps * noise
        return {"proprio": state, "action": state + wobble}

    return NumbersView(reader, spec, change), spec


def action_axes_swapped(
    reader: DatasetReader, spec: EmbodimentSpec, seed: int, how: str = "swapped", share: float = 1.0
) -> Planted:
    """Positions of the action are in another frame than the state's: two axes swapped, one mirrored, or turned."""
    hit = chosen(reader, share, seed)
    first, second = (int(axis) for axis in np.random.default_rng(seed).permutation(3)[:2])

    def change(episode: int, vectors: Vectors) -> Vectors:
        columns = dims(spec, "action", "position")
        values = vectors["action"][:, columns]
        if episode in hit:
            if how == "swapped":
                values[:, [first, second]] = values[:, [second, first]]
            else:
                values[:, first] = -values[:, first]
            vectors["action"][:, columns] = values
        return vectors

    return NumbersView(reader, spec, change), spec


def fields_out_of_order(reader: DatasetReader, spec: EmbodimentSpec, seed: int, part: str) -> Planted:
    """The declaration lists the rotation before the position, the recording has them the other way round."""
    for name in ("proprio", "action"):
        field_of(spec, name, "position")
        field_of(spec, name, "rotation")
    values = spec.model_dump(mode="json")
    for name in ("proprio", "action") if part == "both" else (part,):
        fields = values[name]["fields"]
        places = [place for place, field in enumerate(fields) if field["kind"] in MOVING]
        fields[places[0]], fields[places[1]] = fields[places[1]], fields[places[0]]
    return reader, restated(spec, **values)


FAULTS = (
    Fault(
        name="deltas_declared_absolute",
        about="recorded changes are declared as targets",
        codes=codes.REFERENCE,
        make=deltas_declared_absolute,
        strengths={
            "position and rotation": {"kinds": MOVING},
            "position": {"kinds": ("position",)},
            "rotation": {"kinds": ("rotation",)},
            "tool axes": {"kinds": MOVING, "axes": "tool"},
        },
    ),
    Fault(
        name="absolutes_declared_deltas",
        about="recorded targets are declared as changes",
        codes=codes.REFERENCE,
        make=absolutes_declared_deltas,
        strengths={
            "position and rotation": {"kinds": MOVING},
            "position": {"kinds": ("position",)},
            "as from the first frame": {"kinds": MOVING, "reference": "relative_to_first"},
        },
    ),
    Fault(
        name="other_reference",
        about="changes since the first frame are declared as changes since the same frame, or the other way round",
        codes=codes.REFERENCE,
        make=other_reference,
        strengths={
            "from the first as from the same": {"recorded": "relative_to_first", "declared": "relative"},
            "from the same as from the first": {"recorded": "relative", "declared": "relative_to_first"},
        },
    ),
    Fault(
        name="other_axes",
        about="changes along the tool's axes are declared as along the frame's, or the other way round",
        codes=codes.AXES,
        make=other_axes,
        strengths={
            "tool as frame": {"recorded": "tool", "declared": "frame", "kinds": MOVING},
            "frame as tool": {"recorded": "frame", "declared": "tool", "kinds": MOVING},
            "tool as frame, position": {"recorded": "tool", "declared": "frame", "kinds": ("position",)},
        },
    ),
    Fault(
        name="action_lag",
        about="actions lie some ticks too late or too early beside their states",
        codes=codes.LAG,
        make=lag,
        strengths={
            "late by 8": {"ticks": 8},
            "late by 15": {"ticks": 15},
            "early by 8": {"ticks": -8},
            "early by 15": {"ticks": -15},
        },
    ),
    Fault(
        name="action_is_state",
        about="the action is the state of the same frame, so that the robot is taught to stand still",
        codes=codes.ACTION_IS_STATE,
        make=action_is_state,
        strengths={
            "exactly": {},
            "but for a little noise": {"noise": 0.02},
            "one column declared for both": {"declared": True},
        },
    ),
    Fault(
        name="action_in_another_frame",
        about="the action's positions are along other axes than the state's",
        codes=codes.ACTION_FRAME,
        make=action_axes_swapped,
        strengths={
            "two axes swapped": {"how": "swapped"},
            "one axis mirrored": {"how": "mirrored"},
            "swapped in half of the episodes": {"how": "swapped", "share": 0.5},
        },
    ),
    Fault(
        name="fields_out_of_order",
        about="position and rotation are declared in the other order than recorded",
        codes=codes.FIELDS_OUT_OF_ORDER,
        make=fields_out_of_order,
        strengths={"both": {"part": "both"}, "action": {"part": "action"}},
    ),
)
