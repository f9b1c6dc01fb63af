"""The same motion recorded in another way, without a mistake: rotation formats, deltas, a turned tool, joints.

A fault in a format that a robot does not use starts here. Written with scipy alone, so that a mistake in the
platform's own conversions cannot hide itself.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

from xvla_platform.data.reader import DatasetReader, FloatArray
from xvla_platform.specs.embodiment import EmbodimentSpec
from xvla_platform.specs.fields import ROTATION_SIZE, FieldSpec
from xvla_platform.testing.faults.declare import METRES, dims, field_of, redeclared, restated
from xvla_platform.testing.faults.fault import Planted
from xvla_platform.testing.faults.views import NumbersView, Vectors

TOOL_DOWN = Rotation.from_euler("x", 180, degrees=True)


def decode(values: FloatArray, format: str, unit: str | None) -> Rotation:
    """Rotations of recorded numbers [L, n]."""
    if format.startswith("euler_"):
        _, order, sense = format.split("_")
        axes = order.upper() if sense == "intrinsic" else order
        return Rotation.from_euler(axes, values, degrees=unit == "deg")
    if format == "axis_angle":
        return Rotation.from_rotvec(values, degrees=unit == "deg")
    if format.startswith("quaternion"):
        return Rotation.from_quat(values if format.endswith("xyzw") else np.roll(values, -1, axis=1))
    if format == "matrix":
        return Rotation.from_matrix(values.reshape(-1, 3, 3))
    first, second = (values[:, :3], values[:, 3:]) if format == "rot6d_columns" else (values[:, ::2], values[:, 1::2])
    x = first / np.linalg.norm(first, axis=1, keepdims=True)
    y = second - x * (x * second).sum(axis=1, keepdims=True)
    y /= np.linalg.norm(y, axis=1, keepdims=True)
    return Rotation.from_matrix(np.stack([x, y, np.cross(x, y)], axis=2))


def encode(rotation: Rotation, format: str, unit: str | None) -> FloatArray:
    """Recorded numbers [L, n] of rotations."""
    if format.startswith("euler_"):
        _, order, sense = format.split("_")
        axes: Any = order.upper() if sense == "intrinsic" else order
        return np.asarray(rotation.as_euler(axes, degrees=unit == "deg"))
    if format == "axis_angle":
        return np.asarray(rotation.as_rotvec(degrees=unit == "deg"))
    if format.startswith("quaternion"):
        values = rotation.as_quat()
        for row in range(1, len(values)):  # a driver keeps to the nearer of q and -q
            if values[row] @ values[row - 1] < 0:
                values[row] = -values[row]
        return values if format.endswith("xyzw") else np.roll(values, 1, axis=1)
    matrix = rotation.as_matrix()
    if format == "matrix":
        return np.asarray(matrix.reshape(-1, 9))
    x, y = matrix[:, :, 0], matrix[:, :, 1]
    return np.concatenate([x, y], axis=1) if format == "rot6d_columns" else np.stack([x, y], axis=2).reshape(-1, 6)


def with_rotations(reader: DatasetReader, spec: EmbodimentSpec, format: str, unit: str | None = None) -> Planted:
    """Every rotation of both vectors recorded, and declared, in another format."""
    after = redeclared(spec, "rotation", lambda _: {"format": format, "unit": unit, "size": ROTATION_SIZE[format]})

    def change(field: FieldSpec, values: FloatArray) -> FloatArray:
        if field.kind != "rotation":
            return values
        return encode(decode(values, str(field.format), field.unit), format, unit)

    return NumbersView(reader, spec, lambda _, vectors: _by_field(spec, vectors, change), after), after


def with_tool_down(reader: DatasetReader, spec: EmbodimentSpec) -> Planted:
    """The tool's frame turned by half a turn about x, as robots record it whose tool z points out of the gripper."""
    dims(spec, "action", "rotation")

    def change(field: FieldSpec, values: FloatArray) -> FloatArray:
        if field.kind != "rotation":
            return values
        turned = decode(values, str(field.format), field.unit) * TOOL_DOWN
        return encode(turned, str(field.format), field.unit)

    return NumbersView(reader, spec, lambda _, vectors: _by_field(spec, vectors, change)), spec


