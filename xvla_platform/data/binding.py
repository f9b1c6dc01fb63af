"""The contract between a dataset's columns and the base's model vector, in both directions.

One object carries units, frames, formats, polarity, relative actions and normalization; training, evaluation
and serving use the same one, so they cannot disagree. Arrays in are recorded numbers, arrays out are model
vectors of `space.dim` numbers (X-VLA, arXiv 2510.10274, section 3), or the reverse.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xvla_platform.data.canonical import Trajectory, from_canonical, recorded_actions
from xvla_platform.data.conventions import Conventions
from xvla_platform.data.normalization import Scaling, scaling
from xvla_platform.data.placement import Placement, place
from xvla_platform.data.reader import FloatArray
from xvla_platform.data.references import reference_field
from xvla_platform.data.rotations import from_matrix, geodesic_deg, to_matrix
from xvla_platform.data.units import factor
from xvla_platform.data.vectors import label
from xvla_platform.errors import XvlaError
from xvla_platform.specs.action_space import ActionSpace
from xvla_platform.specs.embodiment import EmbodimentSpec
from xvla_platform.specs.fields import FieldSpec

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
        *,
        folder: Path | None = None,
    ) -> None:
        """
        Args:
            spec: The robot.
            space: The base's action space; every field must fit it, else `XvlaError`.
            rotation_layout: 6D layout of the base's model vector.
            statistics: What `compute_statistics` returned; needed only where a field is normalized.
            folder: Where the files of `spec.kinematics` lie; needed only where joints become poses.
        """
        if rotation_layout not in SIX_D:
            raise XvlaError("unknown rotation layout", field="rotation_layout", found=rotation_layout, allowed=SIX_D)
        self.spec = spec
        self.space = space
        self.rotation_layout = rotation_layout
        self.conventions = Conventions(spec, space, folder)
        proprio, action = self.conventions.proprio, self.conventions.action
        self.proprio_placements = place(proprio, action, space, "proprio")
        self.action_placements = place(proprio, action, space, "action")
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

    @property
    def action_fields(self) -> tuple[FieldSpec, ...]:
        """The fields that are predicted and measured: those of `errors`, `error_units` and `quantities`."""
        return self.conventions.action

    def proprio(self, raw: FloatArray) -> ModelArray:
        """Recorded states [..., P] as model proprio, float32 [..., dim]."""
        raw = _checked(raw, self.spec.proprio.size, label(self.spec.proprio))
        values = self.conventions.state(raw)
        out = np.zeros((*raw.shape[:-1], self.space.dim), dtype=np.float32)
        for placed in self.proprio_placements:
            told = values[placed.field.name]
            if not np.isfinite(told).all():
                raise XvlaError("the state is not finite", field=f"proprio.{placed.field.name}")
            out[..., placed.model] = self._to_model(placed, "proprio", told)
        return out

    def hold(self, proprio: NDArray[Any]) -> ModelArray | None:
        """Model proprio [..., dim] as the model action [..., dim] that keeps the robot where it is.

        None where proprio does not hold every action field: of its kind and arm, by name if several.
        """
        proprio = _checked(proprio, self.space.dim, "model proprio")
        out = np.zeros(proprio.shape, dtype=np.float32)
        for placed in self.action_placements:
            try:
                state = reference_field(self.conventions.proprio, placed.field)
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
        """One whole episode's recorded states [L, P] and actions [L, A] as absolute targets in the model's frame."""
        raw_state = _checked(raw_state, self.spec.proprio.size, label(self.spec.proprio))
        raw_action = _checked(raw_action, self.spec.action.size, label(self.spec.action))
        return self.conventions.targets(raw_state, raw_action)

    def encode(self, trajectory: Trajectory) -> ModelArray:
        """Canonical targets [..., T, *] as model actions, float32 [..., T, dim]; a gripper is 1 closed."""
        first = self.action_placements[0].field
        lead = trajectory.values[first.name].shape[: -2 if first.kind == "rotation" else -1]
        out = np.zeros((*lead, self.space.dim), dtype=np.float32)
        for placed in self.action_placements:
            values = trajectory.values[placed.field.name]
            out[..., placed.model] = self._to_model(placed, "action", values)
        return out

    def quantities(self, chunk: NDArray[Any], *, strict: bool = True) -> dict[str, FloatArray]:
        """A model chunk [..., T, dim or real_dim] as absolute targets [..., T, size] by field of `action_fields`.

        They are in the fields' units and in the recorded frame; joints that the base is told as poses stay poses.
        """
        values = self._from_model(chunk, strict=strict)
        return {field.name: from_canonical(field, values[field.name]) for field in self.action_fields}

    def decode(self, chunk: NDArray[Any], state: FloatArray | None = None) -> dict[str, FloatArray]:
        """A model chunk [..., T, dim or real_dim] as absolute targets [..., T, size] by declared field, in its units.

        A gripper comes as probability of closed and leaves as the value between `open` and `closed`, or as one of
        them where it has a threshold. Ignored fields have no target. The recorded state [..., P] of the moment is
        needed only where joints are found from poses (`conventions.needs_state`).
        """
        return self._in_units(self._declared(chunk, state))

    def to_columns(self, chunk: NDArray[Any], state: FloatArray, first_state: FloatArray | None = None) -> FloatArray:
        """A model chunk [T, dim] as rows [T, A] of the dataset's own action vector.

        Args:
            state: Recorded state [P] now, which `relative` fields refer to.
            first_state: Recorded state [P] at the episode's first frame, which `relative_to_first` fields refer to.
        """
        return self._rows(self._declared(chunk, state), state, first_state)

    def answer(
        self, chunk: NDArray[Any], state: FloatArray, first_state: FloatArray | None = None
    ) -> tuple[dict[str, FloatArray], FloatArray]:
        """What `decode` and `to_columns` give, with the way from poses to joints found once."""
        values = self._declared(chunk, state)
        return self._in_units(values), self._rows(values, state, first_state)

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
        return {field.name: fixed.get(field.kind, str(field.unit)) for field in self.action_fields}

    def _declared(self, chunk: NDArray[Any], state: FloatArray | None) -> dict[str, FloatArray]:
        """Canonical absolute targets by declared field, in the recorded frame."""
        if state is not None:
            state = _checked(state, self.spec.proprio.size, label(self.spec.proprio))
        return self.conventions.declared(self._from_model(chunk, strict=True), state)

    def _in_units(self, values: Mapping[str, FloatArray]) -> dict[str, FloatArray]:
        return {f.name: from_canonical(f, values[f.name]) for f in self.spec.action.fields if f.kind != "ignored"}

    def _rows(self, values: Mapping[str, FloatArray], state: FloatArray, first: FloatArray | None) -> FloatArray:
        state = _checked(state, self.spec.proprio.size, label(self.spec.proprio))
        if first is not None:
            first = _checked(first, self.spec.proprio.size, label(self.spec.proprio))
        return recorded_actions(self.spec, values, state, first)

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
        return self.conventions.undo_frames(out)

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
