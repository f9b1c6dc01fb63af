"""The contract between a dataset's columns and the base's model vector, in both directions.

One object carries units, frames, formats, polarity, relative actions and normalization; training, evaluation
and serving use the same one, so they cannot disagree. Arrays in are recorded numbers, arrays out are model
vectors of `space.dim` numbers (X-VLA, arXiv 2510.10274, section 3), or the reverse.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xvla_platform.data.canonical import (
    Trajectory,
    absolute_targets,
    from_canonical,
    reference_field,
    relative_to,
    to_canonical,
)
from xvla_platform.data.normalization import Scaling, scaling
from xvla_platform.data.placement import Placement, place
from xvla_platform.data.reader import FloatArray
from xvla_platform.data.rotations import from_matrix, geodesic_deg, to_matrix
from xvla_platform.data.units import factor
from xvla_platform.data.vectors import label
from xvla_platform.errors import XvlaError
from xvla_platform.specs.action_space import ActionSpace
from xvla_platform.specs.embodiment import EmbodimentSpec

ModelArray = NDArray[np.float32]
SIX_D = ("rot6d_columns", "rot6d_interleaved")


class Binding:
    """A robot's declared vectors, bound to one action space.

    Attributes:
        action_mask: [dim] bool, the dims of the model's action that mean something for this robot; the rest
            are zeros in every target.
        proprio_mask: [dim] bool, the same for proprio.
    """

    def __init__(
        self,
        spec: EmbodimentSpec,
        space: ActionSpace,
        rotation_layout: str,
        statistics: Mapping[str, Any] | None = None,
    ) -> None:
        """
        Args:
            spec: The robot.
            space: The base's action space; every field must fit it, else `XvlaError`.
            rotation_layout: 6D layout of the base's model vector.
            statistics: What `compute_statistics` returned; needed only where a field is normalized.
        """
        if rotation_layout not in SIX_D:
            raise XvlaError("unknown rotation layout", field="rotation_layout", found=rotation_layout, allowed=SIX_D)
        self.spec = spec
        self.space = space
        self.rotation_layout = rotation_layout
        self.proprio_placements = place(spec, space, "proprio")
        self.action_placements = place(spec, space, "action")
        self._references = {
            field.name: reference_field(spec, field) for field in spec.action.fields if field.reference == "relative"
        }
        self._scalings: dict[tuple[str, str], Scaling] = {
            (vector, placed.field.name): scaling(placed.field, vector, statistics)
            for vector, placements in (
                ("proprio", self.proprio_placements),
                ("action", self.action_placements),
            )
            for placed in placements
        }
        self.action_mask = self._mask(self.action_placements)
        self.proprio_mask = self._mask(self.proprio_placements)

    def proprio(self, raw: FloatArray) -> ModelArray:
        """Recorded states [..., P] as model proprio, float32 [..., dim]."""
        raw = _checked(raw, self.spec.proprio.size, label(self.spec.proprio))
        out = np.zeros((*raw.shape[:-1], self.space.dim), dtype=np.float32)
        for placed in self.proprio_placements:
            values = to_canonical(placed.field, raw[..., placed.column])
            out[..., placed.model] = self._to_model(placed, "proprio", values)
        return out

    def hold(self, proprio: NDArray[Any]) -> ModelArray | None:
        """Model proprio [..., dim] as the model action [..., dim] that keeps the robot where it is.

        None where proprio does not hold every action field: of its kind and arm, by name if several.
        """
        proprio = _checked(proprio, self.space.dim, "model proprio")
        out = np.zeros(proprio.shape, dtype=np.float32)
        declared = {field.name: field for field in self.spec.action.fields}
        for placed in self.action_placements:
            try:
                state = reference_field(self.spec, declared[placed.field.name])
            except XvlaError:
                return None
            (source,) = (other for other in self.proprio_placements if other.field.name == state.name)
            values = proprio[..., source.model]
            if placed.field.kind == "rotation":
                out[..., placed.model] = values  # proprio and action share one layout
                continue
            values = self._scalings["proprio", state.name].invert(values)
            if placed.field.kind == "gripper":
                values = values.clip(0.0, 1.0)
            out[..., placed.model] = self._scalings["action", placed.field.name].apply(values)
        return out

    def targets(self, raw_state: FloatArray, raw_action: FloatArray) -> Trajectory:
        """Recorded states [L, P] and actions [L, A] of one episode as canonical absolute targets."""
        raw_state = _checked(raw_state, self.spec.proprio.size, label(self.spec.proprio))
        raw_action = _checked(raw_action, self.spec.action.size, label(self.spec.action))
        return absolute_targets(self.spec, raw_state, raw_action)

    def encode(self, trajectory: Trajectory) -> ModelArray:
        """Canonical targets [..., T, *] as model actions, float32 [..., T, dim]; a gripper is 1 closed."""
        first = self.action_placements[0].field
        lead = trajectory.values[first.name].shape[: -2 if first.kind == "rotation" else -1]
        out = np.zeros((*lead, self.space.dim), dtype=np.float32)
        for placed in self.action_placements:
            values = trajectory.values[placed.field.name]
            out[..., placed.model] = self._to_model(placed, "action", values)
        return out

    def decode(self, chunk: NDArray[Any]) -> dict[str, FloatArray]:
        """A model chunk [..., T, dim or real_dim] as absolute targets [..., T, size] per field, in declared units.

        A gripper comes as probability of closed and leaves as the value between `open` and `closed`.
        """
        values = self._from_model(chunk, strict=True)
        return {
            placed.field.name: from_canonical(placed.field, values[placed.field.name])
            for placed in self.action_placements
        }

    def to_columns(self, chunk: NDArray[Any], state: FloatArray) -> FloatArray:
        """A model chunk [T, dim] as rows [T, A] of the dataset's own action column.

        Relative fields are given relative to the recorded state [P], that is the one now.
        """
        state = _checked(state, self.spec.proprio.size, label(self.spec.proprio))
        values, slices = self._from_model(chunk, strict=True), self.spec.proprio.slices()
        columns = []
        for placed in self.action_placements:
            target = values[placed.field.name]
            reference = self._references.get(placed.field.name)
            if reference is not None:
                now = to_canonical(reference, state[..., slices[reference.name]])
                target = relative_to(placed.field.kind, now, target)
            columns.append(from_canonical(placed.field, target))
        return np.concatenate(columns, axis=-1)

    def errors(self, predicted: NDArray[Any], target: NDArray[Any]) -> dict[str, FloatArray]:
        """Mean error over T of model chunks [..., T, dim], per action field [...], in `error_units`.

        position: Euclidean distance; rotation: geodesic angle; joint: mean absolute difference; gripper:
        share of the stroke. A predicted 6D vector that gives no direction counts as the identity.
        """
        found, truth = self._from_model(predicted, strict=False), self._from_model(target, strict=False)
        out: dict[str, FloatArray] = {}
        for placed in self.action_placements:
            a, b, field = found[placed.field.name], truth[placed.field.name], placed.field
            if field.kind == "rotation":
                error = geodesic_deg(a, b)
            elif field.kind == "position":
                error = np.linalg.norm(a - b, axis=-1) / factor(field.unit)
            elif field.kind == "joint":
                error = np.abs(a - b).mean(axis=-1) / factor(field.unit)
            else:
                error = np.abs(a - b)[..., 0]
            out[field.name] = np.asarray(error.mean(axis=-1))
        return out

    def error_units(self) -> dict[str, str]:
        """Unit of each entry of `errors`."""
        fixed = {"rotation": "deg", "gripper": "share of stroke"}
        return {field.name: fixed.get(field.kind, str(field.unit)) for field in self.spec.action.fields}

    def _to_model(self, placed: Placement, vector: str, values: FloatArray) -> FloatArray:
        if placed.field.kind == "rotation":
            return from_matrix(values, self.rotation_layout)
        return self._scalings[vector, placed.field.name].apply(values)

    def _from_model(self, chunk: NDArray[Any], *, strict: bool) -> dict[str, FloatArray]:
        # What the model answers has its padding cut already (`auto` spaces); no field lies in the padding.
        width = np.shape(chunk)[-1:] == (self.space.real_dim,)
        chunk = _checked(chunk, self.space.real_dim if width else self.space.dim, "model chunk")
        out = {}
        for placed in self.action_placements:
            values = chunk[..., placed.model]
            if placed.field.kind == "rotation":
                out[placed.field.name] = to_matrix(values, self.rotation_layout, strict=strict)
            else:
                out[placed.field.name] = self._scalings["action", placed.field.name].invert(values)
        return out

    def _mask(self, placements: tuple[Placement, ...]) -> NDArray[np.bool_]:
        mask = np.zeros(self.space.dim, dtype=np.bool_)
        for placed in placements:
            mask[placed.model] = True
        return mask


def _checked(values: NDArray[Any], size: int, name: str) -> FloatArray:
    values = np.asarray(values, dtype=np.float64)
    if values.shape[-1:] != (size,):
        raise XvlaError(f"expected {size} numbers in each row of {name}", found=f"shape {list(values.shape)}")
    return values