def with_deltas(
    reader: DatasetReader, spec: EmbodimentSpec, axes: str = "frame", reference: str = "relative"
) -> Planted:
    """Actions of position and rotation recorded, and declared, as changes of the state now or of the first state."""
    after = redeclared(spec, "position", lambda _: {"reference": reference, "axes": axes}, "action")
    after = redeclared(after, "rotation", lambda _: {"reference": reference, "axes": axes}, "action")
    (state_p, at_p), (_, to_p) = field_of(spec, "proprio", "position"), field_of(spec, "action", "position")
    (state_r, at_r), (field_r, to_r) = field_of(spec, "proprio", "rotation"), field_of(spec, "action", "rotation")
    scale = METRES[str(state_p.unit)] / METRES[str(field_of(spec, "action", "position")[0].unit)]

    def change(_: int, vectors: Vectors) -> Vectors:
        state, action = vectors["proprio"], vectors["action"].copy()
        if reference == "relative_to_first":
            state = np.repeat(state[:1], len(state), axis=0)
        now = decode(state[:, at_r], str(state_r.format), state_r.unit)
        target = decode(action[:, to_r], str(field_r.format), field_r.unit)
        step = action[:, to_p] - state[:, at_p] * scale
        action[:, to_p] = now.inv().apply(step) if axes == "tool" else step
        turn = now.inv() * target if axes == "tool" else target * now.inv()
        action[:, to_r] = encode(turn, str(field_r.format), field_r.unit)
        return {"proprio": vectors["proprio"], "action": action}

    return NumbersView(reader, spec, change, after), after


def with_joints(reader: DatasetReader, spec: EmbodimentSpec, unit: str = "rad") -> Planted:
    """The robot recorded in joint space: six joints of an arm of two links and a spherical wrist, and the gripper.

    The arm stands so that the recorded workspace lies within its reach: a recording in joints of a plausible robot,
    with the same motion, images and words.
    """
    joint = {"name": "joints", "kind": "joint", "size": 6, "unit": unit}
    values = spec.model_dump(mode="json")
    for name in ("proprio", "action"):
        kept = [f for f in values[name]["fields"] if f["kind"] == "gripper"]
        own = {**joint, "reference": "absolute"} if name == "action" else joint
        values[name]["fields"] = [own, *kept]
    after = restated(spec, **{**values, "kinematics": (), "frame_changes": ()})
    first = np.concatenate([_poses(reader, spec, episode.index)[0] for episode in reader.episodes[:20]])
    centre = first.mean(axis=0) - np.array([0.45, 0.0, 0.15])
    reach = 1.05 * float(np.linalg.norm(first - centre, axis=1).max()) + 0.25

    def change(_: int, vectors: Vectors) -> Vectors:
        out = {}
        for name in ("proprio", "action"):
            (p, at_p), (r, at_r) = field_of(spec, name, "position"), field_of(spec, name, "rotation")
            rotation = decode(vectors[name][:, at_r], str(r.format), r.unit)
            angles = _joints(vectors[name][:, at_p] * METRES[str(p.unit)] - centre, rotation * TOOL_DOWN, reach / 2)
            hand = vectors[name][:, dims(spec, name, "gripper")]
            out[name] = np.concatenate([np.rad2deg(angles) if unit == "deg" else angles, hand], axis=1)
        return out

    return NumbersView(reader, spec, change, after), after


def _joints(position: FloatArray, rotation: Rotation, link: float) -> FloatArray:
    """Angles [L, 6] in rad of an arm of two equal links (in m) with a spherical wrist, elbow up."""
    x, y, z = position.T
    turn, out = np.unwrap(np.arctan2(y, x)), np.hypot(x, y)
    length = np.minimum(np.hypot(out, z), 1.999 * link)
    bend = np.arccos(length / (2 * link))
    shoulder, elbow = np.arctan2(z, out) + bend, -2 * bend
    arm = Rotation.from_euler("ZY", np.stack([turn, -(shoulder + elbow)], axis=1))
    wrist = (arm.inv() * rotation).as_euler("XYZ")
    return np.concatenate([np.stack([turn, shoulder, elbow], axis=1), np.unwrap(wrist, axis=0)], axis=1)


def _poses(reader: DatasetReader, spec: EmbodimentSpec, episode: int) -> tuple[FloatArray, Rotation]:
    from xvla_platform.data.vectors import read_vector

    values = read_vector(reader, episode, spec.proprio, "proprio")
    (p, at_p), (r, at_r) = field_of(spec, "proprio", "position"), field_of(spec, "proprio", "rotation")
    return values[:, at_p] * METRES[str(p.unit)], decode(values[:, at_r], str(r.format), r.unit)


def _by_field(spec: EmbodimentSpec, vectors: Vectors, change: Callable[[FieldSpec, FloatArray], FloatArray]) -> Vectors:
    """Both vectors with each field's columns changed; a field may take another number of columns then."""
    out = {}
    for name, vector in (("proprio", spec.proprio), ("action", spec.action)):
        slots = vector.slices()
        pieces = [change(field, vectors[name][:, slots[field.name]]) for field in vector.fields]
        out[name] = np.concatenate(pieces, axis=1)
    return out
